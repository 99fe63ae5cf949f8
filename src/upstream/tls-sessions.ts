/**
 * TLS sessions by endpoint, to be resumed (RFC 8446 §2.2). In: the newest of each, and that a handshake failed with one.
 * Out: which to try. A balancer may cut whoever resumes at another of its servers: then none is tried for a while.
 */
import type { Clock } from '../clock.ts';

/** A full handshake costs a millisecond of CPU, an attempt that fails costs a message its turn. */
const UNTRIED_MS = 60 * 60_000;

export class TlsSessions {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #sessions = new Map<string, Buffer>();
  /** Until when, monotonic ms. */
  readonly #untried = new Map<string, number>();

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock;
  }

  of(endpoint: string): Buffer | undefined {
    return (this.#untried.get(endpoint) ?? 0) > this.#clock.monotonic()
      ? undefined
      : this.#sessions.get(endpoint);
  }

  keep(endpoint: string, session: Buffer): void {
    this.#sessions.set(endpoint, session);
  }

  /** Nothing was heard from the server where it was tried. */
  failed(endpoint: string): void {
    this.#untried.set(endpoint, this.#clock.monotonic() + UNTRIED_MS);
  }
}
