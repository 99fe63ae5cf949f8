import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { type Clock, systemClock } from '../../src/clock.ts';
import { silentLog } from '../../src/log.ts';
import { judge, type Verdict } from '../../src/protocol/verdict.ts';
import type { AccountUpstream } from '../../src/upstream/account-upstream.ts';
import { UpstreamConnection } from '../../src/upstream/connection.ts';
import type { Lease } from '../../src/upstream/pool.ts';
import { SmtpDelivery } from '../../src/upstream/smtp-delivery.ts';
import type { Asked, Delivery, Trace } from '../../src/upstream/way.ts';
import { createTestClock } from '../support/clock.ts';

const MAIL = { sender: 'ann@example.com', parameters: [] };
const BOB = { address: 'bob@example.net', parameters: [] };
const LATE = judge({ kind: 'local', cause: 'rate_limited', waitSeconds: 20 });

/** A delivery whose connection comes when told; whatever is asked of it is noted. */
function stage(mayBegin: () => Promise<Verdict | undefined> | undefined) {
  const events: string[] = [];
  let lend: (lease: Lease) => void = () => undefined;
  const connection = {
    id: 'c1',
    ageMs: 0,
    quietMs: 0,
    messages: 0,
    dead: false,
    capabilities: { pipelining: true, chunking: false },
    get idleMs(): number {
      events.push('a message is said');
      throw new Error('enough');
    },
    destroy: () => undefined,
  };
  const upstream = {
    account: { id: 'ann', limits: { maxConnections: 1 } },
    hold: () => () => undefined,
    mayUseBdat: () => false,
    acquire: () =>
      new Promise<Lease>((resolve) => {
        lend = resolve;
      }),
    report: () => undefined,
  };
  const trace = { flights: 0, acquireMs: 0, replayed: false } as Trace;
  const delivery = new SmtpDelivery(
    {
      upstream: upstream as unknown as AccountUpstream,
      trace,
      mayBegin() {
        events.push('may it begin');
        return mayBegin();
      },
      log: silentLog,
      clock: systemClock,
      random: Math.random,
    },
    { busyWaitMs: 0 },
  );
  return {
    events,
    delivery,
    lend: () => lend({ connection, release: () => events.push('given back') } as unknown as Lease),
  };
}

const newTrace = (): Trace => ({ flights: 0, acquireMs: 0, replayed: false }) as Trace;

function deliveryOn(upstream: object, clock: Clock, trace = newTrace()): Delivery {
  return new SmtpDelivery(
    { upstream: upstream as AccountUpstream, trace, log: silentLog, clock, random: Math.random },
    { busyWaitMs: 0 },
  );
}

test('a message asks for its place in the minute when it has its connection, not when it begins to wait for one', async () => {
  const { events, delivery, lend } = stage(() => undefined);
  const sent = delivery.send(MAIL, [BOB], [Buffer.from('x')], 1);
  await new Promise(setImmediate);
  assert.deepEqual(events, []);
  lend();
  await sent;
  assert.deepEqual(events.slice(0, 2), ['may it begin', 'a message is said']);
  delivery.close();
});

test('where the minute is full by then nothing is said upstream and the connection goes back', async () => {
  const { events, delivery, lend } = stage(async () => LATE);
  const sent = delivery.send(MAIL, [BOB], [Buffer.from('x')], 1);
  lend();
  assert.deepEqual(await sent, { verdict: LATE });
  assert.deepEqual(events, ['may it begin', 'given back']);
  delivery.close();
});

/** A server that takes all, or hears nothing. */
function connect(isSilent: boolean, clock: Clock): UpstreamConnection {
  const socket = new Duplex({
    read: () => {},
    write(octets, _encoding, done) {
      done();
      const answers = String(octets).replace(/.+\r\n/g, '250 2.0.0 ok\r\n');
      if (!isSilent) setImmediate(() => socket.emit('data', Buffer.from(answers)));
    },
  });
  const connection = new UpstreamConnection(socket as Socket, 'ann', { clock });
  connection.capabilities = { ...connection.capabilities, pipelining: true };
  return connection;
}

test('a client is answered before it gives up, however many connections have gone silent', async () => {
  const clock = createTestClock();
  const old = Array.from({ length: 100 }, () => connect(true, clock));
  clock.advance(100_000);
  const upstream = {
    account: { id: 'ann', limits: { maxConnections: 100 } },
    hold: () => () => undefined,
    mayUseBdat: () => false,
    acquire: async () => ({ connection: old.shift() ?? connect(false, clock), release: () => undefined }),
    report: () => undefined,
  };
  const delivery = deliveryOn(upstream, clock);
  let asked: Asked | undefined;
  void delivery.ask(MAIL, [], [BOB, BOB]).then((heard) => {
    asked = heard;
  });
  const since = clock.monotonic();
  for (; asked === undefined && clock.monotonic() - since < 300_000; clock.advance(1_000))
    for (let i = 0; i < 4; i++) await new Promise(setImmediate);
  assert.equal(asked?.kind, 'heard');
  delivery.close();
});

test('a connection that served others since is not given up for the silence of the ones before it', async () => {
  const clock = createTestClock();
  const old = [connect(true, clock), connect(true, clock), connect(false, clock)];
  const [, , alive] = old;
  assert.ok(alive !== undefined);
  clock.advance(100_000);
  const upstream = {
    account: { id: 'ann', limits: { maxConnections: 3 } },
    hold: () => () => undefined,
    mayUseBdat: () => false,
    async acquire() {
      const connection = old.shift();
      assert.ok(connection !== undefined);
      if (connection === alive) await alive.flight(['NOOP\r\n'], 1, 1_000);
      return { connection, release: () => undefined };
    },
    report: () => undefined,
  };
  const trace = newTrace();
  const delivery = deliveryOn(upstream, clock, trace);
  let asked: Asked | undefined;
  void delivery.ask(MAIL, [], [BOB]).then((heard) => {
    asked = heard;
  });
  const since = clock.monotonic();
  for (; asked === undefined && clock.monotonic() - since < 300_000; clock.advance(1_000))
    for (let i = 0; i < 4; i++) await new Promise(setImmediate);
  assert.equal(asked?.kind, 'heard');
  assert.equal(trace.connection, alive.id);
  delivery.close();
});
