/** The pools of one mailbox among themselves, with connections that are nothing but that. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AccountLimits } from '../../src/accounts/account.ts';
import type { UpstreamConnection } from '../../src/upstream/connection.ts';
import { createMailboxConnections, type Sharer } from '../../src/upstream/mailbox-connections.ts';
import { type ConnectionPool, createConnectionPool, type Lease } from '../../src/upstream/pool.ts';
import { createTestClock } from '../support/clock.ts';

/** More turns than this for what a handful of pools do is no end. */
const ENDLESS = 10_000;

interface Crowd {
  readonly pools: readonly ConnectionPool[];
  /** Ends an opening, the oldest first. */
  opened(): void;
  advance(ms: number): void;
}

/** Pools of one mailbox; each may have so many connections. */
function crowd(...most: readonly number[]): Crowd {
  const clock = createTestClock();
  const mailbox = createMailboxConnections(clock);
  const waiting: (() => void)[] = [];
  let turns = 0;
  const open = (): Promise<UpstreamConnection> =>
    new Promise((resolve) => waiting.push(() => resolve(connection())));
  const pools = most.map((maxConnections) =>
    createConnectionPool(open, {
      limits: () => ({ maxConnections, minConnections: 0 }) as AccountLimits,
      acquireTimeoutMs: 30_000,
      concurrency() {
        assert.ok(++turns < ENDLESS, 'the pools serve one another without end');
        return maxConnections;
      },
      isKept: () => true,
      mayOpen: () => true,
      mailbox,
      clock,
    }),
  );
  return {
    pools,
    opened: () => waiting.shift()?.(),
    advance: (ms) => clock.advance(ms),
  };
}

const connection = (): UpstreamConnection =>
  ({ isUsable: () => true, quit: async () => {}, destroy: () => {} }) as unknown as UpstreamConnection;

for (const [what, isUsable, isKept, reason] of [
  ['is closed right behind its login', false, true, /closed right behind the login/],
  ['nobody may use any more, for its account was drained', true, false, /draining/],
] as const)
  test(`a connection that ${what} is no reason to log in again and again for a message that waits`, async () => {
    const clock = createTestClock();
    let logins = 0;
    const pool = createConnectionPool(
      async () => {
        logins++;
        await rest();
        return { ...connection(), isUsable: () => isUsable } as unknown as UpstreamConnection;
      },
      {
        limits: () => ({ maxConnections: 2, minConnections: 0 }) as AccountLimits,
        acquireTimeoutMs: 30_000,
        concurrency: () => 2,
        isKept: () => isKept,
        mayOpen: () => isKept,
        clock,
      },
    );
    await assert.rejects(pool.acquire(), reason);
    for (let turn = 0; turn < 20; turn++) await rest();
    assert.equal(logins, 1);
  });

/** What can happen at once has happened. */
const rest = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Leases as they come. */
function borrow(pool: ConnectionPool | undefined, times: number): Lease[] {
  const leases: Lease[] = [];
  for (let i = 0; i < times; i++) void pool?.acquire().then((lease) => leases.push(lease));
  return leases;
}

test('connections that become idle while others are opened are lent, and the pools come to rest', async () => {
  const { pools, opened } = crowd(3, 3);
  void pools[1]?.warm(3);
  const first = borrow(pools[0], 1);
  await rest();
  opened();
  opened();
  const more = borrow(pools[0], 2);
  await rest();
  for (let i = 0; i < 4; i++) {
    opened();
    await rest();
  }
  assert.equal(first.length + more.length, 3);
  assert.deepEqual(
    pools.map(({ counts }) => counts.busy),
    [3, 0],
  );
});

test('an account with a lower limit than another of its mailbox has its share', async () => {
  const { pools, opened, advance } = crowd(3, 1);
  const greedy = borrow(pools[0], 20);
  await rest();
  for (let i = 0; i < 3; i++) opened();
  await rest();
  const modest = borrow(pools[1], 2);
  await rest();
  assert.equal(modest.length, 0);
  advance(2_000);
  greedy.shift()?.release();
  await rest();
  opened();
  await rest();
  assert.equal(modest.length, 1);
  assert.deepEqual(
    pools.map(({ counts: { size } }) => size),
    [2, 1],
  );
});

test('two busy accounts of one mailbox do not log in at every message', async () => {
  const clock = createTestClock();
  const mailbox = createMailboxConnections(clock);
  let logins = 0;
  const open = async (): Promise<UpstreamConnection> => {
    logins++;
    const made = {
      ...connection(),
      usedAt: clock.monotonic(),
      get idleMs(): number {
        return clock.monotonic() - this.usedAt;
      },
    };
    return made as unknown as UpstreamConnection;
  };
  const pools = [0, 1].map(() =>
    createConnectionPool(open, {
      limits: () => ({ maxConnections: 1, minConnections: 0, loginIntervalMs: 0 }) as AccountLimits,
      acquireTimeoutMs: 30_000,
      concurrency: () => 1,
      isKept: () => true,
      mayOpen: () => true,
      mailbox,
      clock,
    }),
  );
  const waits: number[] = [];
  async function send(pool: ConnectionPool): Promise<void> {
    const since = clock.monotonic();
    const { connection, release } = await pool.acquire();
    waits.push(clock.monotonic() - since);
    clock.after(50, () => {
      Object.assign(connection, { usedAt: clock.monotonic() });
      release();
    });
  }
  const messages = 200;
  for (let i = 0; i < messages; i++) {
    for (const pool of pools) void send(pool);
    for (let ms = 0; ms < 250; ms += 50) {
      clock.advance(50);
      await rest();
    }
  }
  assert.ok(waits.length > 2 * messages - 40, `${waits.length} sent`);
  assert.ok(logins * 10 < waits.length, `${logins} logins for ${waits.length} messages`);
  assert.ok(Math.max(...waits) < 5_000, `${Math.max(...waits)} ms`);
});

test('a connection too many, for a limit was lowered, is closed when it comes back, whoever waits', async () => {
  const clock = createTestClock();
  const mailbox = createMailboxConnections(clock);
  let maxConnections = 2;
  const pools = [0, 1].map(() =>
    createConnectionPool(async () => connection(), {
      limits: () => ({ maxConnections, minConnections: 0 }) as AccountLimits,
      acquireTimeoutMs: 30_000,
      concurrency: () => maxConnections,
      isKept: () => true,
      mayOpen: () => true,
      mailbox,
      clock,
    }),
  );
  const leases = pools.map((pool) => borrow(pool, 1));
  await rest();
  maxConnections = 1;
  for (const pool of pools) borrow(pool, 1);
  leases[0]?.[0]?.release();
  await rest();
  assert.deepEqual(
    pools.map(({ counts: { size } }) => size),
    [0, 1],
  );
});

for (const busy of [3, 2, 1])
  test(`of ${busy} busy and ${3 - busy} idle connections one stays where the limit is lowered to 1, also while others say goodbye`, async () => {
    let maxConnections = 3;
    let logins = 0;
    const pool = createConnectionPool(
      async () => {
        logins++;
        return { ...connection(), quit: () => new Promise<void>(() => {}) } as unknown as UpstreamConnection;
      },
      {
        limits: () => ({ maxConnections, minConnections: 0 }) as AccountLimits,
        acquireTimeoutMs: 30_000,
        concurrency: () => maxConnections,
        isKept: () => true,
        mayOpen: () => true,
        clock: createTestClock(),
      },
    );
    const leases = borrow(pool, 3);
    await rest();
    for (const lease of leases.splice(busy)) lease.release();
    maxConnections = 1;
    pool.maintain();
    await rest();
    for (const lease of leases) lease.release();
    await rest();
    assert.equal(pool.counts.idle, 1);
    (await pool.acquire()).release();
    assert.equal(logins, 3);
  });

test('an account that is served no more allows its mailbox nothing', () => {
  const mailbox = createMailboxConnections(createTestClock());
  const sharer = (open: number, most: number, isServed: boolean): Sharer => ({
    open,
    most: () => most,
    loginIntervalMs: () => 0,
    isServed: () => isServed,
    waitsSince: undefined,
    cutLeaving: () => false,
    giveUpIdle: () => false,
    serve: () => {},
  });
  const [served, earlier, other] = [sharer(0, 2, true), sharer(2, 5, false), sharer(0, 4, true)];
  mailbox.join(served);
  mailbox.join(earlier);
  assert.equal(mailbox.makeRoom(served), false);
  mailbox.join(other);
  assert.equal(mailbox.makeRoom(served), true);
  assert.equal(mailbox.roomFor(served), 2);
});

test('with hundreds of accounts in a mailbox a place is looked for in one round', () => {
  const mailbox = createMailboxConnections(createTestClock());
  let asked = 0;
  const sharers = Array.from(
    { length: 500 },
    (_, i): Sharer => ({
      get open() {
        asked++;
        return i < 2 ? 1 : 0;
      },
      most: () => 2,
      loginIntervalMs: () => 0,
      isServed: () => true,
      waitsSince: i < 2 ? undefined : i,
      cutLeaving: () => false,
      giveUpIdle: () => false,
      serve() {
        asked++;
        mailbox.makeRoom(this);
      },
    }),
  );
  for (const each of sharers) mailbox.join(each);
  const [first] = sharers;
  assert.ok(first);
  mailbox.pass(first);
  assert.ok(asked < 4 * sharers.length, `${asked} questions`);
});
