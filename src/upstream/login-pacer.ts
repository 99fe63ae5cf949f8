/** Keeps the logins of each account apart. In: account and interval. Out: how long to wait. */
import type { Clock } from '../clock.ts';

export interface LoginPacer {
  /** How long a login must wait to keep its distance, ms; undefined where that is longer than `maxWaitMs` (no place is taken then). Never rejects. */
  login(
    accountId: string,
    intervalMs: number,
    maxWaitMs: number,
  ): number | undefined | Promise<number | undefined>;
}

/** Within this process. */
export function createLoginPacer(
  clock: Clock,
): LoginPacer & { keepOnly(accountIds: Pick<ReadonlySet<string>, 'has'>): void } {
  const nextAt = new Map<string, number>();
  return {
    login(accountId, intervalMs, maxWaitMs) {
      const now = clock.monotonic();
      const at = Math.max(now, nextAt.get(accountId) ?? now);
      if (at - now > maxWaitMs) return undefined;
      nextAt.set(accountId, at + intervalMs);
      return at - now;
    },
    keepOnly(accountIds) {
      for (const id of nextAt.keys()) if (!accountIds.has(id)) nextAt.delete(id);
    },
  };
}
