/**
 * What an account may do now: log in, send, and how much at once. In: verdicts. Out: gates and the
 * state an operator sees. Time is an argument; no timers, no I/O. A pause is probed when its time is
 * up: one login or one message goes ahead, success ends the pause, failure takes the next step.
 */
import type { AccountState } from '../accounts/account.ts';
import { formatReply } from '../protocol/reply.ts';
import type { Pause, Verdict } from '../protocol/verdict.ts';

/** A probe that neither succeeds nor fails (client left) frees its place after this. */
const PROBE_CLAIM_MS = 60_000;
/** Slowed down for this long after the first, second, … complaint in a row. */
const SLOW_STEPS_MS = [30_000, 60_000, 120_000, 300_000];
/** A further complaint within this time takes the next step. */
const SLOW_MEMORY_MS = 10 * 60_000;

interface ActivePause {
  readonly pause: Pause;
  readonly verdict: Verdict;
  readonly step: number;
  until: number;
}

export interface AccountHealth {
  /** Undefined: go ahead (and be the probe where one is due). Else the verdict that stands. */
  gate(scope: Pause['scope'], now: number): Verdict | undefined;
  /** Whether a new login would be let through, without claiming the probe. */
  mayLogIn(now: number): boolean;
  /** Takes what the verdict asks for: pause, slow-down, unreachable. True where the state an operator sees changed. */
  suffered(verdict: Verdict, now: number): boolean;
  /** A login or a message succeeded. True where the state changed. */
  succeeded(scope: Pause['scope'], now: number): boolean;
  /** Messages at once, 1 to `max`. */
  concurrency(max: number, now: number): number;
  state(now: number): AccountState;
  /** The pause there is, whether its time is up or not, without claiming its probe; `until` as `now`. */
  standing(scope: Pause['scope']): { readonly verdict: Verdict; readonly until: number } | undefined;
  /** The operator changed something: try again at once. */
  reset(): void;
}

const standing = ({ class: cls, answer }: Verdict): Verdict => ({
  class: cls,
  answer,
  breaker: 'none',
  renewToken: false,
  retry: 'none',
  slowDown: false,
});

export function createAccountHealth(): AccountHealth {
  const pauses = new Map<Pause['scope'], ActivePause>();
  let unreachable: Verdict | undefined;
  let slow: { divisor: number; step: number; until: number } | undefined;

  const stateOf = (p: ActivePause): AccountState => ({
    status: p.pause.status,
    reason: formatReply(p.verdict.answer),
    until: p.until,
    ...(p.verdict.cause === undefined ? {} : { cause: p.verdict.cause }),
    ...(p.pause.cure === undefined ? {} : { cure: p.pause.cure }),
  });

  return {
    gate(scope, now) {
      const paused = pauses.get(scope);
      if (paused === undefined) return undefined;
      // The verdict stands, but nothing follows from it a second time.
      if (now < paused.until) return standing(paused.verdict);
      paused.until = now + PROBE_CLAIM_MS;
      return undefined;
    },
    mayLogIn(now) {
      const paused = pauses.get('logins');
      return paused === undefined || now >= paused.until;
    },
    suffered(verdict, now) {
      let changed = false;
      if (verdict.slowDown) {
        const again = slow !== undefined && now - slow.until < SLOW_MEMORY_MS;
        const step = again && slow !== undefined ? Math.min(slow.step + 1, SLOW_STEPS_MS.length - 1) : 0;
        const divisor = again && slow !== undefined ? Math.min(slow.divisor * 2, 64) : 2;
        slow = { divisor, step, until: now + (SLOW_STEPS_MS[step] ?? 0) };
      }
      const { pause } = verdict;
      if (pause !== undefined) {
        const before = pauses.get(pause.scope);
        const step = before === undefined ? 0 : Math.min(before.step + 1, pause.stepsMinutes.length - 1);
        const until = now + (pause.stepsMinutes[step] ?? 60) * 60_000;
        pauses.set(pause.scope, { pause, verdict, step, until });
        changed = before?.pause.status !== pause.status;
      } else if (verdict.class === 'provider') {
        changed = unreachable === undefined;
        unreachable = verdict;
      }
      return changed;
    },
    succeeded(scope) {
      const wasUnreachable = unreachable !== undefined;
      unreachable = undefined;
      // A message that went through over a live connection says nothing about logins.
      return pauses.delete(scope) || wasUnreachable;
    },
    concurrency(max, now) {
      if (slow === undefined || now >= slow.until) return max;
      return Math.max(1, Math.floor(max / slow.divisor));
    },
    state(now) {
      const sending = pauses.get('sending');
      const logins = pauses.get('logins');
      if (logins !== undefined && logins.pause.status !== 'throttled') return stateOf(logins);
      if (sending !== undefined) return stateOf(sending);
      if (logins !== undefined) return stateOf(logins);
      if (unreachable !== undefined)
        return {
          status: 'unreachable',
          reason: formatReply(unreachable.answer),
          ...(unreachable.cause === undefined ? {} : { cause: unreachable.cause }),
        };
      if (slow !== undefined && now < slow.until)
        return {
          status: 'throttled',
          reason: 'slowed down after complaints of the provider',
          until: slow.until,
        };
      return { status: 'ready' };
    },
    standing: (scope) => pauses.get(scope),
    reset() {
      pauses.clear();
      unreachable = undefined;
      slow = undefined;
    },
  };
}
