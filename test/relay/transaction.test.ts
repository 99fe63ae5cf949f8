import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { ANN, mailOf, type RoomOptions, startRoom } from '../support/relay-room.ts';
import { waitFor } from '../support/wait-for.ts';

const gmail: RoomOptions = { provider: { flavour: 'gmail' } };
const microsoft: RoomOptions = { provider: { flavour: 'microsoft' } };
const noChunking: RoomOptions = { provider: { rules: { withhold: ['CHUNKING'] } } };
const plain: RoomOptions = { provider: { rules: { withhold: ['CHUNKING', 'PIPELINING'] } } };

const flightsOf: readonly [string, RoomOptions, number][] = [
  ['CHUNKING and PIPELINING', gmail, 1],
  ['Microsoft', microsoft, 2],
  [
    'Microsoft and CHUNKING switched on in the accounts file',
    { ...microsoft, account: { chunking: true } },
    1,
  ],
  ['PIPELINING only', noChunking, 2],
  ['neither', plain, 4],
  ['CHUNKING switched off in the accounts file', { account: { chunking: false } }, 2],
];
for (const [name, options, flights] of flightsOf) {
  test(
    `one recipient on a warm connection takes ${flights} flight(s) with ${name}`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, options);
      const body = mailOf(4096);
      const heard = await room.send({ body });
      assert.equal(heard.final?.code, 250);
      const [message] = room.provider.messages;
      assert.equal(message?.flights, flights);
      assert.deepEqual(message?.body, body);
      assert.equal(room.records[0]?.flights, flights);
      assert.equal(room.records[0]?.outcome, 'relayed');
      assert.equal(room.provider.smtp.connections, room.upstreams.status(ANN)?.counts.size);
    }),
  );
}

const bodies: readonly [string, Buffer][] = [
  ['empty', Buffer.alloc(0)],
  ['a lone dot', Buffer.from('.\r\n')],
  ['lines that start with dots', Buffer.from('.\r\n..\r\n...x\r\n.\r\n')],
  ['a dot after a bare LF', Buffer.from('a\n.\nb\r\n')],
  ['a dot after a bare CR', Buffer.from('a\r.\rb\r\n')],
  ['CRLF only', Buffer.from('\r\n\r\n')],
  ['8-bit and NUL', Buffer.from([0xff, 0x00, 0x80, 0x0d, 0x0a, 0x2e, 0xfe, 0x0d, 0x0a])],
  ['the terminator inside', Buffer.from('a\r\n.\r\nMAIL FROM:<x@y>\r\n')],
  ['10 MB', mailOf(10 * 1024 * 1024)],
];
for (const [name, options] of [
  ['BDAT', gmail],
  ['DATA', noChunking],
  ['DATA without PIPELINING', plain],
] as const) {
  test(
    `bodies arrive byte for byte by ${name}`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, options);
      for (const [what, body] of bodies) {
        const before = room.provider.messages.length;
        const heard = await room.send({ body });
        assert.equal(heard.final?.code, 250, what);
        const message = room.provider.messages[before];
        assert.equal(message?.sha256, createHash('sha256').update(body).digest('hex'), what);
      }
    }),
  );
  test(
    `bodies arrive byte for byte by ${name} when they stream in single octets`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, { ...options, relay: { replayBytes: 0 } });
      for (const [what, body] of bodies.slice(0, -1)) {
        const before = room.provider.messages.length;
        const pieces = Array.from(body, (octet) => Buffer.from([octet]));
        const heard = await room.send({ body: pieces });
        assert.equal(heard.final?.code, 250, what);
        assert.deepEqual(room.provider.messages[before]?.body, body, what);
      }
    }),
  );
}

for (const [name, options, replaced] of [
  ['BDAT', gmail, 3],
  ['DATA', noChunking, 1],
  ['no PIPELINING', plain, 1],
] as const) {
  test(
    `a refusal of any command becomes the answer to a message with one recipient (${name})`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, options);
      const { smtp } = room.provider;
      const stages = [
        ['MAIL', '553 5.1.7 bad sender', 553, '5.1.7'],
        ['RCPT', '550 5.1.1 no such user here', 550, '5.1.1'],
        ['end-of-data', '550 5.7.1 likely unsolicited mail', 550, '5.7.1'],
      ] as const;
      for (const [stage, line, code, enhanced] of stages) {
        smtp.script(stage, {}, { reply: line });
        const heard = await room.send();
        assert.deepEqual(heard.final && { ...heard.final, lines: undefined }, {
          code,
          enhanced,
          text: line.slice(10),
          lines: undefined,
        });
        assert.equal(room.records.at(-1)?.outcome, 'rejected');
        // The next message is nobody's but its own.
        const next = await room.send({ body: `Subject: after ${stage}\r\n\r\nx\r\n` });
        assert.equal(next.final?.code, 250);
      }
      assert.equal(room.provider.messages.length, stages.length);
      for (const m of room.provider.messages) assert.match(m.body.toString(), /^Subject: after/);
      // A connection is used again only where no octet of a body was on its way when the refusal came.
      assert.equal(smtp.connections - 1, replaced);
    }),
  );
}

test(
  'a multi-line refusal reaches the client with its own code, enhanced code and text',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    room.provider.smtp.script(
      'end-of-data',
      {},
      { reply: ['552-5.7.0 This message was blocked', '552 5.7.0 because of its content'] },
    );
    const { final } = await room.send();
    assert.equal(final?.code, 552);
    assert.equal(final?.enhanced, '5.7.0');
    assert.equal(final?.text, 'This message was blocked because of its content');
  }),
);

for (const [name, options] of [
  ['PIPELINING', gmail],
  ['no PIPELINING', plain],
] as const) {
  test(
    `from the second recipient on each RCPT hears the provider (${name})`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, options);
      room.provider.smtp.script('RCPT', { line: /bad@/ }, { reply: '550 5.1.1 no such user' });
      room.provider.smtp.script('RCPT', { line: /later@/ }, { reply: '450 4.2.1 mailbox busy' });
      const heard = await room.send({ to: ['a@x.net', 'bad@x.net', 'b@x.net', 'later@x.net'] });
      assert.deepEqual(
        heard.rcpts.map((r) => r.code),
        [250, 550, 250, 450],
      );
      assert.equal(heard.rcpts[1]?.text, 'no such user');
      assert.equal(heard.final?.code, 250);
      const [message] = room.provider.messages;
      assert.deepEqual(
        message?.recipients.map((r) => r.address),
        ['a@x.net', 'b@x.net'],
      );
      assert.deepEqual(room.records[0]?.recipients, ['a@x.net', 'b@x.net']);
    }),
  );

  test(
    `when the first of several is refused, the others go separately and nothing is delivered (${name})`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, options);
      room.provider.smtp.script('RCPT', { line: /bad@/, times: 2 }, { reply: '550 5.1.1 no such user' });
      const heard = await room.send({ to: ['bad@x.net', 'a@x.net', 'b@x.net'] });
      assert.deepEqual(
        heard.rcpts.map((r) => [r.code, r.enhanced]),
        [
          [250, '2.1.5'],
          [452, '4.5.3'],
          [452, '4.5.3'],
        ],
      );
      assert.equal(heard.data?.code, 550);
      assert.equal(heard.data?.text, 'no such user');
      assert.equal(room.provider.submissions.length, 0);
      const again = await room.send({ to: ['a@x.net', 'b@x.net'] });
      assert.equal(again.final?.code, 250);
    }),
  );

  test(
    `MAIL refused upstream answers every later RCPT and DATA (${name})`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, options);
      room.provider.smtp.script('MAIL', {}, { reply: '553 5.1.8 not you' });
      const heard = await room.send({ to: ['a@x.net', 'b@x.net', 'c@x.net'] });
      assert.deepEqual(
        heard.rcpts.map((r) => r.code),
        [250, 553, 553],
      );
      assert.equal(heard.data?.code, 553);
    }),
  );
}

for (const style of ['next-command', 'unsolicited', 'eof', 'reset'] as const) {
  test(
    `an idle connection that the upstream ended (${style}) is replaced unseen`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer);
      assert.equal((await room.send()).final?.code, 250);
      assert.ok(room.provider.smtp.disturb(style) > 0);
      if (style !== 'next-command') await waitFor(() => room.upstreams.status(ANN)?.counts.idle === 0);
      const heard = await room.send();
      assert.equal(heard.final?.code, 250);
      assert.equal(room.provider.messages.length, 2);
      assert.equal(room.records[1]?.outcome, 'relayed');
      assert.equal(room.records[1]?.replayed, style === 'next-command');
    }),
  );
}

test(
  'several idle connections that all expired cost one replay, not one each',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { min_connections: 3, max_connections: 3 } });
    assert.equal(room.upstreams.status(ANN)?.counts.idle, 3);
    assert.equal((await room.send()).final?.code, 250);
    room.provider.smtp.disturb('next-command');
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.messages.length, 2);
  }),
);

test(
  'an upstream that closes after the final byte without a reply: 451 4.4.2, once, never replayed',
  leakless(async (_t, defer) => {
    for (const options of [gmail, noChunking]) {
      const room = await startRoom(defer, options);
      room.provider.smtp.script('end-of-data', {}, { accept: true, after: 'close' });
      const heard = await room.send();
      assert.equal(heard.final?.code, 451);
      assert.equal(heard.final?.enhanced, '4.4.2');
      assert.equal(room.records[0]?.outcome, 'unknown');
      assert.equal(room.provider.submissions.length, 1);
    }
  }),
);

test(
  'a reused connection lost before the final byte is replayed; a multi-recipient envelope too',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, noChunking);
    assert.equal((await room.send()).final?.code, 250);
    room.provider.smtp.script('MAIL', {}, { after: 'reset' });
    assert.equal((await room.send()).final?.code, 250);
    room.provider.smtp.script('DATA', {}, { after: 'close' });
    const heard = await room.send({ to: ['a@x.net', 'b@x.net'] });
    assert.deepEqual(
      heard.rcpts.map((r) => r.code),
      [250, 250],
    );
    assert.equal(heard.final?.code, 250);
    assert.equal(room.provider.messages.length, 3);
    assert.deepEqual(
      room.provider.messages[2]?.recipients.map((r) => r.address),
      ['a@x.net', 'b@x.net'],
    );
    assert.equal(room.records[2]?.replayed, true);
  }),
);

test(
  'too many submissions at once (432) are waited out while the client waits',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, microsoft);
    room.provider.smtp.script(
      'end-of-data',
      {},
      { reply: '432 4.3.2 Concurrent connections limit exceeded. [Hostname=X]' },
    );
    const heard = await room.send();
    assert.equal(heard.final?.code, 250);
    assert.equal(room.provider.messages.length, 1);
    assert.equal(room.provider.submissions.length, 2);
  }),
);

test(
  'a client that left while its message waited is not sent to: nobody would hear the 250',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, microsoft);
    room.provider.smtp.script(
      'end-of-data',
      {},
      { reply: '432 4.3.2 Concurrent connections limit exceeded.' },
    );
    const { transaction } = await room.mail();
    assert.ok(transaction);
    await transaction.rcpt([{ address: 'bob@example.net', parameters: [] }]);
    const writer = transaction.body();
    await writer.write(Buffer.from('x\r\n'));
    const ended = writer.end();
    await waitFor(() => room.provider.submissions.length === 1);
    writer.abort();
    await ended;
    assert.equal(room.provider.messages.length, 0);
    assert.equal(room.records[0]?.outcome, 'aborted');
  }),
);

test(
  'a client that left while its envelope was on the way is not sent to either',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, noChunking);
    let goOn = (): void => {};
    const until = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const script = room.provider.smtp.script('DATA', {}, { until, normal: true });
    const { transaction } = await room.mail();
    assert.ok(transaction);
    await transaction.rcpt([{ address: 'bob@example.net', parameters: [] }]);
    const writer = transaction.body();
    await writer.write(Buffer.from('x\r\n'));
    const ended = writer.end();
    await waitFor(() => script.hits === 1);
    writer.abort();
    goOn();
    await ended;
    assert.equal(room.provider.messages.length, 0);
    assert.equal(room.records[0]?.outcome, 'aborted');
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.messages.length, 1);
  }),
);

test(
  'a server that offers CHUNKING but refuses BDAT is spoken to with DATA from then on',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    room.provider.smtp.script('BDAT', {}, { reply: '500 5.5.1 unrecognized command' });
    assert.equal((await room.send()).final?.code, 250);
    assert.equal((await room.send()).final?.code, 250);
    assert.deepEqual(
      room.provider.messages.map((m) => m.via),
      ['DATA', 'DATA'],
    );
  }),
);

for (const [name, options] of [
  ['BDAT', gmail],
  ['DATA', noChunking],
] as const) {
  test(
    `a client that leaves in the middle of a streamed body leaves nothing delivered (${name})`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, options);
      const { transaction } = await room.mail();
      assert.ok(transaction);
      await transaction.rcpt([{ address: 'bob@example.net', parameters: [] }]);
      const writer = transaction.body();
      for (let i = 0; i < 40; i++) await writer.write(mailOf(16 * 1024));
      writer.abort();
      await waitFor(() => room.provider.submissions.length === 1);
      assert.equal(room.provider.submissions[0]?.outcome, 'cut');
      assert.equal(room.records[0]?.outcome, 'aborted');
      assert.equal((await room.send()).final?.code, 250);
      assert.equal(room.provider.messages.length, 1);
    }),
  );

  test(
    `a refusal in the middle of a streamed body is the answer (${name})`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, {
        ...options,
        provider: { rules: { ...options.provider?.rules, maxBytes: 200_000 } },
      });
      const heard = await room.send({ body: Array.from({ length: 64 }, () => mailOf(16 * 1024)) });
      assert.equal(heard.final?.code, 552);
      assert.equal(room.provider.messages.length, 0);
      assert.equal((await room.send()).final?.code, 250);
    }),
  );
}

test(
  'RSET and QUIT give everything back: the connection is clean for the next message',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    const { transaction } = await room.mail();
    assert.ok(transaction);
    await transaction.rcpt([{ address: 'a@x.net', parameters: [] }]);
    await transaction.rcpt([{ address: 'b@x.net', parameters: [] }]);
    assert.equal(room.upstreams.status(ANN)?.counts.busy, 1);
    transaction.abort();
    assert.equal(room.upstreams.status(ANN)?.counts.busy, 0);
    assert.equal(room.records[0]?.outcome, 'aborted');
    assert.equal((await room.send({ to: ['c@x.net'] })).final?.code, 250);
    assert.deepEqual(
      room.provider.messages[0]?.recipients.map((r) => r.address),
      ['c@x.net'],
    );
  }),
);

test(
  'parameters pass where the upstream offers the extension; a message that needs what it lacks is refused',
  leakless(async (_t, defer) => {
    const outlook = await startRoom(defer, microsoft);
    const heard = await outlook.send({
      mailParameters: ['BODY=8BITMIME', 'SMTPUTF8', 'RET=HDRS', 'ENVID=a+20b', 'SIZE=30'],
    });
    assert.equal(heard.final?.code, 250);
    assert.deepEqual(outlook.provider.messages[0]?.mailParameters, [
      'BODY=8BITMIME',
      'SMTPUTF8',
      'RET=HDRS',
      'ENVID=a+20b',
      'SIZE=30',
    ]);
    const google = await startRoom(defer, gmail);
    assert.equal((await google.send({ mailParameters: ['RET=HDRS'] })).mail.code, 555);
    assert.equal((await google.send({ mailParameters: ['SIZE=99999999'] })).mail.code, 552);
    const old = await startRoom(defer, { provider: { rules: { withhold: ['SMTPUTF8', '8BITMIME'] } } });
    assert.equal((await old.send({ mailParameters: ['SMTPUTF8'] })).mail.enhanced, '5.6.7');
    assert.equal((await old.send({ mailParameters: ['BODY=8BITMIME'] })).mail.enhanced, '5.6.3');
    assert.equal((await old.send({ mailParameters: ['BODY=7BIT'] })).final?.code, 250);
  }),
);

test(
  'an account that is removed or changed in the middle of a transaction does not fail it',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    const one = await room.mail();
    const several = await room.mail();
    assert.ok(one.transaction && several.transaction);
    await one.transaction.rcpt([{ address: 'a@x.net', parameters: [] }]);
    await several.transaction.rcpt([{ address: 'b@x.net', parameters: [] }]);
    await several.transaction.rcpt([{ address: 'c@x.net', parameters: [] }]);
    room.serveOnly([]);
    for (const transaction of [one.transaction, several.transaction]) {
      const writer = transaction.body();
      await writer.write(Buffer.from('x\r\n'));
      assert.equal((await writer.end()).code, 250);
    }
    // The next message finds the account gone, and its connections are closed.
    assert.equal((await room.send()).mail.code, 451);
    await room.provider.assertDisconnected();
  }),
);

test(
  'a client that leaves while its second RCPT is on the way gives the connection back',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    const { transaction } = await room.mail();
    assert.ok(transaction);
    await transaction.rcpt([{ address: 'a@x.net', parameters: [] }]);
    const second = transaction.rcpt([{ address: 'b@x.net', parameters: [] }]);
    transaction.abort();
    await second;
    assert.equal(room.upstreams.status(ANN)?.counts.busy, 0);
    assert.equal(room.records.length, 1);
    assert.equal((await room.send()).final?.code, 250);
  }),
);
