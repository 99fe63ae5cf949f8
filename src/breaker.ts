/**
 * A circuit breaker. In: calls and a rule which results are the endpoint's fault. Out: the result, or
 * undefined while it rests. It opens when at least half of what it saw lately were faults; after the
 * rest one call probes: a fault opens it again for twice as long, anything else closes it.
 */
import { type Clock, systemClock } from './clock.ts';

export interface BreakerOptions {
  /** Fewest calls of the window before it may open. Default 5. */
  readonly volume?: number;
  /** Window, ms. Default 60,000: longer than the slowest fault, an answer that never comes. */
  readonly windowMs?: number;
  /** How long it stays open before one call may probe, ms. Default 10,000. */
  readonly restMs?: number;
  /** Longest rest after probes that failed, ms. Default `restMs`. */
  readonly maxRestMs?: number;
  readonly clock?: Clock;
}

export interface BreakerState {
  readonly name: string;
  readonly state: 'closed' | 'open' | 'half_open';
  /** Faults within the window. */
  readonly faults: number;
  /** While open: when a call may probe, ms since the epoch. */
  readonly probeAt: number | undefined;
  /** When it opened last, ms since the epoch; undefined: not yet. */
  readonly openedAt: number | undefined;
}

export interface Breaker<T> {
  /** The result of `call`, or undefined while the breaker is open. Rejects as `call` does (which counts as no fault). */
  run(call: () => Promise<T>): Promise<T | undefined>;
  /** Something seen outside a call: a fault, or that the endpoint is well. */
  saw(fault: boolean): void;
  /** When a call may probe, ms since the epoch; undefined while closed. */
  probeAt(): number | undefined;
  state(): BreakerState;
}

/** The window slides in steps of this part of it. */
const STEPS = 6;

type Circuit =
  | { readonly is: 'closed' }
  /** `until` monotonic; from then on half open. */
  | { readonly is: 'open'; readonly until: number; readonly restMs: number }
  | { readonly is: 'probing'; readonly restMs: number };

export function createBreaker<T>(
  name: string,
  isFault: (result: T) => boolean,
  onChange: (state: 'open' | 'closed') => void,
  options: BreakerOptions = {},
): Breaker<T> {
  const { clock = systemClock, volume = 5, windowMs = 60_000, restMs: firstRestMs = 10_000 } = options;
  const maxRestMs = options.maxRestMs ?? firstRestMs;
  let circuit: Circuit = { is: 'closed' };
  let openedAt: number | undefined;
  let steps: { readonly step: number; calls: number; faults: number }[] = [];

  function slide(): number {
    const step = Math.floor((clock.monotonic() / windowMs) * STEPS);
    if ((steps[0]?.step ?? step) <= step - STEPS) steps = steps.filter((s) => s.step > step - STEPS);
    return step;
  }

  function open(restMs: number): void {
    circuit = { is: 'open', until: clock.monotonic() + restMs, restMs };
    openedAt = clock.now();
    onChange('open');
  }

  function saw(fault: boolean): void {
    const step = slide();
    let last = steps.at(-1);
    if (last?.step !== step) {
      last = { step, calls: 0, faults: 0 };
      steps.push(last);
    }
    last.calls++;
    if (!fault) return;
    last.faults++;
    if (circuit.is !== 'closed') return;
    const calls = steps.reduce((sum, s) => sum + s.calls, 0);
    const faults = steps.reduce((sum, s) => sum + s.faults, 0);
    if (calls >= volume && faults * 2 >= calls) open(firstRestMs);
  }

  function probed(fault: boolean, restMs: number): void {
    if (circuit.is !== 'probing') return;
    if (fault) {
      open(Math.min(restMs * 2, maxRestMs));
      return;
    }
    circuit = { is: 'closed' };
    steps = [];
    onChange('closed');
  }

  const isResting = (): boolean =>
    circuit.is === 'probing' || (circuit.is === 'open' && clock.monotonic() < circuit.until);
  const probeAt = (): number | undefined =>
    circuit.is === 'open' ? clock.now() + Math.max(0, circuit.until - clock.monotonic()) : undefined;
  const stateName = (): BreakerState['state'] => {
    switch (circuit.is) {
      case 'closed':
        return 'closed';
      case 'open':
        return isResting() ? 'open' : 'half_open';
      case 'probing':
        return 'half_open';
      default:
        return circuit satisfies never;
    }
  };

  return {
    async run(call) {
      if (isResting()) return undefined;
      const restMs = circuit.is === 'open' ? circuit.restMs : undefined;
      if (restMs !== undefined) circuit = { is: 'probing', restMs };
      let fault = false;
      try {
        const result = await call();
        fault = isFault(result);
        return result;
      } finally {
        if (restMs === undefined) saw(fault);
        else probed(fault, restMs);
      }
    },
    saw,
    probeAt,
    state() {
      slide();
      return {
        name,
        state: stateName(),
        faults: steps.reduce((sum, s) => sum + s.faults, 0),
        probeAt: probeAt(),
        openedAt,
      };
    },
  };
}
