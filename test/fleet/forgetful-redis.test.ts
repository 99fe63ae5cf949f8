// needs: redis-server
/** Redis has forgotten something, or a relay has: what was sent counts all the same, and once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shareOf } from '../../src/fleet/share.ts';
import { leakless } from '../support/leak-check.ts';
import type { Redis } from '../support/redis.ts';
import { waitFor } from '../support/wait-for.ts';
import { limits, pair, type Relay, redisFor, relay, settled } from './stage.ts';

const FIVE = limits({ perMinute: 5, perDay: 100, recipientsPerDay: 1_000 });

async function send({ limits: shared }: Relay, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const result = await shared.reserve('a', FIVE, 0);
    assert.ok(result.granted, `message ${i}: ${JSON.stringify(result)}`);
    result.place.end({ unsent: false, recipients: 2 });
  }
}

/** Messages and recipients of the day. */
function dayOf(redis: Redis): readonly number[] {
  const words = redis.command('hgetall', 'xoauth2-relay:day:a').split('\n');
  const sums = { m: 0, r: 0 };
  for (let i = 0; i + 1 < words.length; i += 2)
    sums[words[i]?.charAt(0) as 'm' | 'r'] += Number(words[i + 1]);
  return [sums.m, sums.r];
}

const counts = (redis: Redis, ...wanted: readonly number[]): Promise<unknown> =>
  waitFor(() => dayOf(redis).join() === wanted.join(), { what: `${wanted} of the day` });

async function isFull({ limits: shared }: Relay): Promise<boolean> {
  const result = await shared.reserve('a', FIVE, 0);
  if (result.granted) result.place.end({ unsent: true, recipients: 0 });
  return !result.granted && result.limit === 'minute';
}

async function restart(redis: Redis, relays: readonly Relay[]): Promise<void> {
  await redis.kill();
  await waitFor(() => relays.every((r) => r.limits.isApart), { what: 'Redis being missed' });
  await redis.start();
  await settled(relays);
}

test(
  'Redis comes back with older data: minute and day hold what was sent since, however often that happens',
  leakless(async (_t, defer) => {
    const { redis, relays, a, b } = await pair(defer);
    await send(a, 1);
    await send(b, 1);
    await counts(redis, 2, 4);
    redis.command('save');
    await send(a, 2);
    await send(b, 1);
    await counts(redis, 5, 10);
    for (let i = 0; i < 2; i++) {
      await restart(redis, relays);
      assert.ok((await isFull(a)) && (await isFull(b)));
      await counts(redis, 5, 10);
    }
    redis.command('flushall');
    await counts(redis, 5, 10);
    await settled(relays);
    assert.ok((await isFull(a)) && (await isFull(b)));
  }),
);

test(
  'what was sent while Redis was away counts when it is back, once, and so after another loss',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const a = await relay(defer, redis);
    await settled([a]);
    await send(a, 2);
    await counts(redis, 2, 4);
    redis.command('save');
    await redis.kill();
    await waitFor(() => a.limits.isApart, { what: 'Redis being missed' });
    await send(a, 3);
    await redis.start();
    await settled([a]);
    await counts(redis, 5, 10);
    assert.ok(await isFull(a));
    await restart(redis, [a]);
    await counts(redis, 5, 10);
    assert.ok(await isFull(a));
  }),
);

test(
  'a relay that starts while Redis is away believes what it kept; Redis hears of it what it does not know',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const before = await relay(defer, redis);
    await settled([before]);
    await send(before, 2);
    await counts(redis, 2, 4);
    redis.command('save');
    await redis.kill();
    await waitFor(() => before.limits.isApart, { what: 'Redis being missed' });
    await send(before, 2);
    const keptBy = (of: Relay) =>
      JSON.parse(JSON.stringify({ life: of.membership.kept.snapshot(), counts: of.limits.kept.snapshot() }));
    const kept = keptBy(before);
    before.die();
    const after = await relay(defer, redis, 'share', { kept });
    await send(after, 1);
    assert.ok(await isFull(after), 'without Redis');
    const third = await relay(defer, redis, 'share', { kept: keptBy(after) });
    after.die();
    await redis.start();
    await settled([third]);
    await counts(redis, 5, 10);
    assert.ok(await isFull(third), 'with Redis');
    const other = await relay(defer, redis);
    await settled([other, third]);
    assert.ok(await isFull(other), 'at another relay');
  }),
);

test(
  'a relay that starts while Redis is there leaves it to Redis what counts',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const before = await relay(defer, redis);
    await settled([before]);
    await send(before, 4);
    await counts(redis, 4, 8);
    const kept = { life: before.membership.kept.snapshot(), counts: before.limits.kept.snapshot() };
    await before.leave();
    const after = await relay(defer, redis, 'share', { kept });
    await settled([after]);
    await counts(redis, 4, 8);
    await send(after, 1);
    assert.ok(await isFull(after));
  }),
);

test(
  'a relay that starts while Redis is away reckons with the relays that were there before',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const relays = await Promise.all([1, 2, 3].map(() => relay(defer, redis)));
    await waitFor(() => relays.every((r) => r.membership.relays === 3), { what: 'all of them seen' });
    await settled(relays);
    const [first] = relays;
    assert.ok(first);
    const kept = JSON.parse(
      JSON.stringify({ life: first.membership.kept.snapshot(), counts: first.limits.kept.snapshot() }),
    );
    await redis.kill();
    first.die();
    const again = await relay(defer, redis, 'share', { kept });
    const { relays: seen, rank } = again.membership;
    assert.deepEqual([seen, shareOf(9, seen, rank)], [3, 3]);
  }),
);

test(
  'Redis forgets what a relay sent that cannot tell it again: the others do not send in its place',
  leakless(async (_t, defer) => {
    const { redis, a, b } = await pair(defer);
    await send(a, 5);
    await counts(redis, 5, 10);
    a.die();
    redis.command('flushall');
    await waitFor(() => b.limits.isApart, { what: 'the loss being found' });
    // Longer than the relays have time to tell what they know.
    assert.equal((await b.limits.reserve('a', FIVE, 8_000)).granted, false);
    // Whoever comes in its place has nothing more to tell.
    const c = await relay(defer, redis);
    await settled([b, c]);
  }),
);
