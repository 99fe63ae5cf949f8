import assert from 'node:assert/strict';
import { connect, Socket } from 'node:net';
import { hostname } from 'node:os';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { findReplyCause } from '../../src/protocol/causes/book.ts';
import { isDottedHostName } from '../../src/protocol/helo-name.ts';
import { createDialer } from '../../src/upstream/dial.ts';
import { createTestClock } from '../support/clock.ts';
import { leakless } from '../support/leak-check.ts';
import { ANN, startRoom } from '../support/relay-room.ts';
import type { Stage } from '../support/smtp-script.ts';
import { PATIENCE_MS, waitFor, within } from '../support/wait-for.ts';

for (const [stage, skip] of [
  ['greeting', 0],
  ['EHLO', 0],
  ['STARTTLS', 0],
  ['EHLO', 1],
  ['AUTH-command', 0],
  ['AUTH', 0],
  ['EHLO', 2],
] as const satisfies readonly (readonly [Stage, number])[]) {
  test(
    `a provider that drips at ${stage}${skip > 0 ? ` (${skip + 1}.)` : ''} costs one limit, and the next attempt starts afresh`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, {
        warm: false,
        open: { connectTimeoutMs: 400, loginTimeoutMs: 200 },
      });
      room.provider.smtp.script(stage, { skip }, { dripMs: 20 });
      const heard = await within(room.send(), PATIENCE_MS, 'an answer to MAIL');
      assert.deepEqual([heard.mail.code, heard.mail.enhanced], [451, '4.4.1']);
      await room.provider.assertDisconnected();
      assert.equal((await room.send()).final?.code, 250);
    }),
  );
}

test(
  'a warm-up at a provider that drips ends',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      warm: false,
      open: { connectTimeoutMs: 300, loginTimeoutMs: 100 },
    });
    room.provider.smtp.script('greeting', { times: Number.POSITIVE_INFINITY }, { dripMs: 20 });
    await room.tokens.precache();
    assert.deepEqual(await within(room.upstreams.warmUp(), PATIENCE_MS, 'the warm-up'), { warm: 0, cold: 1 });
  }),
);

/** Names of the test provider that stand for addresses with a fate of their own. */
const twoAddresses = (first: 'hole' | 'real', clock = systemClock, tried: string[] = []) =>
  createDialer({
    clock,
    random: () => 0,
    lookup: async () => (first === 'hole' ? ['127.0.0.9', '127.0.0.1'] : ['127.0.0.1', '127.0.0.9']),
    connect: ({ host, port }) => {
      tried.push(host);
      return host === '127.0.0.9' ? new Socket() : connect({ host, port });
    },
  });

test(
  'with one black hole of two addresses the first message takes a quarter of a second, the others nothing',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const tried: string[] = [];
    const dial = twoAddresses('hole', clock, tried);
    const room = await startRoom(defer, { clock, warm: false, open: { dial } });
    await room.tokens.precache();
    const sent = room.send();
    await waitFor(() => tried.length > 0);
    clock.advance(249);
    assert.deepEqual(tried, ['127.0.0.9']);
    clock.advance(1);
    assert.equal((await within(sent, PATIENCE_MS, 'the first message')).final?.code, 250);
    assert.deepEqual(tried, ['127.0.0.9', '127.0.0.1']);
    room.provider.smtp.disturb('reset');
    await waitFor(() => room.upstreams.status(ANN)?.counts.size === 0);
    assert.equal((await within(room.send(), PATIENCE_MS, 'the next one')).final?.code, 250);
    assert.equal(tried[2], '127.0.0.1');
  }),
);

test(
  'an address that accepts and never greets is left for the good one within the attempt',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      warm: false,
      // The second of two connections to the provider stands for the second address.
      open: {
        dial: createDialer({
          random: () => 0,
          lookup: async () => ['127.0.0.1', '127.0.0.2'],
          connect: ({ port }) => connect({ host: '127.0.0.1', port }),
        }),
        silentAddressMs: 200,
      },
    });
    room.provider.smtp.script('greeting', {}, { after: 'hang' });
    assert.equal((await within(room.send(), PATIENCE_MS, 'the message')).final?.code, 250);
    assert.equal(room.provider.smtp.connections, 2);
    // And it comes last from now on.
    room.provider.smtp.disturb('reset');
    await waitFor(() => room.upstreams.status(ANN)?.counts.size === 0);
    assert.equal((await room.send()).final?.code, 250);
  }),
);

test(
  'EHLO carries helo_name of the account, else the setting, else a full host name or the address',
  leakless(async (_t, defer) => {
    const own = await startRoom(defer, { account: { helo_name: 'ann.example.org' } });
    assert.deepEqual(new Set(own.provider.smtp.sessions.map((s) => s.hello)), new Set(['ann.example.org']));
    const setting = await startRoom(defer, { open: { heloName: 'mx.example.org' } });
    assert.equal(setting.provider.smtp.sessions[0]?.hello, 'mx.example.org');
    const none = await startRoom(defer, { open: { heloName: undefined } });
    const expected = isDottedHostName(hostname()) ? hostname() : '[127.0.0.1]';
    assert.equal(none.provider.smtp.sessions[0]?.hello, expected);
  }),
);

for (const refusal of [
  '501-5.5.4 HELO/EHLO argument "vm" invalid, closing connection. a1sm1 - gsmtp\r\n501 5.5.4  https://support.google.com/mail/?p=helo a1sm1 - gsmtp',
  '421 4.7.0 Try again later, closing connection. (EHLO) a1sm1 - gsmtp',
]) {
  test(
    `a refused EHLO (${refusal.slice(0, 3)}) is the setting's fault, named with its cure, and does not count against the upstream`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, { warm: false });
      room.provider.smtp.script(
        'EHLO',
        { times: Number.POSITIVE_INFINITY },
        { reply: refusal.split('\r\n') },
      );
      for (let i = 0; i < 8; i++) {
        const heard = await room.send();
        assert.deepEqual([heard.mail.code, heard.mail.enhanced], [451, '4.3.5']);
      }
      const state = room.upstreams.status(ANN)?.state;
      assert.equal(state?.status, 'misconfigured');
      assert.equal(state?.cause, 'ehlo-name');
      assert.equal(room.upstreams.breakers()[0]?.state, 'closed');
      assert.equal(room.provider.smtp.connections, 1, 'it waits for the operator');
    }),
  );
}

test(
  'OAUTHBEARER where the server offers it and not XOAUTH2, its refusal heard to the end',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { provider: { mechanisms: 'PLAIN OAUTHBEARER' }, warm: false });
    assert.equal((await room.send()).final?.code, 250);
    const [session] = room.provider.smtp.sessions;
    assert(session?.commands.includes('AUTH OAUTHBEARER'), session?.commands.join());
    assert.equal(session?.transcript.filter((line) => line === 'S: 334 ').length, 1);
  }),
);

test(
  'a refused OAUTHBEARER is heard to the end: the challenge is answered, the verdict is the server’s',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { provider: { mechanisms: 'OAUTHBEARER' }, warm: false });
    room.provider.smtp.script(
      'AUTH',
      {},
      { reply: '454 4.7.0 Too many login attempts, please try again later.' },
    );
    const heard = await room.send();
    assert.equal(heard.mail.code, 451);
    assert.match(heard.mail.text, /Too many login attempts/);
  }),
);

test(
  'a server that offers no login with a token: nothing secret is sent, cause and cure are named, mail waits',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { provider: { mechanisms: 'LOGIN PLAIN' }, warm: false });
    const heard = await room.send();
    assert.equal(heard.mail.code, 451);
    assert.match(heard.mail.text, /no XOAUTH2 or OAUTHBEARER offered, but LOGIN PLAIN/);
    for (const { commands } of room.provider.smtp.sessions)
      assert(!commands.some((command) => /AUTH/i.test(command)), commands.join());
    const { id } = findReplyCause('auth', { code: 504, enhanced: '5.7.4', text: heard.mail.text });
    assert.equal(id, 'no-xoauth2');
  }),
);
