/**
 * Memory for bodies. In: how much a transaction may hold. Out: leave to go on, first come first served.
 * Reserved whole before the first octet: transactions that each hold a part and wait for more would
 * wait for ever.
 */

export interface HeldBudget {
  /** Octets reserved now. */
  readonly held: number;
  /** Reserves at once, if nobody waits and there is room. */
  take(octets: number): boolean;
  /** Reserves when others have released; false after `waitMs` or when `signal` says so. */
  wait(octets: number, waitMs: number, signal: AbortSignal): Promise<boolean>;
  release(octets: number): void;
}

interface Waiter {
  readonly octets: number;
  readonly settle: (granted: boolean) => void;
}

/** A budget of `max` octets. A single reservation larger than that counts as `max`, so it can be granted. */
export function createHeldBudget(max: number): HeldBudget {
  let held = 0;
  const queue: Waiter[] = [];
  const capped = (octets: number): number => Math.min(octets, max);

  function admit(): void {
    for (let first = queue[0]; first !== undefined && held + first.octets <= max; first = queue[0]) {
      queue.shift();
      held += first.octets;
      first.settle(true);
    }
  }

  return {
    get held() {
      return held;
    },
    take(octets) {
      const wanted = capped(octets);
      if (queue.length > 0 || held + wanted > max) return false;
      held += wanted;
      return true;
    },
    wait(octets, waitMs, signal) {
      return new Promise((resolve) => {
        const leave = (): void => {
          const at = queue.indexOf(waiter);
          if (at < 0) return;
          queue.splice(at, 1);
          waiter.settle(false);
          // Somebody smaller may fit now.
          admit();
        };
        const timer = setTimeout(leave, waitMs);
        const waiter: Waiter = {
          octets: capped(octets),
          settle(granted) {
            clearTimeout(timer);
            signal.removeEventListener('abort', leave);
            resolve(granted);
          },
        };
        signal.addEventListener('abort', leave, { once: true });
        queue.push(waiter);
        admit();
        if (signal.aborted) leave();
      });
    },
    release(octets) {
      held -= capped(octets);
      admit();
    },
  };
}
