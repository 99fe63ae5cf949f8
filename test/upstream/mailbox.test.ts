/** A mailbox has its limits whatever its accounts are called. Each provider here takes one connection a user. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestClock, type TestClock } from '../support/clock.ts';
import { createFastClock } from '../support/fast-clock.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { ANN, type Room, type RoomOptions, startRoom } from '../support/relay-room.ts';
import { waitFor, within } from '../support/wait-for.ts';

const BEN = 'ben@example.com';
const DESK = 'desk@example.com';
const ONE = { max_connections: 1, min_connections: 0, login_interval_ms: 0 };

const startNarrow = (defer: Defer, options: RoomOptions = {}): Promise<Room> =>
  startRoom(defer, {
    account: ONE,
    provider: { rules: { maxConnectionsPerUser: 1 } },
    ...options,
  });

/** Entries of two accounts with one mailbox. */
const twins = ({ provider }: Room, more: Record<string, unknown> = ONE): readonly object[] => [
  provider.entry(ANN, more),
  provider.entry(ANN, { ...more, email: DESK, user: ANN }),
];

/** A transaction that has its connection; what it returns ends it. */
async function underWay(room: Room, from = ANN): Promise<() => Promise<number | undefined>> {
  const { transaction } = await room.mail(from);
  await transaction?.rcpt(['a', 'b'].map((name) => ({ address: `${name}@x.net`, parameters: [] })));
  await waitFor(() => room.provider.smtp.open > 0);
  return async () => {
    const writer = transaction?.body();
    await writer?.write(Buffer.from('x\r\n'));
    return (await writer?.end())?.code;
  };
}

test(
  'an account that is renamed while mail is under way waits for the place of its earlier name',
  leakless(async (_t, defer) => {
    const room = await startNarrow(defer);
    const end = await underWay(room);
    await room.reload([room.provider.entry(ANN, { ...ONE, account_id: 'renamed' })]);
    const next = room.send();
    await rest();
    assert.equal(room.upstreams.status('renamed')?.counts.size, 0);
    assert.equal(await end(), 250);
    assert.equal((await next).final?.code, 250);
    assert.equal(room.provider.smtp.logins(ANN), 2);
    assert.equal(room.provider.smtp.maxOpenOf(ANN), 1);
    assert.equal(room.upstreams.status('renamed')?.state.status, 'ready');
  }),
);

test(
  'who waits for a connection of an account that is renamed meanwhile is told so',
  leakless(async (_t, defer) => {
    const room = await startNarrow(defer);
    await room.reload(twins(room));
    const end = await underWay(room, DESK);
    const waiting = room.mail(ANN);
    await rest();
    await room.reload([room.provider.entry(ANN, { ...ONE, account_id: 'renamed' }), ...twins(room).slice(1)]);
    assert.match((await waiting).reply.text, /renamed/);
    assert.equal(await end(), 250);
  }),
);

test(
  'where a provider does not answer QUIT, what is left of an account gives way to what follows it',
  leakless(async (_t, defer) => {
    const room = await startNarrow(defer);
    assert.equal((await room.send()).final?.code, 250);
    room.provider.smtp.script('QUIT', { times: 2 }, { until: new Promise(() => {}), reply: '221 bye' });
    await room.reload([room.provider.entry(BEN, ONE)]);
    await room.reload([room.provider.entry(ANN, { ...ONE, account_id: 'renamed' })]);
    assert.equal((await room.send()).final?.code, 250);
    await room.reload([room.provider.entry(ANN, ONE)]);
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.upstreams.status(ANN)?.state.status, 'ready');
  }),
);

test(
  'two accounts with one user share its places: an idle connection of one gives way to the other',
  leakless(async (_t, defer) => {
    const room = await startNarrow(defer, {
      clock: createFastClock(10),
      upstreams: { acquireTimeoutMs: 60_000 },
    });
    await room.reload(twins(room));
    for (const from of [ANN, DESK, ANN, DESK]) assert.equal((await room.send({ from })).final?.code, 250);
    const all = Array.from({ length: 8 }, (_, i) => room.send({ from: i % 2 === 0 ? ANN : DESK }));
    assert.deepEqual(new Set((await Promise.all(all)).map((h) => h.final?.code)), new Set([250]));
    assert.equal(room.provider.smtp.maxOpenOf(ANN), 1);
    for (const id of [ANN, DESK]) assert.equal(room.upstreams.status(id)?.state.status, 'ready');
  }),
);

test(
  'an account that is never idle gives the place up to another of its mailbox, which waits',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const room = await startNarrow(defer, { clock });
    await room.reload(twins(room));
    const isWaiting = (id: string): boolean => room.upstreams.status(id)?.counts.busy === 0;
    const first = await underWay(room);
    let isOver = false;
    const other = room.send({ from: DESK }).then((heard) => {
      isOver = true;
      return heard.final?.code;
    });
    await waitFor(() => room.upstreams.status(DESK) !== undefined && isWaiting(DESK));
    // There is always one more of the first account that waits.
    let end = first;
    for (let i = 0; i < 3; i++) {
      const next = underWay(room);
      assert.equal(await end(), 250);
      end = await next;
    }
    assert.equal(isOver, false);
    const next = underWay(room);
    await pass(clock, 2_000);
    assert.equal(await end(), 250);
    assert.equal(await other, 250);
    // What has just been used is kept for a while: there would be a login a message.
    await rest();
    assert.equal(room.provider.smtp.logins(ANN), 2);
    await pass(clock, 2_000);
    assert.equal(await (await next)(), 250);
    assert.equal(room.provider.smtp.maxOpenOf(ANN), 1);
  }),
);

test(
  'two accounts that exchange their users count with the mailbox they log in as',
  leakless(async (_t, defer) => {
    const room = await startNarrow(defer, { users: [ANN, BEN] });
    const entry = (email: string, user: string): object =>
      room.provider.entry(user, { ...ONE, email, user, account_id: `account-${email}` });
    await room.reload([entry(ANN, ANN), entry(BEN, BEN)]);
    const ends = [await underWay(room, ANN), await underWay(room, BEN)];
    await room.reload([entry(ANN, BEN), entry(BEN, ANN)]);
    const next = [room.send({ from: ANN }), room.send({ from: BEN })];
    assert.equal(await ends[1]?.(), 250);
    assert.equal((await next[0])?.final?.code, 250);
    await rest();
    assert.equal(room.upstreams.status(`account-${BEN}`)?.counts.size, 0);
    assert.equal(await ends[0]?.(), 250);
    assert.equal((await next[1])?.final?.code, 250);
    assert.deepEqual(
      [ANN, BEN].map((user) => room.provider.smtp.maxOpenOf(user)),
      [1, 1],
    );
  }),
);

test(
  'a message under way that loses its connection after its account has got another mailbox waits: no token of that one is tried',
  leakless(async (_t, defer) => {
    const room = await startNarrow(defer, { users: [ANN, BEN] });
    const entry = (email: string, user: string): object =>
      room.provider.entry(user, { ...ONE, chunking: false, email, user, account_id: `account-${email}` });
    await room.reload([entry(ANN, ANN), entry(BEN, BEN)]);
    const end = await underWay(room, ANN);
    await room.reload([entry(ANN, BEN), entry(BEN, ANN)]);
    await room.tokens.get(`account-${ANN}`);
    const { connections } = room.provider.smtp;
    const asked = room.provider.token.count();
    room.provider.smtp.script('DATA', {}, { after: 'close' });
    assert.equal(await end(), 451);
    assert.equal(room.provider.smtp.connections, connections);
    assert.equal(room.provider.token.count(), asked);
    assert.equal((await room.send()).final?.code, 250);
  }),
);

test(
  'who waits for a token while another account has the places waits no longer than for a place',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const room = await startNarrow(defer, { clock });
    await room.reload(twins(room));
    const end = await underWay(room);
    room.provider.token.delayMs = 1_500;
    const next = room.send({ from: DESK });
    await pass(clock, 5_000);
    await pass(clock, 0);
    assert.equal((await within(next, 1_000, 'the answer')).mail.code, 451);
    assert.equal(await end(), 250);
  }),
);

test(
  'the limit a minute and the time between logins belong to the mailbox, renamed, removed, added again or twice in the file',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const room = await startNarrow(defer, { clock, relay: { maxHoldMs: 1_000 } });
    const paced = { ...ONE, messages_per_minute: 3, login_interval_ms: 2_000 };
    const renamed = room.provider.entry(ANN, { ...paced, account_id: 'renamed' });
    const twin = room.provider.entry(ANN, { ...paced, email: DESK, user: ANN });
    await room.reload([room.provider.entry(ANN, paced)]);
    assert.equal((await room.send()).final?.code, 250);
    await room.reload([renamed]);
    let isSent = false;
    const second = room.send().finally(() => {
      isSent = true;
    });
    await pass(clock, 1_000);
    assert.equal(isSent, false);
    await pass(clock, 1_000);
    assert.equal((await second).final?.code, 250);
    await room.reload([room.provider.entry(BEN, paced)]);
    await room.reload([twin, renamed]);
    const third = room.send();
    await pass(clock, 2_000);
    assert.equal((await third).final?.code, 250);
    const fourth = room.send({ from: DESK });
    await pass(clock, 3_000);
    assert.equal((await fourth).mail.code, 451);
    clock.advance(61_000);
    assert.equal((await room.send({ from: DESK })).final?.code, 250);
  }),
);

test(
  'what two accounts of one mailbox open after a long wait takes the message it was opened for, before it gives way',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const room = await startNarrow(defer, {
      clock,
      upstreams: { acquireTimeoutMs: 60_000 },
    });
    const paced = { ...ONE, login_interval_ms: 3_000 };
    await room.reload(twins(room, paced));
    const heard: string[] = [];
    async function begin(from: string): Promise<void> {
      void room.send({ from }).then(({ final }) => heard.push(`${from} ${final?.code}`));
      await rest();
    }
    await begin(ANN);
    await waitFor(() => heard.length === 1);
    await begin(DESK);
    clock.advance(4_000);
    await waitFor(() => heard.length === 2);
    await begin(ANN);
    await pass(clock, 4_000);
    await waitFor(() => room.upstreams.status(ANN)?.counts.size === 1);
    await begin(DESK);
    clock.advance(3_000);
    await waitFor(() => heard.length === 3);
    await pass(clock, 4_000);
    await waitFor(() => heard.length === 4);
    assert.deepEqual(heard.slice(2), [`${ANN} 250`, `${DESK} 250`]);
    assert.equal(room.provider.smtp.logins(ANN), 4);
  }),
);

test(
  'an account whose grant is refused takes no place from another of its mailbox',
  leakless(async (_t, defer) => {
    const room = await startNarrow(defer);
    await room.reload([
      room.provider.entry(ANN, ONE),
      room.provider.entry(ANN, { ...ONE, email: DESK, user: ANN, refresh_token: 'of-nobody' }),
    ]);
    for (let i = 0; i < 5; i++) {
      assert.equal((await room.send()).final?.code, 250);
      assert.equal((await room.send({ from: DESK })).mail.code, 451);
    }
    assert.equal(room.provider.smtp.logins(ANN), 1);
  }),
);

test(
  'a login that did not come about spares the next one its distance only as long as it kept the others away',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const paced = { max_connections: 4, min_connections: 0, login_interval_ms: 5_000 };
    const room = await startRoom(defer, {
      clock,
      account: paced,
      warm: false,
      upstreams: { acquireTimeoutMs: 60_000 },
    });
    await room.reload(twins(room, paced));
    room.provider.smtp.script('greeting', { times: 1 }, { after: 'close' });
    assert.equal((await room.send()).mail.code, 451);
    clock.advance(60_000);
    assert.equal((await room.send({ from: DESK })).final?.code, 250);
    const next = room.send();
    await waitFor(() => room.upstreams.status(ANN)?.counts.size === 1);
    clock.advance(4_999);
    await rest();
    assert.equal(room.provider.smtp.logins(ANN), 1);
    clock.advance(1);
    assert.equal((await next).final?.code, 250);
  }),
);

/** What is under way comes as far as it can. */
async function rest(): Promise<void> {
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
}

async function pass(clock: TestClock, ms: number): Promise<void> {
  await rest();
  clock.advance(ms);
  await rest();
}
