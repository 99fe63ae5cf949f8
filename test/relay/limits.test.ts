import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createLimiter, type LocalLimiter, type Reservation } from '../../src/relay/limits.ts';
import type { MailboxLimits } from '../../src/relay/mailbox-counts.ts';
import { createTestClock, type TestClock } from '../support/clock.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

const limits = (more: Partial<MailboxLimits>): MailboxLimits => ({
  atOnce: 3,
  perMinute: undefined,
  perDay: undefined,
  recipientsPerDay: undefined,
  ...more,
});

function stage(clock: TestClock = createTestClock()) {
  const limiter = createLimiter(clock);
  const ask = (of: MailboxLimits, maxWaitMs = 0, on: LocalLimiter = limiter): Reservation => {
    const result = on.reserve('a', () => of, maxWaitMs);
    assert.ok(!(result instanceof Promise));
    return result;
  };
  const send = (of: MailboxLimits, recipients = 1): boolean => {
    const result = ask(of);
    if (result.granted) result.place.end({ unsent: false, recipients });
    return result.granted;
  };
  return { clock, limiter, ask, send };
}

test('no minute, wherever it begins, holds more than the limit, also when the wall clock steps', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10 }),
      fc.array(fc.tuple(fc.integer({ min: 0, max: 20_000 }), fc.integer({ min: -HOUR, max: HOUR })), {
        maxLength: 80,
      }),
      (most, gaps) => {
        const { clock, ask } = stage();
        const sent: number[] = [];
        for (const [gap, step] of gaps) {
          clock.advance(gap);
          clock.step(step);
          const result = ask(limits({ perMinute: most }), 30_000);
          if (result.granted) {
            assert.ok(result.place.waitMs <= 30_000);
            sent.push(clock.monotonic() + result.place.waitMs);
          } else assert.ok(result.retryAfterMs > 30_000 && result.retryAfterMs < MINUTE + 31_000);
        }
        for (const start of sent)
          assert.ok(sent.filter((t) => t >= start && t < start + MINUTE).length <= most);
      },
    ),
    { seed: 20261121, numRuns: 500 },
  );
});

test('a place whose message was not sent is free again, whichever of several it was', () => {
  const { ask } = stage();
  const two = limits({ perMinute: 2, perDay: 2 });
  const [first, second] = [ask(two), ask(two)];
  assert.ok(first.granted && second.granted);
  assert.equal(ask(two).granted, false);
  first.place.end({ unsent: true, recipients: 0 });
  first.place.end({ unsent: true, recipients: 0 });
  second.place.end({ unsent: false, recipients: 1 });
  assert.equal(ask(two).granted, true);
  assert.equal(ask(two).granted, false, 'ending twice gives nothing back twice');
});

test('a day holds no more than its limit and says when the next may go', () => {
  const { clock, ask, send } = stage();
  const three = limits({ perDay: 3 });
  for (let i = 0; i < 3; i++) {
    assert.ok(send(three));
    clock.advance(MINUTE);
  }
  const refused = ask(three);
  assert.ok(!refused.granted && refused.limit === 'day');
  assert.ok(refused.retryAfterMs > 23 * HOUR && refused.retryAfterMs <= 24 * HOUR);
  clock.advance(refused.retryAfterMs);
  assert.ok(send(three));
});

test('recipients of a day count as the provider took them', () => {
  const { clock, ask, send } = stage();
  const ten = limits({ recipientsPerDay: 10 });
  assert.ok(send(ten, 9));
  assert.ok(send(ten, 1));
  const refused = ask(ten);
  assert.ok(!refused.granted && refused.limit === 'day');
  clock.advance(25 * HOUR);
  assert.ok(send(ten, 1));
});

test('a reload forgets nothing of a minute or a day, also of an account that is taken out and put back', () => {
  const clock = createTestClock();
  const { limiter, send } = stage(clock);
  assert.ok(send(limits({ perMinute: 1 })));
  limiter.keepOnly(new Set(['a']));
  assert.ok(!send(limits({ perMinute: 1 })), 'another object of limits, the same account');
  limiter.keepOnly(new Set());
  assert.ok(!send(limits({ perMinute: 1 })), 'gone for a moment');
  clock.advance(61_000);
  limiter.keepOnly(new Set());
  assert.ok(send(limits({ perMinute: 1 })));
});

test('what was used is known to the next process', () => {
  const clock = createTestClock();
  const { limiter, ask, send } = stage(clock);
  const some = limits({ perMinute: 2, perDay: 3, recipientsPerDay: 100 });
  for (let i = 0; i < 2; i++) assert.ok(send(some, 40));
  const kept = JSON.parse(JSON.stringify(limiter.snapshot()));
  clock.advance(10_000);
  const next = createLimiter(clock);
  next.restore(kept);
  const refused = ask(some, 0, next);
  assert.ok(!refused.granted && refused.limit === 'minute' && Math.abs(refused.retryAfterMs - 50_000) < 500);
  clock.advance(refused.retryAfterMs);
  const third = ask(some, 0, next);
  assert.ok(third.granted);
  third.place.end({ unsent: false, recipients: 20 });
  clock.advance(MINUTE);
  const fourth = ask(some, 0, next);
  assert.ok(!fourth.granted && fourth.limit === 'day');
});

test('no limits, no waiting', () => {
  const { send } = stage();
  for (let i = 0; i < 1000; i++) assert.ok(send(limits({})));
});

test('nor does it when clients take their time between MAIL and the message, or messages take long: by their beginnings and by their ends', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 6 }),
      fc.array(
        fc.record({
          gapMs: fc.integer({ min: 0, max: 20_000 }),
          dawdleMs: fc.oneof(fc.integer({ min: 0, max: 150 }), fc.integer({ min: 0, max: 150_000 })),
          tookMs: fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 90_000 })),
        }),
        { maxLength: 40 },
      ),
      async (most, clients) => {
        const { clock, ask } = stage();
        const begun: number[] = [];
        const ended: number[] = [];
        const refused: number[] = [];
        let at = 0;
        for (const { gapMs, dawdleMs, tookMs } of clients) {
          at += gapMs;
          clock.after(at, () => {
            const result = ask(limits({ perMinute: most }), 30_000);
            if (!result.granted) return;
            const { place } = result;
            function goesOut(): void {
              begun.push(clock.monotonic());
              clock.after(tookMs, () => {
                ended.push(clock.monotonic());
                place.end({ unsent: false, recipients: 1 });
              });
            }
            clock.after(place.waitMs + dawdleMs, () => {
              const claim = place.claim?.(30_000);
              if (claim === undefined) goesOut();
              else
                void claim.then((claimed) => {
                  if (claimed.granted) return goesOut();
                  refused.push(claimed.retryAfterMs);
                  place.end({ unsent: true, recipients: 0 });
                });
            });
          });
        }
        for (let ms = 0; ms < at + 400_000; ms += 500) {
          clock.advance(500);
          await Promise.resolve();
          await Promise.resolve();
        }
        for (const times of [begun, ended])
          for (const start of times)
            assert.ok(times.filter((t) => t >= start && t < start + MINUTE).length <= most);
        for (const retryAfterMs of refused) assert.ok(retryAfterMs > 0 && retryAfterMs < MINUTE + 1_000);
      },
    ),
    { seed: 20261125, numRuns: 300 },
  );
});
