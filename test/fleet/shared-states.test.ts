// needs: redis-server
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMembership } from '../../src/fleet/membership.ts';
import { createSharedStates, type SharedState, type SharedStates } from '../../src/fleet/shared-states.ts';
import { silentLog } from '../../src/log.ts';
import { createRedisConnection } from '../../src/redis.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Redis, startRedis } from '../support/redis.ts';
import { waitFor } from '../support/wait-for.ts';

const ROW = { version: '0', host: 'h', pid: 1, startedAt: 0, relayed: 0, deferred: 0, rejected: 0, lagMs: 0 };

interface Relay extends SharedStates {
  readonly known: Map<string, SharedState>;
  readonly asked: string[];
  away(): boolean;
}

async function relay(defer: Defer, redis: Redis): Promise<Relay> {
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
  await membership.start();
  defer(async () => {
    await membership.leave();
    connection.close();
  });
  return { ...states, known, asked, away: () => connection.away };
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
  'who was cut off from Redis hears on its return all that stands, and in which epoch',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const a = await relay(defer, redis);
    const heard: { subjects: readonly string[]; epoch: string }[] = [];
    a.onKnown((subjects, epoch) => void heard.push({ subjects: [...subjects], epoch }));
    a.set({ subject: 'drained:a@x', value: true, leftMs: undefined });
    a.set({ subject: 'drained:b@x', value: true, leftMs: undefined });
    const cutOff = async (): Promise<void> => {
      const before = heard.length;
      redis.freeze();
      a.set(PAUSE);
      await waitFor(() => a.away(), { what: 'a finding Redis away' });
      redis.thaw();
      await waitFor(() => heard.length > before, { what: 'a hearing what stands' });
    };
    await cutOff();
    redis.command('hdel', 'xoauth2-relay:states', 'drained:a@x');
    await cutOff();
    const [first, second] = heard.slice(-2);
    assert.ok(first?.subjects.includes('drained:a@x') && first?.subjects.includes('drained:b@x'));
    assert.ok(!second?.subjects.includes('drained:a@x') && second?.subjects.includes('drained:b@x'));
    assert.equal(first?.epoch, second?.epoch);
  }),
);
