/**
 * How many messages an account may send: a sliding minute and a sliding day. Pure: the time is an
 * argument. A place is reserved when MAIL comes and given back if nothing was sent.
 */

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** The day slides in steps of this: 96 numbers an account instead of one per message. */
const BUCKET_MS = 15 * MINUTE_MS;
const BUCKETS = DAY_MS / BUCKET_MS;

export type Reservation =
  | { readonly granted: true /** Wait this long before sending, ms. */; readonly waitMs: number }
  | {
      readonly granted: false;
      readonly limit: 'rate_limited' | 'daily_limit';
      readonly retryAfterMs: number;
    };

export interface SendLimiter {
  /** Reserves a place at `now` or at most `maxWaitMs` later, in order of asking. */
  reserve(now: number, maxWaitMs: number): Reservation;
  /** Gives back the place reserved last. */
  giveBack(): void;
}

export function createSendLimiter(limits: {
  readonly messagesPerMinute: number | undefined;
  readonly messagesPerDay: number | undefined;
}): SendLimiter {
  const { messagesPerMinute, messagesPerDay } = limits;
  /** Times of the last `messagesPerMinute` places, a ring; the next place overwrites the oldest. */
  const slots =
    messagesPerMinute === undefined ? undefined : new Float64Array(messagesPerMinute).fill(-MINUTE_MS);
  let next = 0;
  let lastBucket = 0;
  let today = 0;
  const buckets = messagesPerDay === undefined ? undefined : new Float64Array(BUCKETS);

  function slideDay(now: number): void {
    if (buckets === undefined) return;
    const bucket = Math.floor(now / BUCKET_MS);
    const steps = Math.min(bucket - lastBucket, BUCKETS);
    for (let i = 1; i <= steps; i++) {
      const at = (lastBucket + i) % BUCKETS;
      today -= buckets[at] ?? 0;
      buckets[at] = 0;
    }
    if (steps > 0) lastBucket = bucket;
  }

  return {
    reserve(now, maxWaitMs) {
      slideDay(now);
      if (buckets !== undefined && messagesPerDay !== undefined && today >= messagesPerDay) {
        const oldest = Array.from({ length: BUCKETS }, (_, i) => lastBucket + 1 + i).find(
          (b) => (buckets[b % BUCKETS] ?? 0) > 0,
        );
        const freeAt = oldest === undefined ? now + BUCKET_MS : oldest * BUCKET_MS;
        return { granted: false, limit: 'daily_limit', retryAfterMs: Math.max(1_000, freeAt - now) };
      }
      let waitMs = 0;
      if (slots !== undefined) {
        const at = Math.max(now, (slots[next] ?? 0) + MINUTE_MS);
        waitMs = at - now;
        if (waitMs > maxWaitMs) return { granted: false, limit: 'rate_limited', retryAfterMs: waitMs };
        slots[next] = at;
        next = (next + 1) % slots.length;
      }
      if (buckets !== undefined) {
        const at = lastBucket % BUCKETS;
        buckets[at] = (buckets[at] ?? 0) + 1;
        today++;
      }
      return { granted: true, waitMs };
    },
    giveBack() {
      if (slots !== undefined) {
        next = (next + slots.length - 1) % slots.length;
        slots[next] = -MINUTE_MS;
      }
      if (buckets !== undefined && today > 0) {
        const at = lastBucket % BUCKETS;
        if ((buckets[at] ?? 0) > 0) {
          buckets[at] = (buckets[at] ?? 0) - 1;
          today--;
        }
      }
    },
  };
}
