/** Octets of a body are content, whatever the server does with a BDAT that it refuses. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { ANN, mailOf, type RoomOptions, startRoom } from '../support/relay-room.ts';
import { waitFor } from '../support/wait-for.ts';

const SMUGGLED = [
  'Subject: hello',
  '',
  'RSET',
  'MAIL FROM:<ann@example.com>',
  'RCPT TO:<victim@example.net>',
  'DATA',
  'Subject: forged',
  '',
  'forged',
  '.',
  '',
].join('\r\n');

const faces: readonly [string, RoomOptions['provider'], number][] = [
  ['discards what it refuses', {}, 1],
  ['runs what it refused as commands', { rules: { refusedChunk: 'run' } }, 2],
  ['runs it and answers late', { rules: { refusedChunk: 'run_late' } }, 2],
];
for (const [face, provider, flights] of faces) {
  test(
    `a body for a refused recipient never becomes commands: a server that ${face}`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, { provider: provider ?? {} });
      room.provider.smtp.script(
        'RCPT',
        { line: /nobody@/, times: Number.POSITIVE_INFINITY },
        { reply: '550 5.1.1 no such user' },
      );
      for (let i = 0; i < 3; i++) {
        const refused = await room.send({ to: ['nobody@example.net'], body: SMUGGLED });
        assert.equal(refused.final?.code, 550);
        const taken = await room.send({ body: `Subject: ${i}\r\n\r\nx\r\n` });
        assert.equal(taken.final?.code, 250);
      }
      assert.deepEqual(
        room.provider.messages.map((m) => [m.recipients[0]?.address, m.flights]),
        Array(3).fill(['bob@example.net', flights]),
      );
      for (const session of room.provider.smtp.sessions)
        assert.ok(!session.commands.some((line) => line.includes('victim@')));
    }),
  );
}

const PROBE = ['BDAT 6 LAST', 'RSET', 'EHLO relay.test'];
const probesOf = (sessions: readonly { readonly commands: readonly string[] }[]): number =>
  sessions.filter((s) => s.commands.includes('BDAT 6 LAST')).length;

test(
  'the proof is asked for once, after AUTH and before the first message, and again for another EHLO reply',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      account: { min_connections: 3, messages_per_connection: 2 },
    });
    const { smtp } = room.provider;
    for (let i = 0; i < 7; i++) assert.equal((await room.send()).final?.code, 250);
    const first = smtp.sessions.find((s) => s.commands.includes('BDAT 6 LAST'));
    const { commands = [] } = first ?? {};
    assert.deepEqual(
      commands.slice(commands.indexOf('BDAT 6 LAST'), commands.indexOf('BDAT 6 LAST') + 3),
      PROBE,
    );
    assert.ok(commands.indexOf('AUTH XOAUTH2') < commands.indexOf('BDAT 6 LAST'));
    assert.equal(probesOf(smtp.sessions), 1);
    (smtp.rules as { maxBytes?: number }).maxBytes = 1_000_000;
    smtp.disturb('eof');
    await waitFor(() => room.upstreams.status(ANN)?.counts.idle === 0);
    for (let i = 0; i < 6; i++) assert.equal((await room.send()).final?.code, 250);
    assert.equal(probesOf(smtp.sessions), 2);
  }),
);

test(
  'a server that leaves the probe unanswered is used without BDAT, over another connection',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { warm: false });
    room.provider.smtp.script('BDAT', {}, { after: 'close' });
    assert.equal((await room.send()).final?.code, 250);
    assert.equal((await room.send()).final?.code, 250);
    assert.deepEqual(
      room.provider.messages.map((m) => m.via),
      ['DATA', 'DATA'],
    );
  }),
);

test(
  'an empty message goes by DATA, and says nothing about BDAT',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    assert.equal((await room.send({ body: Buffer.alloc(0) })).final?.code, 250);
    assert.equal((await room.send()).final?.code, 250);
    assert.deepEqual(
      room.provider.messages.map((m) => m.via),
      ['DATA', 'BDAT'],
    );
  }),
);

for (const [code, via] of [
  ['500 5.5.1', 'DATA'],
  ['502 5.5.1', 'DATA'],
  ['501 5.5.4', 'BDAT'],
  ['504 5.5.4', 'BDAT'],
] as const) {
  test(
    `${code} to BDAT: the next message goes by ${via}`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer);
      room.provider.smtp.script('BDAT', {}, { reply: `${code} not this` });
      await room.send();
      assert.equal((await room.send()).final?.code, 250);
      assert.equal(room.provider.messages.at(-1)?.via, via);
    }),
  );
}

test(
  'a server that counts the first chunk as header gets the header section in a chunk of its own',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', rules: { maxHeaderOctets: 128 * 1024 } },
      account: { chunking: true },
    });
    const body = mailOf(600 * 1024);
    assert.equal(
      (await room.send({ body: [body.subarray(0, 70_000), body.subarray(70_000)] })).final?.code,
      250,
    );
    assert.deepEqual(room.provider.messages[0]?.body, body);
    assert.equal(room.provider.messages[0]?.via, 'BDAT');
  }),
);

test(
  'a message held whole that is refused as one large header goes by DATA',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', rules: { maxHeaderOctets: 16 * 1024 } },
      account: { chunking: true },
    });
    assert.equal((await room.send({ body: mailOf(40_000) })).final?.code, 250);
    assert.deepEqual(
      room.provider.submissions.map((m) => m.via),
      ['DATA'],
    );
  }),
);

test(
  'octets nobody asked for close the connection, also part of a reply, also in front of the final one',
  leakless(async (_t, defer) => {
    for (const raw of ['250 2.0.0 OK\r\n25', '250 2.0.0 OK\r\n250 2.0.0 OK\r\n']) {
      const room = await startRoom(defer, { account: { max_connections: 1 } });
      // How its replies look is known by then: on the first message such octets leave it unknown.
      assert.equal((await room.send()).final?.code, 250);
      room.provider.smtp.script('end-of-data', {}, { raw });
      assert.equal((await room.send()).final?.code, 250);
      assert.equal((await room.send()).final?.code, 250);
      assert.equal(new Set(room.provider.submissions.map((s) => s.connectionId)).size, 2);
    }
    // A refusal behind what looks like the verdict: nobody can tell, so it is not acknowledged.
    const doubtful = await startRoom(defer);
    await doubtful.send();
    doubtful.provider.smtp.script('end-of-data', {}, { raw: '250 2.1.5 OK late\r\n550 5.7.1 refused\r\n' });
    const answer = (await doubtful.send()).final;
    assert.ok(answer !== undefined && answer.code >= 400, `${answer?.code}`);
    // The final reply before the body: the body is not sent there.
    const room = await startRoom(defer, { provider: { rules: { withhold: ['CHUNKING'] } } });
    room.provider.smtp.script('DATA', {}, { raw: '354 Go ahead\r\n250 2.0.0 OK\r\n', after: 'hang' });
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.messages.length, 1);
    assert.equal(room.upstreams.status(ANN)?.counts.busy, 0);
  }),
);

/** The reply too many reaches us together with the first reply to the next message, not before. */
for (const [name, options] of [
  ['BDAT', {}],
  ['BDAT without enhanced codes', { provider: { rules: { withhold: ['ENHANCEDSTATUSCODES'] } } }],
  ['DATA', { provider: { rules: { withhold: ['CHUNKING'] } } }],
] as const satisfies readonly (readonly [string, RoomOptions])[]) {
  for (const place of ['first', 'second'])
    test(
      `a 250 that comes too late is never the answer to another message (${name}, ${place} message of a connection)`,
      leakless(async (_t, defer) => {
        const plain = name.includes('without');
        const mail = plain ? '250 OK' : '250 2.1.0 OK';
        const extra = plain ? '250 OK' : '250 2.0.0 OK';
        for (const to of [['bob@example.net'], ['bob@example.net', 'eve@example.net']]) {
          const room = await startRoom(defer, { ...options, account: { max_connections: 1 } });
          const { smtp } = room.provider;
          if (place === 'second') assert.equal((await room.send({ to })).final?.code, 250);
          smtp.script('MAIL', {}, { raw: `${extra}\r\n`, reply: mail });
          if (plain) smtp.script('RCPT', { times: Number.POSITIVE_INFINITY }, { reply: '250 OK' });
          smtp.script(
            'end-of-data',
            { times: Number.POSITIVE_INFINITY },
            { reply: '550 5.7.1 not this one' },
          );
          const heard = await room.send({ to });
          assert.notEqual(heard.final?.code, 250);
          smtp.clearScripts();
          assert.equal((await room.send({ to })).final?.code, 250);
          assert.equal(room.provider.messages.length, place === 'second' ? 2 : 1);
        }
      }),
    );
}

test(
  'a server that closes after its verdict and leaves the EHLO behind it unanswered has taken the message',
  leakless(async (_t, defer) => {
    for (const withhold of [[], ['ENHANCEDSTATUSCODES']] as const) {
      const room = await startRoom(defer, {
        account: { max_connections: 1 },
        provider: { rules: { withhold } },
      });
      room.provider.smtp.script('end-of-data', {}, { normal: true, after: 'close' });
      assert.equal((await room.send()).final?.code, 250);
      assert.equal(room.provider.messages.length, 1);
      assert.equal((await room.send()).final?.code, 250);
    }
  }),
);

test(
  'a final reply said twice is not the answer to the next RCPT',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { max_connections: 1 } });
    const { smtp } = room.provider;
    const to = ['bob@example.net', 'eve@example.net'];
    assert.equal((await room.send({ to })).final?.code, 250);
    // Taken for bob's answer it would make bob's refusal eve's.
    smtp.script('RCPT', {}, { raw: '250 2.0.0 said twice\r\n', reply: '550 5.1.1 no such user' });
    const heard = await room.send({ to });
    // Nothing was decided there: once again on a fresh connection.
    assert.deepEqual(
      heard.rcpts.map(({ code }) => code),
      [250, 250],
    );
    assert.equal(heard.final?.code, 250);
    assert.deepEqual(
      room.provider.messages.map((m) => m.recipients.length),
      [2, 2],
    );
  }),
);
