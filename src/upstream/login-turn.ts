/**
 * One account's turns among the logins of its mailbox. In: when somebody wants to log in. Out: his turn, once it has
 * come. Owns a turn that was taken and not used: the next login takes it.
 */
import { type Clock, nap } from '../clock.ts';
import { UpstreamError } from './failure.ts';
import type { LoginPacer } from './login-pacer.ts';

export interface LoginTurn {
  /** There was no login. */
  giveBack(): void;
}

export interface LoginTurnDeps {
  readonly logins: LoginPacer;
  readonly mailbox: string;
  readonly clock: Clock;
  /** Ends every wait. */
  readonly signal: AbortSignal;
  /** Between two logins, ms; 0: they need no turns. */
  readonly intervalMs: () => number;
  readonly maxWaitMs: number;
}

/** Takes a turn and waits for it, or for the end. Rejects with `UpstreamError` where it is too far away. */
export function createLoginTurns(deps: LoginTurnDeps): () => Promise<LoginTurn> {
  const { logins, mailbox, clock, signal, intervalMs, maxWaitMs } = deps;
  /** Until when the turn that was given back keeps the others of the mailbox away, monotonic ms. */
  let unusedUntil = Number.NEGATIVE_INFINITY;
  const turnUntil = (until: number): LoginTurn => ({
    giveBack() {
      unusedUntil = until;
    },
  });

  return async () => {
    if (clock.monotonic() < unusedUntil || intervalMs() === 0) {
      const turn = turnUntil(unusedUntil);
      unusedUntil = Number.NEGATIVE_INFINITY;
      return turn;
    }
    const waitMs = await logins.login(mailbox, intervalMs(), maxWaitMs);
    if (waitMs === undefined) throw new UpstreamError({ kind: 'local', cause: 'acquire_timeout' });
    if (waitMs > 0) await nap(clock, waitMs, signal).over;
    return turnUntil(clock.monotonic() + intervalMs());
  };
}
