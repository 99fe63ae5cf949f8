/**
 * TLS sessions by endpoint, to be resumed (RFC 8446 §2.2). In: the newest of each, and what became of attempts with
 * them. Out: which to try. A balancer may cut whoever resumes at another of its servers, a server that stops cuts
 * everybody: after a loss the next handshake is a full one, and where the next that resumes is lost, too, none does for a while.
 */
import type { Clock } from '../clock.ts';
import { orMake } from '../or-make.ts';

/** A full handshake costs a millisecond of CPU, an attempt that fails costs a message its turn. */
const UNTRIED_MS = 60 * 60_000;

interface Resumption {
  session?: Buffer | undefined;
  /** The last attempt with one was lost. */
  isDoubtful: boolean;
  /** Monotonic ms. */
  untriedUntil: number;
}

export class TlsSessions {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #resumptions = new Map<string, Resumption>();

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock;
  }

  of(endpoint: string): Buffer | undefined {
    const { session, untriedUntil } = this.#at(endpoint);
    return untriedUntil > this.#clock.monotonic() ? undefined : session;
  }

  keep(endpoint: string, session: Buffer): void {
    this.#at(endpoint).session = session;
  }

  /** A login over a connection that was to resume one. */
  worked(endpoint: string): void {
    this.#at(endpoint).isDoubtful = false;
  }

  /** The attempt to resume this one was lost without a word. Of several with the same one the first counts. */
  failed(endpoint: string, session: Buffer): void {
    const at = this.#at(endpoint);
    if (at.session !== session) return;
    at.session = undefined;
    if (at.isDoubtful) at.untriedUntil = this.#clock.monotonic() + UNTRIED_MS;
    at.isDoubtful = true;
  }

  #at(endpoint: string): Resumption {
    return orMake(this.#resumptions, endpoint, () => ({ isDoubtful: false, untriedUntil: 0 }));
  }
}
