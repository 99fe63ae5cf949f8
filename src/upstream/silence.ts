/**
 * How long a server that gave no login is left alone while other accounts want the mailbox's place. In: attempts. Out:
 * the failure that stands, for twice as long as it kept the place.
 */
import type { Clock } from '../clock.ts';
import type { UpstreamError } from './failure.ts';

export interface Silence {
  readonly standing: UpstreamError | undefined;
  /** An attempt was lost before AUTH; it had the place `since`, monotonic ms. */
  failed(error: UpstreamError, since: number): void;
  over(): void;
}

export function createSilence(clock: Pick<Clock, 'monotonic'>): Silence {
  let last: { readonly error: UpstreamError; readonly until: number } | undefined;
  return {
    get standing() {
      return last !== undefined && clock.monotonic() < last.until ? last.error : undefined;
    },
    failed(error, since) {
      const now = clock.monotonic();
      last = { error, until: now + 2 * (now - since) };
    },
    over() {
      last = undefined;
    },
  };
}
