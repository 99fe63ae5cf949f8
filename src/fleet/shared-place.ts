/**
 * A message's place in the limits that relays share: its place at once, which is lent to others while its client
 * dawdles, and its place in the minute, which counts when the message begins. In: what Redis granted. Out: a `Place`.
 */
import type { Clock } from '../clock.ts';
import type { Claimed, Place, Reservation } from '../relay/limits.ts';
import { PROMPT_MS } from '../relay/mailbox-counts.ts';

export interface SharedPlaceDeps {
  readonly clock: Clock;
  /** False where its place at once was lent on meanwhile. */
  readonly keepLease: () => boolean;
  /** Another place at once. */
  readonly takeBack: (maxWaitMs: number) => Promise<Reservation>;
  /** Whether a place of long ago does not stand for now: there is a minute, and Redis counts it. */
  readonly countsAnew: () => boolean;
  /** Counts it in the minute in which it begins, and waits for that. */
  readonly startLate: (maxWaitMs: number) => Promise<Claimed>;
  /** It begins in its place in the minute. */
  readonly onBegin: () => void;
  readonly onEnd: Place['end'];
}

/** `waitMs`: until its place, ms. */
export function createSharedPlace(deps: SharedPlaceDeps, waitMs: number): Place {
  const { clock } = deps;
  const placedAt = clock.monotonic() + waitMs;
  let isOver = false;
  let isBegun = false;
  /** Its place at once: nobody's yet, its own, or lent to others. */
  let lease: 'unclaimed' | 'sure' | 'lent' = 'unclaimed';
  let again: Place | undefined;

  // A place that was waited for stood for when another message was expected to be over.
  const isLate = (): boolean => deps.countsAnew() && (waitMs > 0 || clock.monotonic() - placedAt > PROMPT_MS);

  async function begin(maxWaitMs: number): Promise<Claimed> {
    const since = clock.monotonic();
    if (lease === 'lent') {
      const result = await deps.takeBack(maxWaitMs);
      if (!result.granted) return result;
      lease = 'sure';
      again = result.place;
      again.claim?.(0);
      if (isOver) again.end({ unsent: false, recipients: 0 });
    }
    if (isLate()) {
      const started = await deps.startLate(Math.max(0, maxWaitMs - (clock.monotonic() - since)));
      if (!started.granted) return started;
    } else deps.onBegin();
    isBegun = true;
    return { granted: true };
  }

  return {
    waitMs,
    claim(maxWaitMs) {
      if (isBegun || isOver) return undefined;
      if (lease === 'unclaimed') lease = deps.keepLease() ? 'sure' : 'lent';
      if (lease === 'lent' || isLate()) return begin(maxWaitMs);
      isBegun = true;
      deps.onBegin();
      return undefined;
    },
    end(result) {
      if (isOver) return;
      isOver = true;
      again?.end({ unsent: false, recipients: 0 });
      deps.onEnd(result);
    },
  };
}
