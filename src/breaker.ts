/**
 * The circuit breaker of one endpoint; the one file that knows opossum. In: calls and a rule which
 * results are the endpoint's fault. Out: the result, or `resting` while the breaker is open.
 */
import CircuitBreaker from 'opossum';

export interface BreakerOptions {
  /** Faults among the calls of the window before it opens, at least this many calls. Default 5. */
  readonly volume?: number;
  /** Window, ms. Default 60,000: longer than the slowest fault, an answer that never comes. */
  readonly windowMs?: number;
  /** How long it stays open before one call may probe, ms. Default 10,000. */
  readonly restMs?: number;
}

export interface BreakerState {
  readonly name: string;
  readonly state: 'closed' | 'open' | 'half_open';
  /** Calls and faults within the window. */
  readonly calls: number;
  readonly faults: number;
  /** While open: when a call may probe, ms since the epoch. */
  readonly probeAt: number | undefined;
}

export interface Breaker<T> {
  /** The result of `call`, or undefined while the breaker is open. Rejects as `call` does (which counts as no fault). */
  run(call: () => Promise<T>): Promise<T | undefined>;
  /** When a call may probe, ms since the epoch; undefined while closed. */
  probeAt(): number | undefined;
  state(): BreakerState;
  close(): void;
}

/** Carries a faulty result through opossum, which counts rejections. */
class Fault<T> extends Error {
  readonly result: T;
  constructor(result: T) {
    super('endpoint fault');
    this.result = result;
  }
}

export function createBreaker<T>(
  name: string,
  isFault: (result: T) => boolean,
  onChange: (state: BreakerState['state']) => void,
  options: BreakerOptions = {},
): Breaker<T> {
  const restMs = options.restMs ?? 10_000;
  let openedAt = 0;
  const circuit = new CircuitBreaker<[() => Promise<T>], T>(
    async (call) => {
      const result = await call();
      if (isFault(result)) throw new Fault(result);
      return result;
    },
    {
      name,
      timeout: false,
      errorThresholdPercentage: 50,
      volumeThreshold: options.volume ?? 5,
      rollingCountTimeout: options.windowMs ?? 60_000,
      rollingCountBuckets: 6,
      resetTimeout: restMs,
      errorFilter: (error) => !(error instanceof Fault),
      enableSnapshots: false,
    },
  );
  const stateName = (): BreakerState['state'] =>
    circuit.opened ? 'open' : circuit.halfOpen ? 'half_open' : 'closed';
  circuit.on('open', () => {
    openedAt = Date.now();
    onChange('open');
  });
  circuit.on('close', () => onChange('closed'));
  const probeAt = (): number | undefined => (circuit.opened ? openedAt + restMs : undefined);
  return {
    async run(call) {
      try {
        return await circuit.fire(call);
      } catch (error) {
        if (error instanceof Fault) return error.result;
        if (CircuitBreaker.isOurError(error as Error)) return undefined;
        throw error;
      }
    },
    probeAt,
    state: () => ({
      name,
      state: stateName(),
      calls: circuit.stats.fires - circuit.stats.rejects,
      faults: circuit.stats.failures,
      probeAt: probeAt(),
    }),
    close: () => circuit.shutdown(),
  };
}
