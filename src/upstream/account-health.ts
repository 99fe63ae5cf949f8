/**
 * What an account may do now: log in, send, and how much at once. In: verdicts. Out: gates and the
 * state an operator sees. No timers, no I/O. A pause is probed when its time is up: one login or one
 * message goes ahead, success ends the pause, its failure takes the next step; what fails beside it, or because an
 * operator asked, does not. Times are monotonic inside and wall time where they are told.
 */
import type { AccountState } from '../accounts/account.ts';
import { type Clock, systemClock } from '../clock.ts';
import { formatReply } from '../protocol/reply.ts';
import { type Pause, type Verdict, verdict } from '../protocol/verdict.ts';

/** A probe that neither succeeds nor fails (client left) frees its place after this. */
const PROBE_CLAIM_MS = 60_000;
/** Half as much at once for this long after the first, second, … complaint; then it grows with every success. */
const SLOW_STEPS_MS = [5_000, 10_000, 20_000, 40_000, 60_000];
/** What several messages hear within this time is one complaint: they were under way together. */
const SAME_COMPLAINT_MS = 5_000;
/** Without a complaint for this long after a slow time the next is a first one again, and nothing is slow any more. */
const SLOW_MEMORY_MS = 60_000;

type Scope = Pause['scope'];

interface ActivePause {
  readonly pause: Pause;
  readonly verdict: Verdict;
  readonly step: number;
  until: number;
  /** Whose failure it is that comes next: of what was under way when the pause began, of its probe, of the one an operator asked for. */
  next: 'late' | 'probe' | 'asked';
}

/** Messages at once after complaints. */
interface Slow {
  allowed: number;
  readonly step: number;
  readonly complainedAt: number;
  /** From then on it grows. */
  readonly until: number;
}

/** A pause as it is kept over a restart; times in ms since the epoch. */
export interface KeptPause {
  readonly pause: Pause;
  readonly verdict: Verdict;
  readonly step: number;
  readonly until: number;
  /** On which way; absent: SMTP. */
  readonly way?: 'graph';
}

export interface AccountHealth {
  /** Undefined: go ahead (and be the probe where one is due). Else the verdict that stands, with the time until it is tried again. */
  gate(scope: Scope): Verdict | undefined;
  /** Whether a new login would be let through, without claiming the probe. */
  mayLogIn(): boolean;
  /** Takes what the verdict asks for: pause, slow-down, unreachable. All retries of one message (`about`) are one complaint. True where the state an operator sees changed. */
  suffered(verdict: Verdict, about?: object): boolean;
  /** A login or a message succeeded. True where the state changed. */
  succeeded(scope: Scope): boolean;
  /** Messages at once, 1 to the account's most. */
  readonly concurrency: number;
  readonly state: AccountState;
  /** The pause there is, whether its time is up or not, without claiming its probe; `until` in ms since the epoch. */
  standing(scope: Scope): { readonly verdict: Verdict; readonly until: number } | undefined;
  /** The operator changed something: what is paused is tried at the next opportunity. True where anything was. */
  retryNow(): boolean;
  /** Pauses that still stand, to be kept. */
  kept(): readonly KeptPause[];
  restore(pauses: readonly KeptPause[]): void;
}

/** The verdict again, with nothing that follows from it a second time. */
function standing({ class: cls, answer }: Verdict, leftMs: number): Verdict {
  const seconds = Math.ceil(leftMs / 1_000);
  return verdict(cls, { ...answer, text: `${answer.text}; tried again in ${seconds} s` });
}

/** `max`: messages at once where nobody complains. */
export function createAccountHealth(max: () => number, clock: Clock = systemClock): AccountHealth {
  const pauses = new Map<Scope, ActivePause>();
  let unreachable: Verdict | undefined;
  let slow: Slow | undefined;
  /** Messages that had their part in a complaint. */
  let heard = new WeakSet<object>();

  const wall = (monotonic: number): number => Math.round(clock.now() + monotonic - clock.monotonic());

  function concurrency(): number {
    if (slow !== undefined && clock.monotonic() >= slow.until + SLOW_MEMORY_MS) slow = undefined;
    return slow === undefined ? max() : Math.max(1, Math.min(max(), Math.floor(slow.allowed)));
  }

  function complain(about: object | undefined): void {
    const now = clock.monotonic();
    if (about !== undefined) {
      if (heard.has(about)) return;
      heard.add(about);
    }
    const allowed = concurrency();
    if (slow !== undefined && now - slow.complainedAt < SAME_COMPLAINT_MS) return;
    const step = slow === undefined ? 0 : Math.min(slow.step + 1, SLOW_STEPS_MS.length - 1);
    slow = {
      allowed: Math.max(1, Math.floor(allowed / 2)),
      step,
      complainedAt: now,
      until: now + (SLOW_STEPS_MS[step] ?? 0),
    };
  }

  const stateOf = (p: ActivePause): AccountState => ({
    status: p.pause.status,
    reason: formatReply(p.verdict.answer),
    until: wall(p.until),
    ...(p.verdict.cause === undefined ? {} : { cause: p.verdict.cause }),
    ...(p.pause.cure === undefined ? {} : { cure: p.pause.cure }),
  });

  return {
    gate(scope) {
      const paused = pauses.get(scope);
      if (paused === undefined) return undefined;
      const now = clock.monotonic();
      if (now < paused.until) return standing(paused.verdict, paused.until - now);
      paused.until = now + PROBE_CLAIM_MS;
      if (paused.next === 'late') paused.next = 'probe';
      return undefined;
    },
    mayLogIn() {
      const paused = pauses.get('logins');
      return paused === undefined || clock.monotonic() >= paused.until;
    },
    suffered(verdict, about) {
      if (verdict.slowDown) complain(about);
      const { pause } = verdict;
      if (pause !== undefined) {
        const before = pauses.get(pause.scope);
        const taken = before === undefined ? 0 : before.step + (before.next === 'probe' ? 1 : 0);
        const step = Math.min(taken, pause.stepsMinutes.length - 1);
        const until = clock.monotonic() + (pause.stepsMinutes[step] ?? 60) * 60_000;
        pauses.set(pause.scope, { pause, verdict, step, until, next: 'late' });
        return before?.pause.status !== pause.status;
      }
      if (verdict.class !== 'provider') return false;
      const changed = unreachable === undefined;
      unreachable = verdict;
      return changed;
    },
    succeeded(scope) {
      if (scope === 'sending' && slow !== undefined && clock.monotonic() >= slow.until)
        slow.allowed = Math.min(max(), slow.allowed + 1 / Math.max(1, Math.floor(slow.allowed)));
      const wasUnreachable = unreachable !== undefined;
      unreachable = undefined;
      // A message that went through over a live connection says nothing about logins.
      return pauses.delete(scope) || wasUnreachable;
    },
    get concurrency() {
      return concurrency();
    },
    get state(): AccountState {
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
      if (concurrency() < max() && slow !== undefined)
        return {
          status: 'throttled',
          reason: 'slowed down after complaints of the provider',
          until: wall(clock.monotonic() < slow.until ? slow.until : slow.until + SLOW_MEMORY_MS),
        };
      return { status: 'ready' };
    },
    standing(scope) {
      const paused = pauses.get(scope);
      return paused && { verdict: paused.verdict, until: wall(paused.until) };
    },
    retryNow() {
      const was = pauses.size > 0 || unreachable !== undefined || slow !== undefined;
      const now = clock.monotonic();
      for (const paused of pauses.values()) {
        paused.until = Math.min(paused.until, now);
        paused.next = 'asked';
      }
      slow = undefined;
      heard = new WeakSet();
      return was;
    },
    kept: () =>
      [...pauses.values()].map(({ pause, verdict, step, until }) => ({
        pause,
        verdict,
        step,
        until: wall(until),
      })),
    restore(kept) {
      const now = clock.monotonic();
      for (const { pause, verdict, step, until } of kept) {
        const most = (pause.stepsMinutes[step] ?? 60) * 60_000;
        // A wall clock that stepped must not make a pause longer than it was.
        const leftMs = Math.min(until - clock.now(), most);
        // The first try after a restart is one that an operator asked for.
        pauses.set(pause.scope, { pause, verdict, step, until: now + Math.max(0, leftMs), next: 'asked' });
      }
    },
  };
}
