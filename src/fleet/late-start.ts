/**
 * A message that goes out long after it was given its place, or has waited for it. In: its place. Out: it counts in the
 * minute in which it begins, by the rule that holds then, or when to come again.
 */
import { type Clock, pause } from '../clock.ts';
import type { Claimed } from '../relay/limits.ts';
import type { AccountBook } from './account-book.ts';
import type { Contact } from './contact.ts';
import type { RedisLimits } from './redis-limits.ts';
import { type Apart, minuteWithinShare } from './share.ts';

export type LateStart = (
  book: AccountBook,
  id: string,
  perMinute: number,
  maxWaitMs: number,
) => Promise<Claimed>;

export function createLateStart(deps: {
  readonly clock: Clock;
  readonly store: Pick<RedisLimits, 'startLate'>;
  readonly contact: Pick<Contact, 'mode' | 'failed'>;
  readonly apart: () => Apart;
}): LateStart {
  const { clock, store, contact } = deps;

  /** 0: it may begin as far as this relay alone can tell. */
  function waitWithinShare(
    { counts }: AccountBook,
    id: string,
    perMinute: number,
    maxWaitMs: number,
  ): number | Extract<Claimed, { granted: false }> {
    const now = clock.monotonic();
    counts.leaveMinute(id);
    return minuteWithinShare(perMinute, maxWaitMs, deps.apart(), {
      atLoss: counts.minuteAtLoss,
      waitFor: (most) => counts.dueWait(most, now),
    });
  }

  return async (book, id, perMinute, maxWaitMs) => {
    const { counts } = book;
    const deadline = clock.monotonic() + maxWaitMs;
    for (;;) {
      const left = Math.max(0, deadline - clock.monotonic());
      const share = contact.mode === 'shared' ? 0 : waitWithinShare(book, id, perMinute, left);
      if (typeof share !== 'number') return share;
      if (share > 0) {
        await pause(clock, Math.min(share, 1_000));
        continue;
      }
      if (contact.mode === 'away') {
        book.isUntold = true;
        counts.move(id, clock.monotonic());
        return { granted: true };
      }
      try {
        const { granted, ms } = await store.startLate(book.id, id, perMinute, left);
        if (!granted) return { granted: false, limit: 'minute', retryAfterMs: ms };
        if (ms === 0) {
          counts.move(id, clock.monotonic());
          return { granted: true };
        }
        // What goes before it may be under way for longer than it seemed: then it is asked again.
        await pause(clock, ms);
      } catch (error) {
        contact.failed(error, () => store.startLate(book.id, id, perMinute, -1));
      }
    }
  };
}
