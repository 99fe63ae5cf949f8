/**
 * Which accounts send. In: the account of each message. Out: whether an account has been idle for so long that
 * nothing is made ready ahead of its mail. A start counts as a message of every account.
 */
import { type Clock, systemClock } from './clock.ts';

export interface Activity {
  /** The account sends, or is new. */
  note(accountId: string): void;
  isIdle(accountId: string): boolean;
  /** Hears of an idle account that sends again. */
  onWake(listener: (accountId: string) => void): void;
  /** Forgets accounts that are gone. */
  keepOnly(accountIds: Pick<ReadonlySet<string>, 'has'>): void;
}

/** `idleAfterMs`: 0 for never. */
export function createActivity(idleAfterMs: number, clock: Pick<Clock, 'monotonic'> = systemClock): Activity {
  const startedAt = clock.monotonic();
  /** Of those that have sent, monotonic ms. */
  const lastAt = new Map<string, number>();
  const listeners: ((accountId: string) => void)[] = [];
  const isIdle = (accountId: string): boolean =>
    idleAfterMs > 0 && clock.monotonic() - (lastAt.get(accountId) ?? startedAt) > idleAfterMs;
  return {
    note(accountId) {
      if (idleAfterMs === 0) return;
      const wasIdle = isIdle(accountId);
      lastAt.set(accountId, clock.monotonic());
      if (wasIdle) for (const wake of listeners) wake(accountId);
    },
    isIdle,
    onWake: (listener) => void listeners.push(listener),
    keepOnly(accountIds) {
      for (const id of lastAt.keys()) if (!accountIds.has(id)) lastAt.delete(id);
    },
  };
}
