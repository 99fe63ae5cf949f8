/** Attacks of a client on the listener, carried out. */
import assert from 'node:assert/strict';
import { connect, Socket } from 'node:net';
import { test } from 'node:test';
import { acceptSocket } from '../../src/listener/accept.ts';
import { CommandReader } from '../../src/listener/command-reader.ts';
import { createTally } from '../../src/listener/counts.ts';
import { createDoor } from '../../src/listener/door.ts';
import { createHeldBudget } from '../../src/listener/held-budget.ts';
import { resolveOptions } from '../../src/listener/options.ts';
import { TurnShare } from '../../src/listener/turn-share.ts';
import { silentLog } from '../../src/log.ts';
import { createTestClock } from '../support/clock.ts';
import { assertLinear } from '../support/cost.ts';
import { leakless } from '../support/leak-check.ts';
import { countTurns } from '../support/turns.ts';
import { waitFor } from '../support/wait-for.ts';
import { account, bodyOf, certificateFiles, type Stage, stage } from './stage.ts';

async function send(s: Stage, content: string, parts = 1): Promise<string> {
  const client = await s.inBody();
  const wire = Buffer.from(`${content}\r\n.\r\n`, 'latin1');
  const step = Math.ceil(wire.length / parts);
  for (let at = 0; at < wire.length; at += step) await client.raw(wire.subarray(at, at + step));
  const { text } = await client.reply();
  client.end();
  return text;
}

/** Headers that once cost seconds: each piece was searched together with all before it. */
const BOMBS: readonly [name: string, unit: string][] = [
  ['lines of two dots', '..\r\n'],
  ['empty-looking lines', ' \r\n'],
  ['lines without a colon', 'x\r\n'],
  ['Received', 'received \r\n'],
  ['folded From', ' ,\r\n'],
  ['tabs', '\t\t\t\t\t\t\r\n'],
  ['colons', ':\r\n'],
  ['comments', '((((\r\n'],
];

for (const [name, unit] of BOMBS) {
  test(
    `a header of ${name} costs what its octets cost`,
    leakless(async (_t, defer) => {
      const s = await stage(defer, { settings: { checkFromHeader: true } });
      const text = (octets: number): string => `From: a@x.test,\r\n ${unit.repeat(octets / unit.length)}`;
      await assertLinear(name, (octets) => send(s, text(octets)), 60_000);
    }),
  );
}

/** Readers that have the turn of one loop in common, and what is asked of each. */
function readersOf(count: number, onLine: (done: () => void) => void): CommandReader[] {
  const share = new TurnShare();
  return Array.from(
    { length: count },
    () =>
      new CommandReader({
        maxCommandOctets: 512,
        bareLineEnds: 'normalize',
        share,
        onActive: () => {},
        onLine: (_line, _fault, done) => onLine(done),
        onInputEnd: () => {},
        whenWritable: (next) => next(),
      }),
  );
}

async function taken(reader: CommandReader, chunk: Buffer): Promise<void> {
  reader.write(chunk);
  while (reader.writableLength > 0) await new Promise(setImmediate);
}

/** In how many turns of the loop some readers pass on what comes in one go. */
async function turnsFor(readers: number, chunks: number, unit: string): Promise<number> {
  const turns = new Set<number>();
  const turn = countTurns();
  const chunk = Buffer.from(unit.repeat(65_536 / unit.length));
  const all = readersOf(readers, () => {}).flatMap((reader) => {
    reader.startBody({
      body: {
        bareLineEnds: 'normalize',
        write: () => void turns.add(turn.now()),
        fault: () => {},
        sizeChanged: () => {},
      },
      end: async () => {},
    });
    return Array.from({ length: chunks }, () => taken(reader, chunk));
  });
  await Promise.all(all);
  turn.stop();
  return turns.size;
}

test('a chunk that takes work is the only one in its turn of the loop, of however many sessions', async () => {
  assert.equal(await turnsFor(1, 16, '\n.'), 16);
  assert.equal(await turnsFor(8, 2, '..\r\n'), 16);
  assert.equal(await turnsFor(1, 16, `${'a'.repeat(62)}\r\n`), 1);
});

for (const [name, deal] of [
  ['dealt with at once', (done: () => void) => done()],
  ['dealt with later in the turn', (done: () => void) => queueMicrotask(done)],
] as const)
  test(`pipelined commands of many sessions, ${name}: a turn of the loop deals with some of them only`, async () => {
    const inTurn = new Map<number, number>();
    const turn = countTurns();
    const readers = readersOf(8, (done) => {
      inTurn.set(turn.now(), (inTurn.get(turn.now()) ?? 0) + 1);
      deal(done);
    });
    await Promise.all(readers.map((reader) => taken(reader, Buffer.from('NOOP\r\n'.repeat(1000)))));
    turn.stop();
    const counts = [...inTurn.values()];
    assert.equal(
      counts.reduce((sum, n) => sum + n, 0),
      8000,
    );
    assert.ok(Math.max(...counts) <= 220, `${Math.max(...counts)} in one turn`);
  });

for (const size of ['SIZE=0', 'SIZE=1', 'SIZE=100', '']) {
  test(
    `${size || 'no SIZE'} holds no more memory than there is for bodies`,
    leakless(async (_t, defer) => {
      const replayBytes = 64 * 1024;
      const budget = createHeldBudget(4 * replayBytes);
      const s = await stage(defer, {
        deps: { budget, replayBytes },
        settings: { limits: { heldWaitMs: 500 } },
      });
      let most = 0;
      const heard: string[] = [];
      const held = (): number =>
        s.relay.seen.reduce((sum, one) => {
          const isOpen = !one.isTaken && one.aborted === undefined;
          return sum + (isOpen ? one.pieces.reduce((octets, piece) => octets + piece.length, 0) : 0);
        }, 0);
      s.relay.on.write = () => {
        most = Math.max(most, held());
        return undefined;
      };
      const attack = async (): Promise<void> => {
        const client = await s.greeted();
        await client.expect(`MAIL FROM:<a@x.test> ${size}`, 250);
        await client.expect('RCPT TO:<b@y.test>', 250);
        const go = await client.send('DATA');
        heard.push(go.text.slice(0, 3));
        if (go.code !== 354) return;
        // All that is held, and the end never comes.
        await client.raw('x'.repeat(replayBytes - 100));
        await client.raw('y'.repeat(50));
      };
      await Promise.all(Array.from({ length: 40 }, attack));
      await waitFor(() => budget.held >= 3 * replayBytes);
      assert.ok(most <= 4 * replayBytes, `${most} octets held`);
      assert.ok(budget.held <= 4 * replayBytes);
    }),
  );
}

test(
  'a client that declared too little is served where there is memory (RFC 1870 section 6.3)',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { deps: { replayBytes: 64 * 1024 } });
    for (const octets of [1_500, 40_000, 200_000]) {
      const client = await s.greeted();
      await client.expect('MAIL FROM:<a@x.test> SIZE=1', 250);
      await client.expect('RCPT TO:<b@y.test>', 250);
      await client.expect('DATA', 354);
      await client.raw(`${'x'.repeat(octets)}\r\n.\r\n`);
      await client.expect(undefined, 250);
      assert.equal(bodyOf(s.relay.seen.at(-1)).length, octets + 2);
    }
    assert.equal(s.listener.counts().heldBytes, 0);
  }),
);

test(
  'a body of single octets is not held as single octets',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    const client = await s.inBody();
    const body = Array.from({ length: 3000 }, (_, i) => 'abcdefghij'[i % 10]).join('');
    for (const octet of body) await client.raw(octet);
    await client.raw('\r\n.\r\n');
    await client.expect(undefined, 250);
    assert.equal(bodyOf(s.relay.seen[0]), `${body}\r\n`);
    assert.ok((s.relay.seen[0]?.pieces.length ?? 0) < 100, `${s.relay.seen[0]?.pieces.length} pieces`);
  }),
);

/** What folds to one of the letters of a sender under Unicode's rules, or is mapped to it by IDNA. */
const LOOK_ALIKES: readonly [sender: string, own: string][] = [
  ['mi\u212ae@x.test', 'mike@x.test'],
  ['m\u0131ke@x.test', 'mike@x.test'],
  ['ro\u017fe@x.test', 'rose@x.test'],
  ['\uff4dike@x.test', 'mike@x.test'],
  ['mike@\uff58.test', 'mike@x.test'],
  ['mike@bi\u212ae.test', 'mike@bike.test'],
  ['mike@ro\u017fe.test', 'mike@rose.test'],
  ['any@bi\u212ae.test', '*@bike.test'],
  ['any@\uff42ike.test', '*@bike.test'],
];

test(
  'a sender that only looks like one of the account is none, in MAIL FROM and in AUTH',
  leakless(async (_t, defer) => {
    for (const [sender, own] of LOOK_ALIKES) {
      const email = own.replace('*', 'mike');
      const s = await stage(defer, { accounts: [account(email, { senders: [email, own] })] });
      const client = await s.greeted();
      await client.raw(`MAIL FROM:<${sender}> SMTPUTF8\r\n`);
      await client.expect(undefined, '550 5.7.1');
      assert.equal(s.relay.seen.length, 0, sender);
    }
  }),
);

test(
  'a domain is the same in either of its spellings',
  leakless(async (_t, defer) => {
    const s = await stage(defer, {
      accounts: [
        account('mike@b\u00fccher.test', { senders: ['mike@b\u00fccher.test', '*@xn--mnchen-3ya.test'] }),
      ],
    });
    const client = await s.greeted();
    for (const sender of ['Mike@xn--bcher-kva.test', 'mike@b\u00fccher.TEST', 'x@m\u00fcnchen.test']) {
      await client.raw(`MAIL FROM:<${sender}> SMTPUTF8\r\n`);
      await client.expect(undefined, 250);
      await client.expect('RSET', 250);
    }
  }),
);

test(
  'an address with < or > in its local part is refused in MAIL and RCPT',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { accounts: [account('a@x.test', { senders: ['a@x.test', '*@x.test'] })] });
    const client = await s.greeted();
    await client.expect('MAIL FROM:<"a> SIZE=1"@x.test>', '553 5.1.3');
    await client.expect('MAIL FROM:<"a<b"@x.test>', '553 5.1.3');
    await client.expect('MAIL FROM:<a@x.test>', 250);
    await client.expect('RCPT TO:<"b> NOTIFY=NEVER"@y.test>', '553 5.1.3');
    await client.expect('RCPT TO:<b..c@y.test>', '501 5.1.3');
    await client.expect('RCPT TO:<b.@y.test>', '501 5.1.3');
  }),
);

const PROXY_V2 = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
/** A version 2 header that tells of `address`; LOCAL without one. */
const v2 = (address?: string): Buffer =>
  address === undefined
    ? Buffer.concat([PROXY_V2, Buffer.from('20000000', 'hex')])
    : Buffer.concat([
        PROXY_V2,
        Buffer.from('2111000c', 'hex'),
        Buffer.from([...address.split('.').map(Number), 10, 0, 0, 99, 0, 1, 0, 25]),
      ]);

for (const [version, header] of [
  ['1', (address: string) => Buffer.from(`PROXY TCP4 ${address} 10.0.0.99 1 25\r\n`)],
  ['2', v2],
] as const) {
  test(
    `a peer that is no named load balancer claims no address (PROXY v${version})`,
    leakless(async (_t, defer) => {
      const settings = { proxyProtocol: true, proxyFrom: ['192.0.2.0/24'], allow: ['10.0.0.0/8'] };
      const s = await stage(defer, { settings });
      const client = await s.connect();
      await client.raw(header('10.0.0.1'));
      await client.closed();
      await assert.rejects(client.expect(undefined, 220));
      assert.equal(s.listener.counts().limitHits.not_allowed, 1);
      assert.equal(s.relay.seen.length, 0);
    }),
  );

  test(
    `an address told by a header is never this machine (PROXY v${version})`,
    leakless(async (_t, defer) => {
      const s = await stage(defer, {
        settings: { proxyProtocol: true, proxyFrom: ['127.0.0.1'], allow: ['10.0.0.0/8', '127.0.0.0/8'] },
      });
      const client = await s.connect();
      await client.raw(header('127.0.0.1'));
      await client.expect(undefined, 220);
      assert.doesNotMatch((await client.send('EHLO c')).text, /AUTH/);
      await client.expect('AUTH PLAIN AGEAYg==', '538 5.7.11');
    }),
  );

  test(
    `the named load balancer is believed, header and first command in one packet or octet by octet (PROXY v${version})`,
    leakless(async (_t, defer) => {
      const s = await stage(defer, {
        settings: { proxyProtocol: true, proxyFrom: ['127.0.0.1'], allow: ['10.0.0.0/8'] },
      });
      const whole = await s.connect();
      await whole.raw(Buffer.concat([header('10.1.2.3'), Buffer.from('EHLO c\r\nMAIL FROM:<a@x.test>\r\n')]));
      await whole.expect(undefined, 220);
      await whole.expect(undefined, 250);
      await whole.expect(undefined, 250);
      const slow = await s.connect();
      for (const octet of header('10.1.2.4')) await slow.raw(Buffer.from([octet]));
      await slow.expect(undefined, 220);
      await slow.expect('EHLO c', 250);
      await slow.expect('MAIL FROM:<a@x.test>', 250);
      assert.deepEqual(
        s.relay.seen.map((one) => one.command.session.remoteAddress),
        ['10.1.2.3', '10.1.2.4'],
      );
    }),
  );
}

for (const [what, header] of [
  ['UNKNOWN', Buffer.from('PROXY UNKNOWN\r\n')],
  ['LOCAL', v2()],
] as const) {
  test(
    `a header that tells no address (${what}) opens nothing`,
    leakless(async (_t, defer) => {
      for (const allow of [[], ['127.0.0.0/8', '10.0.0.0/8']]) {
        const tls = { tls: 'starttls', ...(await certificateFiles(defer)) } as const;
        const s = await stage(defer, {
          settings: { ...tls, proxyProtocol: true, proxyFrom: ['127.0.0.1'], allow },
        });
        const client = await s.connect();
        await client.raw(header);
        await client.expect(undefined, 220);
        assert.doesNotMatch((await client.send('EHLO c')).text, /AUTH/);
        await client.expect('AUTH PLAIN AGEAYg==', '538 5.7.11');
        await client.expect('MAIL FROM:<a@x.test>', '530 5.7.0');
      }
    }),
  );
}

test(
  'handshakes that do not come and headers that do not come count, per address and in all, and end',
  leakless(async (_t, defer) => {
    for (const settings of [
      { tls: 'implicit', allow: ['127.0.0.1'], ...(await certificateFiles(defer)) } as const,
      { proxyProtocol: true, allow: ['10.0.0.0/8'] } as const,
    ]) {
      const clock = createTestClock();
      const limits = { maxSessions: 10, maxSessionsPerAddress: 4, handshakeMs: 30_000 };
      const s = await stage(defer, { deps: { clock }, settings: { ...settings, limits } });
      const sockets = await Promise.all(
        Array.from({ length: 8 }, () => {
          const socket = connect({ port: s.port, host: '127.0.0.1' });
          defer(() => socket.destroy());
          socket.on('error', () => {});
          return new Promise<Socket>((resolve) => socket.once('connect', () => resolve(socket)));
        }),
      );
      await waitFor(() => s.listener.counts().sessionsTotal === 8);
      await waitFor(() => s.listener.counts().sessions === 4);
      assert.equal(s.listener.counts().limitHits.sessions_per_address, 4);
      // An octet now and then buys no time.
      for (const socket of sockets) socket.write('P');
      clock.advance(29_000);
      for (const socket of sockets) if (socket.writable) socket.write('R');
      clock.advance(2_000);
      await waitFor(() => s.listener.counts().sessions === 0);
      assert.equal(s.listener.counts().limitHits.handshake, 4);
    }
  }),
);

test(
  'a client that must log in has a time for it, whatever it says meanwhile',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const files = await certificateFiles(defer);
    const s = await stage(defer, {
      deps: { clock },
      settings: {
        authRequired: true,
        tls: 'starttls',
        ...files,
        limits: { authMs: 60_000, maxUnauthenticatedCommands: 1_000 },
      },
    });
    const talker = await s.greeted();
    const silent = await s.connect();
    const halfway = await s.greeted();
    await halfway.expect('STARTTLS', 220);
    for (let i = 0; i < 5; i++) {
      clock.advance(10_000);
      await talker.expect('NOOP', 250);
    }
    clock.advance(10_000);
    await talker.expect(undefined, '421 4.7.0');
    await silent.expect(undefined, 220);
    await silent.expect(undefined, '421 4.7.0');
    for (const client of [talker, silent, halfway]) await client.closed();
    await waitFor(() => s.listener.counts().sessions === 0);
    // One that may send without a login is not asked to hurry.
    const open = await stage(defer, { deps: { clock } });
    const free = await open.greeted();
    clock.advance(61_000);
    await free.expect('NOOP', 250);
  }),
);

test(
  'addresses of one IPv6 customer count together, mapped IPv4 ones each for itself',
  leakless(async (_t, defer) => {
    const s = await stage(defer, {
      settings: {
        proxyProtocol: true,
        allow: ['2001:db8::/32', '10.0.0.0/8'],
        limits: { maxSessionsPerAddress: 2 },
      },
    });
    const from = async (address: string): Promise<string> => {
      const client = await s.connect();
      await client.raw(`PROXY TCP6 ${address} ::1 1 2\r\n`);
      return (await client.reply()).text.slice(0, 3);
    };
    assert.equal(await from('2001:db8:0:1::1'), '220');
    assert.equal(await from('2001:DB8:0:1::2'), '220');
    assert.equal(await from('2001:db8:0:1:ffff::3'), '421');
    assert.equal(await from('2001:db8:0:2::1'), '220');
    for (let i = 0; i < 4; i++) assert.equal(await from(`::ffff:10.0.0.${i}`), '220');
  }),
);

test('a connection that is gone before its address is known is nobody, not a program of this machine', () => {
  const clock = createTestClock();
  const options = resolveOptions({ host: '0.0.0.0', allow: ['10.0.0.0/8'] });
  const door = createDoor({ tally: createTally(), log: silentLog }, options);
  const gone = new Socket();
  assert.equal(acceptSocket(gone, false, { door, clock, options, hit: () => {} }, new Map()), false);
  assert.ok(gone.destroyed);
  assert.equal(door.sessions, 0);
});
