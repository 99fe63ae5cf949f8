// needs: redis-server
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMembership, type Membership } from '../../src/fleet/membership.ts';
import { createSharedStates, type SharedState, type SharedStates } from '../../src/fleet/shared-states.ts';
import { silentLog } from '../../src/log.ts';
import { createRedisConnection, type RedisConnection } from '../../src/redis.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Redis, startRedis } from '../support/redis.ts';
import { waitFor } from '../support/wait-for.ts';

const ROW = { version: '0', host: 'h', pid: 1, startedAt: 0, relayed: 0, deferred: 0, rejected: 0, lagMs: 0 };

interface Relay extends SharedStates {
  readonly known: Map<string, SharedState>;
  readonly asked: string[];
  /** Known before Redis was asked. */
  readonly first: readonly string[];
  away(): boolean;
  /** Without a word. */
  die(): void;
}

async function relay(defer: Defer, redis: Redis, kept?: unknown): Promise<Relay> {
  const connection = createRedisConnection(
    { reveal: () => redis.url },
    { log: silentLog },
    { answerMs: 300 },
  );
  await connection.open();
  const membership = createMembership({ redis: connection, row: () => ROW });
  const states = createSharedStates({ redis: connection, membership, log: silentLog });
  const known = new Map<string, SharedState>();
  const asked: string[] = [];
  states.onState((subject, state) => {
    if (state === undefined) known.delete(subject);
    else known.set(subject, state);
  });
  states.onAsked((action) => void asked.push(action));
  if (kept !== undefined) states.kept.restore(kept);
  const first = [...known.keys()];
  await membership.start();
  defer(async () => {
    await membership.leave();
    connection.close();
  });
  return { ...states, known, asked, first, away: () => connection.away, die: () => connection.close() };
}

const PAUSE = { subject: 'pause:sending:a@x', value: { status: 'throttled' }, leftMs: 60_000 };

test(
  'what one relay learned the others hear, also one that comes later, and the cure as well',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const a = await relay(defer, redis);
    const b = await relay(defer, redis);
    a.set(PAUSE);
    a.set({ subject: 'drained:a@x', value: true, leftMs: undefined });
    a.set({ subject: 'pause:logins:b@x', value: {}, leftMs: 1 });
    await waitFor(() => b.known.size === 3, { what: 'b hearing of it' });
    assert.deepEqual(b.known.get(PAUSE.subject)?.value, PAUSE.value);
    assert.equal(a.known.size, 0, 'nobody hears himself');
    const c = await relay(defer, redis);
    await waitFor(() => c.known.size === 2, { what: 'c finding what still stands' });
    const left = c.known.get(PAUSE.subject)?.leftMs ?? 0;
    assert.ok(left > 50_000 && left <= 60_000);
    assert.equal(c.known.get('drained:a@x')?.leftMs, undefined);
    c.clear(PAUSE.subject);
    await waitFor(() => !b.known.has(PAUSE.subject), { what: 'b hearing of the cure' });
    c.ask('refresh:a@x');
    await waitFor(() => a.asked.length === 1 && b.asked.length === 1, { what: 'both being asked' });
    assert.deepEqual([a.asked, b.asked, c.asked], [['refresh:a@x'], ['refresh:a@x'], []]);
  }),
);

test(
  'what ended at once does not stand, also where Redis knew no script of it',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const a = await relay(defer, redis);
    redis.command('script', 'flush');
    a.set(PAUSE);
    a.clear(PAUSE.subject);
    a.set({ subject: 'drained:a@x', value: true, leftMs: undefined });
    const standing = (): string => redis.command('hkeys', 'xoauth2-relay:states');
    await waitFor(() => standing().includes('drained:a@x'), { what: 'the last of it' });
    assert.equal(standing(), 'drained:a@x');
  }),
);

test(
  'what was found while Redis was away is told when it is back',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const a = await relay(defer, redis);
    const b = await relay(defer, redis);
    await redis.kill();
    a.set(PAUSE);
    await redis.start();
    await waitFor(() => b.known.has(PAUSE.subject), { what: 'b hearing of it', timeoutMs: 15_000 });
  }),
);

test(
  'what ended while a relay was cut off from Redis ends there, too',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const a = await relay(defer, redis);
    const b = await relay(defer, redis);
    for (const id of ['a@x', 'b@x']) a.set({ subject: `drained:${id}`, value: true, leftMs: undefined });
    a.set(PAUSE);
    await waitFor(() => b.known.size === 3, { what: 'b hearing of it' });
    redis.freeze();
    a.ask('anything');
    b.ask('anything');
    await waitFor(() => a.away() && b.away(), { what: 'both finding Redis away' });
    redis.thaw();
    redis.command('hdel', 'xoauth2-relay:states', 'drained:a@x', PAUSE.subject);
    await waitFor(() => b.known.size === 1, { what: 'b hearing what is over' });
    assert.ok(b.known.has('drained:b@x'));
    assert.equal(redis.command('hkeys', 'xoauth2-relay:states'), 'drained:b@x');
  }),
);

test(
  'what stands is written again where Redis comes back empty or with older data',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const a = await relay(defer, redis);
    const standing = (): string => redis.command('hkeys', 'xoauth2-relay:states').split('\n').sort().join();
    a.set({ subject: 'drained:a@x', value: true, leftMs: undefined });
    await waitFor(() => standing() === 'drained:a@x', { what: 'the first' });
    redis.command('save');
    const beats = (): number => Number(redis.command('get', redis.command('keys', '*:mark:*')));
    const saved = beats();
    a.set(PAUSE);
    a.set({ subject: 'drained:b@x', value: true, leftMs: undefined });
    await waitFor(() => beats() > saved + 1, { what: 'a sign of life after it' });
    const all = `drained:a@x,drained:b@x,${PAUSE.subject}`;
    await redis.kill();
    await redis.start();
    await waitFor(() => standing() === all, { what: 'all of it again', timeoutMs: 15_000 });
    redis.command('flushall');
    await waitFor(() => standing() === all, { what: 'all of it again', timeoutMs: 15_000 });
  }),
);

test(
  'a relay keeps what stands over a restart: it is believed until Redis is asked',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const a = await relay(defer, redis);
    a.set({ subject: 'drained:a@x', value: true, leftMs: undefined });
    a.set({ subject: 'drained:b@x', value: true, leftMs: undefined });
    a.set({ ...PAUSE, leftMs: 1 });
    const isTold = (): boolean => !JSON.stringify(a.kept.snapshot()).includes(',true]');
    await waitFor(() => redis.command('hlen', 'xoauth2-relay:states') === '3' && isTold(), {
      what: 'all in Redis',
    });
    const kept = JSON.parse(JSON.stringify(a.kept.snapshot()));
    redis.command('hdel', 'xoauth2-relay:states', 'drained:b@x');
    const b = await relay(defer, redis, kept);
    assert.deepEqual(b.first, ['drained:a@x', 'drained:b@x']);
    await waitFor(() => b.known.size === 1 && b.known.has('drained:a@x'), { what: 'what still stands' });
    assert.throws(() => a.kept.restore([[1, 2]]), /no state/);
  }),
);

test(
  'what an operator did while Redis was away holds where the relay is restarted before it is back',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const a = await relay(defer, redis);
    a.set({ subject: 'drained:b@x', value: true, leftMs: undefined });
    await waitFor(() => redis.command('hlen', 'xoauth2-relay:states') === '1', { what: 'it in Redis' });
    redis.command('save');
    await redis.kill();
    a.set({ subject: 'drained:a@x', value: true, leftMs: undefined });
    a.clear('drained:b@x');
    a.set(PAUSE);
    const kept = await waitFor(
      () => {
        const now = JSON.parse(JSON.stringify(a.kept.snapshot()));
        return now.length === 3 && !JSON.stringify(now).includes('false') ? now : undefined;
      },
      { what: 'all three untold' },
    );
    a.die();
    await redis.start();
    redis.command('hset', 'xoauth2-relay:states', PAUSE.subject, `${Date.now() + 60_000} {}`);
    const ended = kept.map((each: unknown[]) =>
      each[0] === PAUSE.subject ? each.toSpliced(2, 1, Date.now() - 1) : each,
    );
    const b = await relay(defer, redis, ended);
    await waitFor(
      () => {
        const stands = redis.command('hkeys', 'xoauth2-relay:states').split('\n');
        return stands.includes('drained:a@x') && !stands.includes('drained:b@x');
      },
      { what: 'both told' },
    );
    await waitFor(() => b.known.has(PAUSE.subject), { what: 'all that stands read' });
    assert.equal(redis.command('hlen', 'xoauth2-relay:states'), '2', 'a pause that has ended ends no other');
    assert.ok(b.known.has('drained:a@x'));
  }),
);

test(
  'a relay whose subscription alone was cut reads what it did not hear',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const a = await relay(defer, redis);
    await waitFor(() => redis.command('pubsub', 'numsub', 'xoauth2-relay:news').endsWith('1'), {
      what: 'a listening',
    });
    redis.command(
      'eval',
      "redis.call('HSET', KEYS[1], 'drained:a@x', '0 true')",
      '1',
      'xoauth2-relay:states',
    );
    redis.command('client', 'kill', 'type', 'pubsub');
    await waitFor(() => a.known.has('drained:a@x'), { what: 'a hearing of it' });
  }),
);

/** One relay whose Redis answers when it is told to: its hash, its epoch, its signs of life are the test's. */
function slowRedis() {
  const hash = new Map<string, string>();
  const asked: (() => void)[] = [];
  const heard: ((epoch: string, hasForgotten: boolean) => void)[] = [];
  let epoch = '1';
  let isBack = (): void => undefined;
  const redis = {
    run: (_script: unknown, keys: readonly string[], words: readonly (string | number)[]) => {
      if (words.length === 3) {
        hash.set(String(words[0]), String(words[1]));
        return Promise.resolve(1);
      }
      return new Promise((resolve) => {
        asked.push(() =>
          resolve(
            keys.length > 1 && words[0] !== epoch
              ? null
              : [...hash].flatMap(([subject, value]) => [subject, 0, value]),
          ),
        );
      });
    },
    publish: () => Promise.resolve(),
    subscribe: () => undefined,
    onAway: () => undefined,
    onGap: (listener: () => void) => {
      isBack = listener;
    },
  } as unknown as RedisConnection;
  const membership = {
    onHeard: (listener: (typeof heard)[number]) => void heard.push(listener),
  } as unknown as Membership;
  const states = createSharedStates({ redis, membership, log: silentLog });
  const over: string[] = [];
  states.onState((subject, state) => {
    if (state === undefined) over.push(subject);
  });
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  };
  return {
    states,
    hash,
    over,
    settle,
    gap: () => isBack(),
    beat(hasForgotten = false) {
      for (const listener of heard) listener(epoch, hasForgotten);
    },
    flush() {
      hash.clear();
      epoch += '+';
    },
    async answer() {
      for (const each of asked.splice(0)) each();
      await settle();
    },
  };
}

test('nothing that stands is over because Redis was emptied again while it was asked', async () => {
  const { states, hash, over, beat, flush, answer, settle } = slowRedis();
  beat();
  await answer();
  for (const id of ['a@x', 'b@x']) states.set({ subject: `drained:${id}`, value: true, leftMs: undefined });
  await settle();
  flush();
  beat(true);
  await settle();
  flush();
  beat(true);
  await settle();
  await answer();
  flush();
  for (let i = 0; i < 4; i++) {
    beat(i === 0);
    await answer();
  }
  assert.deepEqual(over, []);
  assert.deepEqual([...hash.keys()].sort(), ['drained:a@x', 'drained:b@x']);
});

test('nothing that stands is over because another Redis came while it was asked', async () => {
  const { states, hash, over, beat, gap, answer, settle } = slowRedis();
  beat();
  await answer();
  states.set({ subject: 'drained:a@x', value: true, leftMs: undefined });
  await settle();
  gap();
  beat();
  await settle();
  // An older one in its place, which is found by the next sign of life.
  hash.clear();
  gap();
  await answer();
  beat(true);
  await answer();
  assert.deepEqual(over, []);
  assert.deepEqual([...hash.keys()], ['drained:a@x']);
});

test('what is kept for a restart in the moment of a change is not taken for told', async () => {
  const { states, beat, answer, settle } = slowRedis();
  beat();
  await answer();
  const kept = (): unknown => (states.kept.snapshot() as unknown[][]).map(([, , , isUntold]) => isUntold);
  states.set({ subject: 'drained:a@x', value: true, leftMs: undefined });
  assert.deepEqual(kept(), [true]);
  await states.told();
  assert.deepEqual(kept(), [false]);
  await settle();
});
