/** Keeps the logins of each mailbox apart. In: mailbox and interval. Out: whose turn is when. */
import type { Clock } from '../clock.ts';

/** Between two logins that serve no message, so that a provider does not lock the account; a client waits this long at MAIL. */
const IN_TROUBLE_MS = { first: 1_000, most: 10_000 };

/** Least time between two logins of an account that was in trouble so many `times` in a row, ms. */
export const intervalInTrouble = (times: number): number =>
  times === 0 ? 0 : Math.min(IN_TROUBLE_MS.most, IN_TROUBLE_MS.first * 2 ** (times - 1));

/** The turn of one login. */
export interface LoginTurn {
  readonly waitMs: number;
  /** There was no login: nobody keeps a distance from it, except who has taken a turn behind it already. */
  giveBack?(): void;
}

export interface LoginPacer {
  /** The next turn; undefined where that is later than in `maxWaitMs` (none is taken then). Never rejects. */
  login(
    mailbox: string,
    intervalMs: number,
    maxWaitMs: number,
  ): LoginTurn | undefined | Promise<LoginTurn | undefined>;
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
      const next = at + intervalMs;
      nextAt.set(mailbox, next);
      return {
        waitMs: at - now,
        giveBack() {
          if (nextAt.get(mailbox) === next) nextAt.delete(mailbox);
        },
      };
    },
    tidy() {
      const now = clock.monotonic();
      for (const [mailbox, at] of nextAt) if (at <= now) nextAt.delete(mailbox);
    },
  };
}
