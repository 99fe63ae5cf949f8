/** Keeps the logins of each mailbox apart. In: mailbox and interval. Out: how long to wait. */
import type { Clock } from '../clock.ts';

export interface LoginPacer {
  /** How long a login must wait to keep its distance, ms; undefined where that is longer than `maxWaitMs` (no place is taken then). Never rejects. */
  login(
    mailbox: string,
    intervalMs: number,
    maxWaitMs: number,
  ): number | undefined | Promise<number | undefined>;
}

/** Within this process. */
export function createLoginPacer(clock: Clock): LoginPacer & {
  /** Forgets what keeps nobody waiting any more. */
  tidy(): void;
} {
  const nextAt = new Map<string, number>();
  return {
    login(mailbox, intervalMs, maxWaitMs) {
      const now = clock.monotonic();
      const at = Math.max(now, nextAt.get(mailbox) ?? now);
      if (at - now > maxWaitMs) return undefined;
      nextAt.set(mailbox, at + intervalMs);
      return at - now;
    },
    tidy() {
      const now = clock.monotonic();
      for (const [mailbox, at] of nextAt) if (at <= now) nextAt.delete(mailbox);
    },
  };
}
