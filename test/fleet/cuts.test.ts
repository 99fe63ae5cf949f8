// needs: redis-server
/** Connections to Redis that are cut, by a proxy, a failover, an operator, while Redis itself goes on; one that pauses. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createRedisLimits } from '../../src/fleet/redis-limits.ts';
import type { RedisConnection } from '../../src/redis.ts';
import type { Place } from '../../src/relay/limits.ts';
import { leakless } from '../support/leak-check.ts';
import { waitFor } from '../support/wait-for.ts';
import { limits, pair, type Relay, settled, threeRelays } from './stage.ts';

/** Shorter than relays wait for others of which Redis knows nothing any more, ms. */
const HOLD_MS = 4_000;

/** More a minute than are sent here. */
const wanted = limits({ perMinute: 100 });

const place = async (by: Relay): Promise<Place> => {
  const result = await by.limits.reserve('a', wanted, HOLD_MS);
  assert.ok(result.granted, JSON.stringify(result));
  return result.place;
};
const over = { unsent: false, recipients: 1 };

test(
  'connections are cut again and again: mail flows by every relay, never more at once than allowed',
  leakless(async (_t, defer) => {
    const { redis, relays } = await threeRelays(defer);
    let at = 0;
    let most = 0;
    for (let cut = 0; cut < 6; cut++) {
      redis.command('client', 'kill', 'type', 'normal');
      await Promise.all(
        [...relays, ...relays].map(async (by) => {
          const got = await place(by);
          most = Math.max(most, ++at);
          await delay(50);
          at--;
          got.end(over);
        }),
      );
    }
    assert.ok(most <= wanted().atOnce, `${most} at once`);
  }),
);

test(
  'what one relay holds while the connections are cut is its own for the others',
  leakless(async (_t, defer) => {
    const { redis, relays, a, b } = await pair(defer);
    const held = await Promise.all(Array.from({ length: wanted().atOnce }, () => place(a)));
    for (const each of held) assert.equal(each.claim?.(0), undefined);
    for (let cut = 0; cut < 3; cut++) {
      redis.command('client', 'kill', 'type', 'normal');
      assert.equal((await b.limits.reserve('a', wanted, 1_000)).granted, false);
    }
    await settled(relays);
    assert.equal((await b.limits.reserve('a', wanted, 0)).granted, false);
    for (const each of held) each.end(over);
    (await place(b)).end(over);
  }),
);

test(
  'a message that comes just after Redis was lost waits for it, where of the minute nothing is left for a relay alone',
  leakless(async (_t, defer) => {
    const { redis, a } = await pair(defer);
    const held = await place(a);
    assert.equal(held.claim?.(0), undefined);
    redis.freeze();
    await waitFor(() => a.limits.isApart, { what: 'the loss' });
    redis.thaw();
    held.end(over);
    const next = await a.limits.reserve('a', wanted, 15_000);
    assert.ok(next.granted, JSON.stringify(next));
    next.place.end(over);
  }),
);

test('a place that Redis may have given while nobody heard of it is told as soon as Redis is found again', async () => {
  const redis = { instance: 'r', run: () => Promise.reject(new Error('cut')) } as unknown as RedisConnection;
  const store = createRedisLimits({ redis });
  const untold: string[] = [];
  store.onUntold((mailbox) => untold.push(mailbox));
  const asked = store.reserve('a', wanted(), { id: 'r:1', maxWaitMs: 0, epoch: '', queues: 'never' });
  await assert.rejects(asked, /cut/);
  assert.deepEqual(untold, ['a']);
});
