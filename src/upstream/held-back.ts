/**
 * How long a client may have been waiting already when its body is complete here: it sends ahead of what is read, so
 * its last octet may have left while the way was still being opened, or drained. In: what was pushed, and what that
 * waited for. Out: the waits that may be behind its last octet.
 */
import type { Clock } from '../clock.ts';

/** What a client can have sent before it is read: the buffers of a socket on both sides. */
const AHEAD_OCTETS = 4 * 1024 * 1024;

export interface HeldBack {
  /** Octets were read, and no more are until `taken`, which it returns. */
  push(octets: number, taken: Promise<void> | undefined): Promise<void> | undefined;
  /** The client may have waited so long, ms. */
  ms(): number;
}

/** `openingMs`: how long the body waited for its way. */
export function createHeldBack(clock: Clock, openingMs: number): HeldBack {
  let read = 0;
  let waits = [{ behind: 0, ms: openingMs }];
  return {
    push(octets, taken) {
      read += octets;
      if (taken === undefined) return undefined;
      const since = clock.monotonic();
      const behind = read;
      return taken.finally(() => {
        waits = waits.filter((wait) => read - wait.behind < AHEAD_OCTETS);
        waits.push({ behind, ms: clock.monotonic() - since });
      });
    },
    ms: () => waits.reduce((sum, { behind, ms }) => (read - behind < AHEAD_OCTETS ? sum + ms : sum), 0),
  };
}
