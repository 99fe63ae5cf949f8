/** A message that Graph has taken and whose client does not hear the 250: its retry, however it comes, is no second copy. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { greeted } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import type { SmtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@example.com';
const BEA = 'bea@example.com';
const APP = 'app@example.com';
const BOB = 'bob@example.net';
const CAL = 'cal@example.net';
const mail = (id: string): string => `${id}From: ${APP}\r\nTo: ${BOB}\r\nSubject: s\r\n\r\nbody\r\n`;
const NAMED = mail('Message-ID: <m@client.test>\r\n');

const byGraph = (provider: Provider) => provider.entry(ANN, { transport: 'graph', senders: [APP] });

async function house(defer: Defer): Promise<{ provider: Provider; relay: RelayProcess; args: string[] }> {
  const directory = mkdtempSync(join(tmpdir(), 'graph-unheard-'));
  defer(() => rmSync(directory, { recursive: true }));
  const args = ['--state-dir', directory];
  const provider = await startProvider({ flavour: 'microsoft', users: [ANN, BEA], graph: {} });
  defer(() => provider.close());
  const relay = await startRelay({ accounts: [byGraph(provider)], caFile: provider.caFile, args });
  defer(() => relay.stop());
  return { provider, relay, args };
}

async function atData(defer: Defer, relay: RelayProcess, to: readonly string[]): Promise<SmtpClient> {
  const client = await greeted(relay.smtpPort);
  defer(() => client.socket.destroy());
  await client.expect(`MAIL FROM:<${APP}>`, 250);
  for (const recipient of to) await client.expect(`RCPT TO:<${recipient}>`, 250);
  await client.expect('DATA', 354);
  return client;
}

async function send(
  defer: Defer,
  relay: RelayProcess,
  to: readonly string[],
  message = NAMED,
): Promise<string> {
  const client = await atData(defer, relay, to);
  const { text } = await client.body(message);
  await client.expect('QUIT', 221);
  return text;
}

/** How the client goes without having heard, when Graph has taken the message. */
const GOING = {
  async 'its connection breaks when Graph has taken it'(provider: Provider, client: SmtpClient) {
    provider.graph.observe = ({ call }) => {
      if (call !== 'send') return;
      provider.graph.observe = undefined;
      client.reset();
    };
    await client.body(NAMED).catch(() => undefined);
  },
  async 'its connection breaks when the 250 was written'(_provider: Provider, client: SmtpClient) {
    await client.body(NAMED);
    client.reset();
  },
  async 'it leaves without a word'(_provider: Provider, client: SmtpClient) {
    await client.body(NAMED);
    client.end();
  },
};

for (const [how, go] of Object.entries(GOING)) {
  test(
    `${how}: the retry to some of the recipients is no second copy`,
    leakless(async (_t, defer) => {
      const { provider, relay } = await house(defer);
      await go(provider, await atData(defer, relay, [BOB, CAL]));
      await relay.event('transaction');
      assert.match(await send(defer, relay, [BOB]), /250.*<m@client\.test>/);
      assert.equal(provider.graph.delivered.length, 1);
    }),
  );

  test(
    `${how}: the retry that goes by SMTP, because a reload gave the sender away, is no second copy`,
    leakless(async (_t, defer) => {
      const { provider, relay } = await house(defer);
      await go(provider, await atData(defer, relay, [BOB, CAL]));
      await relay.event('transaction');
      assert.equal((await relay.reload([provider.entry(BEA, { senders: [APP] })])).event, 'reloaded');
      assert.match(await send(defer, relay, [BOB, CAL]), /250.*<m@client\.test>/);
      assert.deepEqual([provider.graph.delivered.length, provider.messages.length], [1, 0]);
    }),
  );
}

test(
  'the relay is killed before the client has said another word: the retry to some of the recipients is no second copy',
  leakless(async (_t, defer) => {
    const { provider, relay, args } = await house(defer);
    const client = await atData(defer, relay, [BOB, CAL]);
    await client.body(NAMED);
    process.kill(relay.pid, 'SIGKILL');
    await client.closed();
    const next = await startRelay({ accounts: [byGraph(provider)], caFile: provider.caFile, args });
    defer(() => next.stop());
    assert.match(await send(defer, next, [BOB]), /250.*<m@client\.test>/);
    assert.equal(provider.graph.delivered.length, 1);
  }),
);

test(
  'a header that names all, and a retry to some of them: settled with the whole, not bounced',
  leakless(async (_t, defer) => {
    const { provider, relay } = await house(defer);
    const message = NAMED.replace(`To: ${BOB}`, `To: ${BOB}, ${CAL}`);
    provider.graph.fault('send', { carriedOut: true, answer: 'reset' });
    provider.graph.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
    assert.match(await send(defer, relay, [BOB, CAL], message), /451.*delivery status unknown/);
    assert.match(await send(defer, relay, [BOB], message), /250.*<m@client\.test>/);
    assert.match(await send(defer, relay, [CAL], message), /250.*<m@client\.test>/);
    assert.equal(provider.graph.delivered.length, 1);
    assert.match(await send(defer, relay, [BOB], message.replace('<m@', '<other@')), /554 5\.6\.0/);
  }),
);

test(
  'who has heard the 250 and sends the message to some of its recipients again wants a second copy',
  leakless(async (_t, defer) => {
    const { provider, relay } = await house(defer);
    assert.match(await send(defer, relay, [BOB, CAL]), /250/);
    assert.match(await send(defer, relay, [BOB]), /250/);
    assert.equal(provider.graph.delivered.length, 2);
  }),
);

test(
  'a message without Message-ID whose connection breaks when the 250 was written, again and again: no retry is a second copy',
  leakless(async (_t, defer) => {
    const { provider, relay } = await house(defer);
    const message = mail('');
    for (let tries = 1; tries <= 3; tries++) {
      const from = relay.lines.length;
      const client = await atData(defer, relay, [BOB]);
      await client.body(message);
      client.reset();
      await relay.event('transaction', { from });
    }
    assert.match(await send(defer, relay, [BOB], message), /250/);
    assert.equal(provider.graph.delivered.length, 1);
    assert.match(await send(defer, relay, [BOB], message), /250/);
    assert.equal(provider.graph.delivered.length, 2);
  }),
);

/** As `printf … | nc -N`: all at once, the own side closed, and read to the end. */
async function piped(relay: RelayProcess, text: string): Promise<string> {
  const socket = createConnection({ host: '127.0.0.1', port: relay.smtpPort, allowHalfOpen: true });
  socket.end(text);
  return (await socket.setEncoding('utf8').toArray()).join('');
}

test(
  'a script that says all ahead, closes its side and reads on: what it says again without Message-ID is sent again',
  leakless(async (_t, defer) => {
    const { provider, relay } = await house(defer);
    const said = `EHLO script\r\nMAIL FROM:<${APP}>\r\nRCPT TO:<${BOB}>\r\nDATA\r\n${mail('')}.\r\nQUIT\r\n`;
    for (let times = 1; times <= 3; times++) {
      assert.match(await piped(relay, said), /\r\n250 2\.0\.0 OK .*\r\n221 /);
      assert.equal(provider.graph.delivered.length, times);
    }
    // In pieces, as a shell that echoes line by line.
    const [text = '', quit = ''] = said.split(/(?=QUIT)/);
    provider.graph.rules.latencyMs = 100;
    for (let times = 4; times <= 6; times++) {
      const creates = provider.graph.count('create');
      const socket = createConnection({ host: '127.0.0.1', port: relay.smtpPort, allowHalfOpen: true });
      const heard = socket.setEncoding('utf8').toArray();
      socket.write(text);
      await waitFor(() => provider.graph.count('create') > creates, { what: 'the message on its way' });
      socket.end(quit);
      assert.match((await heard).join(''), /\r\n250 2\.0\.0 OK .*\r\n221 /);
      assert.equal(provider.graph.delivered.length, times);
    }
    provider.graph.rules.latencyMs = 0;
    // Its retries have the name of what they are.
    const named = said.replace('From:', 'Message-ID: <m@client.test>\r\nFrom:');
    for (let tries = 1; tries <= 2; tries++) assert.match(await piped(relay, named), /250.*<m@client\.test>/);
    assert.equal(provider.graph.delivered.length, 7);
  }),
);

for (const last of ['QUIT\r\n', 'RSET\r\n', 'QUIT'])
  test(
    `${JSON.stringify(last)} comes ahead and the client is gone before the reply: no retry is a second copy`,
    leakless(async (_t, defer) => {
      const { provider, relay } = await house(defer);
      const said = `EHLO script\r\nMAIL FROM:<${APP}>\r\nRCPT TO:<${BOB}>\r\nDATA\r\n${mail('')}.\r\n${last}`;
      provider.graph.rules.latencyMs = 50;
      const socket = createConnection({ host: '127.0.0.1', port: relay.smtpPort });
      socket.resume();
      socket.write(said);
      await waitFor(() => provider.graph.count('create') > 0, { what: 'the message on its way' });
      socket.destroy();
      await relay.event('transaction');
      // It waits until it is known whether it has heard.
      assert.match(await piped(relay, said), /\r\n250 2\.0\.0 OK /);
      assert.equal(provider.graph.delivered.length, 1);
      // The retry was heard: this is another message.
      assert.match(await piped(relay, said), /\r\n250 2\.0\.0 OK /);
      assert.equal(provider.graph.delivered.length, 2);
    }),
  );

test(
  'QUIT comes ahead and the client reads on: what looks the same waits until that is known, and is sent then',
  leakless(async (_t, defer) => {
    const { provider, relay } = await house(defer);
    const client = await atData(defer, relay, [BOB]);
    await client.raw(`${mail('')}.\r\nQUIT\r\n`);
    await client.expect(undefined, 250);
    assert.match(await send(defer, relay, [BOB], mail('')), /^250 /);
    await client.expect(undefined, 221);
    client.end();
    assert.equal(provider.graph.delivered.length, 2);
  }),
);

for (const last of ['RSET\r\n', 'RSE'])
  test(
    `${JSON.stringify(last)} comes ahead and the client stays: a second after the 250 what looks the same is sent`,
    leakless(async (_t, defer) => {
      const { provider, relay } = await house(defer);
      const client = await atData(defer, relay, [BOB]);
      await client.raw(`${mail('')}.\r\n${last}`);
      await client.expect(undefined, 250);
      assert.match(await send(defer, relay, [BOB], mail('')), /^250 /);
      assert.equal(provider.graph.delivered.length, 2);
      // What breaks long after says nothing of it.
      client.reset();
      await waitFor(
        async () =>
          /^xoauth2_relay_listener_sessions 0$/m.test(
            await (await fetch(`${relay.adminUrl}/metrics`)).text(),
          ),
        { what: 'the end of the session' },
      );
      assert.match(await send(defer, relay, [BOB], mail('')), /250/);
      assert.equal(provider.graph.delivered.length, 3);
    }),
  );

test(
  'a script says QUIT by the clock, before Graph has answered: each of its alarms is sent',
  leakless(async (_t, defer) => {
    const { provider, relay } = await house(defer);
    provider.graph.rules.latencyMs = 700;
    for (const times of [1, 2, 3]) {
      const client = await atData(defer, relay, [BOB]);
      const answered = client.body(mail(''));
      await waitFor(() => provider.graph.count('send') === times, { what: 'the draft on its way' });
      await client.raw('QUIT\r\n');
      assert.equal((await answered).code, 250);
      await client.expect(undefined, 221);
      assert.equal(provider.graph.delivered.length, times);
    }
  }),
);

test(
  'more comes ahead than is read, and the client resets at the 250: its retry is no second copy',
  leakless(async (_t, defer) => {
    const { provider, relay } = await house(defer);
    const text = (body: string): string => `MAIL FROM:<${APP}>\r\nRCPT TO:<${BOB}>\r\nDATA\r\n${body}.\r\n`;
    const long = `${mail('')}${`${'y'.repeat(70)}\r\n`.repeat(8_000)}`;
    const socket = createConnection({ host: '127.0.0.1', port: relay.smtpPort });
    socket.on('error', () => undefined);
    let heard = '';
    socket.setEncoding('utf8').on('data', (said: string) => {
      heard += said;
      if (/250 2\.0\.0 OK </.test(heard)) socket.resetAndDestroy();
    });
    socket.write(`EHLO script\r\n${text(mail(''))}${text(long)}`);
    await relay.event('transaction');
    await waitFor(() => socket.destroyed, { what: 'the reset' });
    const copies = (): number => provider.graph.delivered.filter((d) => d.text.length < 1_000).length;
    await waitFor(async () => (await send(defer, relay, [BOB], mail(''))).startsWith('250'), {
      what: 'the 250 to the retry',
    });
    assert.equal(copies(), 1);
  }),
);

for (const id of ['', 'Message-ID: <m@client.test>\r\n'])
  test(
    `${id === '' ? 'without' : 'with'} Message-ID: once one of the recipients has heard of it in a retry to him alone, the next to him is another`,
    leakless(async (_t, defer) => {
      const { provider, relay } = await house(defer);
      const client = await atData(defer, relay, [BOB, CAL]);
      await client.body(mail(id));
      client.reset();
      await relay.event('transaction');
      const copies = async (to: readonly string[]): Promise<number> => {
        assert.match(await send(defer, relay, to, mail(id)), /250/);
        return provider.graph.delivered.length;
      };
      assert.equal(await copies([BOB]), 1);
      assert.equal(await copies([BOB]), 2);
      assert.equal(await copies([CAL]), 2);
      // With a Message-ID what is the same in all is a retry.
      assert.equal(await copies([BOB, CAL]), id === '' ? 3 : 2);
    }),
  );
