/** A message goes out long after its place while Redis is away: it counts when it goes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { Membership } from '../../src/fleet/membership.ts';
import { createSharedLimits } from '../../src/fleet/shared-limits.ts';
import { silentLog } from '../../src/log.ts';
import { type RedisConnection, RedisUnavailable } from '../../src/redis.ts';
import { createTestClock } from '../support/clock.ts';

/** Relays that have no Redis, `relays` of them. */
function apart(relays: number) {
  const clock = createTestClock();
  const gone = (): Promise<never> => Promise.reject(new RedisUnavailable('gone'));
  const redis = { instance: 'me', run: gone, ask: gone, subscribe() {}, onAway() {}, onGap() {} };
  const membership = { relays, rank: 0, hasTold: false, onHeard() {}, onRefused() {} };
  const limits = createSharedLimits({
    redis: redis as unknown as RedisConnection,
    membership: membership as unknown as Membership,
    log: silentLog,
    clock,
    random: () => 0.5,
  });
  return { clock, limits };
}

for (const relays of [1, 2])
  test(`clients that dawdle over the end of a minute take their places of the next, ${relays} relays without Redis`, async () => {
    const { clock, limits } = apart(relays);
    const most = () => ({
      atOnce: 10,
      perMinute: 2 * relays,
      perDay: undefined,
      recipientsPerDay: undefined,
    });
    // So long nothing is known of what the others sent.
    clock.advance(80_000);
    const slow = [await limits.reserve('a', most, 0), await limits.reserve('a', most, 0)];
    clock.advance(59_500);
    for (const result of slow) {
      assert.ok(result.granted);
      assert.equal((await result.place.claim?.(1_000))?.granted, true);
    }
    clock.advance(1_000);
    const next = await limits.reserve('a', most, 0);
    assert.ok(!next.granted && next.limit === 'minute', 'two went a second ago');
    for (const result of slow) if (result.granted) result.place.end({ unsent: false, recipients: 1 });
    await limits.close();
  });

test('a client that comes when the minute is full waits for room, or hears when', async () => {
  const { clock, limits } = apart(1);
  const most = () => ({ atOnce: 10, perMinute: 2, perDay: undefined, recipientsPerDay: undefined });
  clock.advance(80_000);
  const slow = await limits.reserve('a', most, 0);
  clock.advance(61_000);
  const quick = [await limits.reserve('a', most, 0), await limits.reserve('a', most, 0)];
  for (const result of quick) assert.ok(result.granted && result.place.claim?.(0) === undefined);
  assert.ok(slow.granted);
  for (const result of quick) if (result.granted) result.place.end({ unsent: false, recipients: 1 });
  const refused = await slow.place.claim?.(5_000);
  assert.ok(refused?.granted === false && refused.limit === 'minute' && refused.retryAfterMs > 50_000);
  let isThere = false;
  const waiting = slow.place.claim?.(70_000)?.then((claimed) => {
    isThere = claimed.granted;
  });
  for (let second = 0; second < 59; second++) {
    clock.advance(1_000);
    await setImmediate();
  }
  assert.equal(isThere, false);
  for (let second = 0; second < 3; second++) {
    clock.advance(1_000);
    await setImmediate();
  }
  await waiting;
  assert.equal(isThere, true);
  await limits.close();
});
