/**
 * A circuit breaker; the one file that knows opossum. In: calls and a rule which results are the endpoint's
 * fault. Out: the result, or undefined while it rests. opossum counts and decides when it opens: at least
 * half of what it saw lately were faults. Its window turns by our clock; how long it rests and that one call
 * probes is said here, because opossum's own rest is always the same: a fault opens it again for twice as
 * long, anything else closes it.
 */
import { EventEmitter } from 'node:events';
import CircuitBreaker from 'opossum';
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
  /**
   * Another process found the endpoint failing, and asks it again in `leftMs`; undefined: it is well. Whoever hears of
   * it rests a little longer, so that the finder asks first. Told to nobody.
   */
  heard(leftMs: number | undefined): void;
  /** When a call may probe, ms since the epoch; undefined while closed. */
  probeAt(): number | undefined;
  /** Nobody will ask it any more. */
  end(): void;
  state(): BreakerState;
}

/** The window slides in steps of this part of it. */
const STEPS = 6;
/** At least half: opossum opens above its threshold. */
const MOST_FAULTS_PERCENT = 49.99;
/** opossum never half-opens by itself: the longest that a timer takes, ms. */
const NEVER_MS = 2 ** 31 - 1;

/** Of what was well outside calls, as many are counted in a step: every message of a busy relay would cost more than it tells. */
const MOST_WELL = 200;

/** How much longer than its finder somebody rests who heard of a failing endpoint, ms. */
const FINDER_FIRST_MS = 2_000;

interface Tried<T> {
  readonly isFault: boolean;
  readonly result?: T;
}

/** Carries a faulty outcome through opossum, which counts rejections. */
class Fault<T> extends Error {
  readonly outcome: Tried<T>;
  constructor(outcome: Tried<T>) {
    super('endpoint fault');
    this.outcome = outcome;
  }
}

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
  const rotation = new EventEmitter();
  const stepNow = (): number => Math.floor((clock.monotonic() / windowMs) * STEPS);
  let circuit: Circuit = { is: 'closed' };
  let openedAt: number | undefined;
  let counter = newCounter();
  let step = stepNow();
  let well = 0;

  /** Counts one closed time after the other. */
  function newCounter(): CircuitBreaker<[() => Promise<Tried<T>>], Tried<T>> {
    const made = new CircuitBreaker<[() => Promise<Tried<T>>], Tried<T>>(
      async (call) => {
        const outcome = await call();
        if (outcome.isFault) throw new Fault(outcome);
        return outcome;
      },
      {
        name,
        timeout: false,
        errorThresholdPercentage: MOST_FAULTS_PERCENT,
        volumeThreshold: volume,
        rollingCountTimeout: windowMs,
        rollingCountBuckets: STEPS,
        rollingPercentilesEnabled: false,
        rotateBucketController: rotation,
        enableSnapshots: false,
        resetTimeout: NEVER_MS,
        errorFilter: (error) => !(error instanceof Fault),
      },
    );
    made.once('open', () => {
      if (made === counter && circuit.is === 'closed') open(firstRestMs);
    });
    return made;
  }

  function slide(): void {
    const now = stepNow();
    if (now === step) return;
    for (let turns = Math.min(now - step, STEPS); turns > 0; turns--) rotation.emit('rotate');
    step = now;
    well = 0;
  }

  function open(restMs: number): void {
    circuit = { is: 'open', until: clock.monotonic() + restMs, restMs };
    openedAt = clock.now();
    onChange('open');
  }

  function probed(fault: boolean, restMs: number): void {
    if (circuit.is !== 'probing') return;
    if (fault) {
      open(Math.min(restMs * 2, maxRestMs));
      return;
    }
    close();
    onChange('closed');
  }

  /** Through opossum, which counts it; where it has opened meanwhile, past it. */
  async function counted(call: () => Promise<T>): Promise<T> {
    slide();
    try {
      const outcome = await counter.fire(async () => {
        const result = await call();
        return { result, isFault: isFault(result) };
      });
      return outcome.result as T;
    } catch (error) {
      if (error instanceof Fault) return error.outcome.result as T;
      if (CircuitBreaker.isOurError(error as Error)) return call();
      throw error;
    }
  }

  function close(): void {
    circuit = { is: 'closed' };
    // Shut down, it listens to no rotation and has no timer.
    counter.shutdown();
    counter = newCounter();
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
      if (circuit.is !== 'open') return counted(call);
      const { restMs } = circuit;
      circuit = { is: 'probing', restMs };
      let fault = false;
      try {
        const result = await call();
        fault = isFault(result);
        return result;
      } finally {
        probed(fault, restMs);
      }
    },
    saw(fault) {
      if (circuit.is !== 'closed') return;
      slide();
      if (!fault && ++well > MOST_WELL) return;
      counter.fire(async () => ({ isFault: fault })).catch(() => undefined);
    },
    heard(leftMs) {
      if (leftMs === undefined) {
        if (circuit.is !== 'closed') close();
        return;
      }
      // A probe of our own under way decides by itself.
      if (circuit.is === 'probing') return;
      const restMs = leftMs + FINDER_FIRST_MS;
      circuit = { is: 'open', until: clock.monotonic() + restMs, restMs };
      openedAt ??= clock.now();
    },
    probeAt,
    end: () => counter.shutdown(),
    state() {
      slide();
      return {
        name,
        state: stateName(),
        faults: counter.stats.failures,
        probeAt: probeAt(),
        openedAt,
      };
    },
  };
}
