import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createSendLimiter } from '../../src/relay/limits.ts';

const MINUTE = 60_000;
const T0 = 1_800_000_000_000;

test('no minute, wherever it begins, holds more than the limit', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10 }),
      fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 80 }),
      (limit, gaps) => {
        const limiter = createSendLimiter({ messagesPerMinute: limit, messagesPerDay: undefined });
        const sent: number[] = [];
        let now = T0;
        for (const gap of gaps) {
          now += gap;
          const place = limiter.reserve(now, 30_000);
          if (place.granted) {
            assert.ok(place.waitMs <= 30_000);
            sent.push(now + place.waitMs);
          } else assert.ok(place.retryAfterMs > 30_000);
        }
        for (const start of sent)
          assert.ok(sent.filter((t) => t >= start && t < start + MINUTE).length <= limit);
      },
    ),
    { seed: 20261121, numRuns: 500 },
  );
});

test('a place given back is free again', () => {
  const limiter = createSendLimiter({ messagesPerMinute: 1, messagesPerDay: 1 });
  assert.deepEqual(limiter.reserve(T0, 0), { granted: true, waitMs: 0 });
  assert.equal(limiter.reserve(T0, 0).granted, false);
  limiter.giveBack();
  assert.deepEqual(limiter.reserve(T0, 0), { granted: true, waitMs: 0 });
});

test('a day holds no more than its limit and says when the next may go', () => {
  const limiter = createSendLimiter({ messagesPerMinute: undefined, messagesPerDay: 3 });
  for (let i = 0; i < 3; i++) assert.equal(limiter.reserve(T0 + i * MINUTE, 0).granted, true);
  const refused = limiter.reserve(T0 + 5 * MINUTE, 0);
  assert.ok(!refused.granted && refused.limit === 'daily_limit');
  assert.equal(limiter.reserve(T0 + refused.retryAfterMs - MINUTE, 0).granted, false);
  assert.equal(limiter.reserve(T0 + 5 * MINUTE + refused.retryAfterMs, 0).granted, true);
});

test('no limits, no waiting', () => {
  const limiter = createSendLimiter({ messagesPerMinute: undefined, messagesPerDay: undefined });
  for (let i = 0; i < 1000; i++) assert.deepEqual(limiter.reserve(T0, 0), { granted: true, waitMs: 0 });
});
