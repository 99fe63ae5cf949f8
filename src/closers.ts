/**
 * What has been opened, to be closed in reverse. In: closers, as rooms open. Out: all of them closed within a
 * time. A closer that fails or is slow keeps no other from its turn.
 */
import { type Clock, orAfter, systemClock } from './clock.ts';
import type { Log } from './log.ts';

export interface Closer {
  /** `endsAt`: monotonic ms. */
  close(endsAt: number): Promise<void> | void;
  /** Says himself how long he takes: he is waited for. */
  readonly isBounded?: boolean;
}

export interface Closers {
  push(closer: Closer): void;
  /** After `endsAt` (monotonic) nobody is waited for who is not bounded. Rejects, when all are closed, with the last error that is a loss. */
  closeAll(endsAt?: number): Promise<void>;
}

/** Of the stop deadline, what is kept for the goodbyes: 421 to clients, QUIT upstream. */
export const CLOSING_MS = 750;
/** What a QUIT and its answer take at the least. */
const LAST_WORD_MS = 250;

/** `isLoss`: whether an error must be told to whoever closes; others are only logged. */
export function createClosers(
  log: Log,
  isLoss: (error: unknown) => boolean,
  clock: Clock = systemClock,
): Closers {
  const closers: Closer[] = [];
  return {
    push: (closer) => void closers.push(closer),
    async closeAll(endsAt = clock.monotonic() + CLOSING_MS) {
      let loss: unknown;
      for (const { close, isBounded } of closers.splice(0).reverse()) {
        try {
          const closed = Promise.resolve(close(endsAt));
          await (isBounded
            ? closed
            : orAfter(clock, closed, Math.max(endsAt - clock.monotonic(), LAST_WORD_MS)));
        } catch (error) {
          if (isLoss(error)) loss = error;
          else log.error({ event: 'close_failed', reason: String(error) }, 'closing failed');
        }
      }
      if (loss !== undefined) throw loss;
    },
  };
}
