/**
 * Memory for bodies. In: how much a transaction may hold. Out: leave to go on, first come first served.
 * What the client declared is reserved before the first octet; one that sends more has the most a body
 * may hold reserved in one step, ahead of those who hold nothing yet. Every wait ends.
 */
import { type Clock, systemClock } from '../clock.ts';

export interface HeldBudget {
  /** Octets that can be reserved in all. */
  readonly max: number;
  /** Octets reserved now. */
  readonly held: number;
  /** Reserves at once, if there is room and nobody waits that comes first. */
  take(octets: number, isHolder?: boolean): boolean;
  /** Reserves when others have released; false after `waitMs` or when `signal` says so. A holder comes first. */
  wait(octets: number, waitMs: number, signal: AbortSignal, isHolder?: boolean): Promise<boolean>;
  release(octets: number): void;
}

/** What one transaction has of the budget. */
export interface Share {
  /** Whether `octets` in all may be held: at once, or after waiting for it. */
  cover(octets: number): boolean | Promise<boolean>;
  /** Gives everything back and ends a wait. Idempotent. */
  release(): void;
}

interface Waiter {
  readonly octets: number;
  readonly settle: (granted: boolean) => void;
}

/** A budget of `max` octets. A single reservation larger than that counts as `max`, so it can be granted. */
export function createHeldBudget(max: number, clock: Clock = systemClock): HeldBudget {
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
    max,
    get held() {
      return held;
    },
    take(octets, isHolder = false) {
      const wanted = capped(octets);
      if ((queue.length > 0 && !isHolder) || held + wanted > max) return false;
      held += wanted;
      return true;
    },
    wait(octets, waitMs, signal, isHolder = false) {
      return new Promise((resolve) => {
        const leave = (): void => {
          const at = queue.indexOf(waiter);
          if (at < 0) return;
          queue.splice(at, 1);
          waiter.settle(false);
          // Somebody smaller may fit now.
          admit();
        };
        const stop = clock.after(waitMs, leave);
        const waiter: Waiter = {
          octets: capped(octets),
          settle(granted) {
            stop();
            signal.removeEventListener('abort', leave);
            resolve(granted);
          },
        };
        signal.addEventListener('abort', leave, { once: true });
        if (isHolder) queue.unshift(waiter);
        else queue.push(waiter);
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

/**
 * A share of `budget`, nothing yet. `most`: what one transaction holds at most, octets. `waitMs`: the
 * longest wait for memory. `onWait` is told of each.
 */
export function createShare(
  budget: HeldBudget,
  options: { readonly most: number; readonly waitMs: number; readonly onWait: () => void },
): Share {
  /** Made by the first wait: an aborted signal costs more than all the rest of a small message's share. */
  let gone: AbortController | undefined;
  // More than there is would never be granted beside what it has already.
  const most = Math.min(options.most, budget.max);
  let size = 0;
  let isOver = false;
  return {
    cover(octets) {
      if (isOver) return false;
      if (octets <= size || size >= most) return true;
      const isHolder = size > 0;
      // The second time all of it: a client that was wrong once will be again.
      const wanted = (isHolder ? most : Math.min(octets, most)) - size;
      const granted = (): boolean => {
        if (isOver) budget.release(wanted);
        else size += wanted;
        return !isOver;
      };
      if (budget.take(wanted, isHolder)) return granted();
      options.onWait();
      gone ??= new AbortController();
      return budget
        .wait(wanted, options.waitMs, gone.signal, isHolder)
        .then((isGranted) => isGranted && granted());
    },
    release() {
      if (isOver) return;
      isOver = true;
      gone?.abort();
      budget.release(size);
    },
  };
}
