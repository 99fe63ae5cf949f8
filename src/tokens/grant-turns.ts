/**
 * The requests of one consent, one after another, whichever accounts have it: a refresh token is never used twice at
 * once. In: tasks. Out: their results. Whoever waits behind an answer that is late is told so instead of waiting on.
 */
import { type Clock, orAfter } from '../clock.ts';
import type { Grant } from './grant.ts';

export interface Turn {
  /** The limit has passed and the answer is still read: the grant stays taken until `end`, at most until `untilMono`. */
  late(end: Promise<unknown>, untilMono: number): void;
}

export interface GrantTurns {
  /** Runs `task` when the consent is free; `onLate` gives the result where an answer is late meanwhile, or the line too long. */
  take<T>(grant: Grant, task: (turn: Turn) => Promise<T>, onLate: (untilMono: number) => T): Promise<T>;
}

/** After a wait that was too long, ms. */
const TRY_AGAIN_MS = 3000;

interface Line {
  /** Ends when the last one in it has, its late answer included. */
  tail: Promise<unknown>;
  /** Monotonic ms. */
  lateUntil: number | undefined;
  /** Told when an answer is late. */
  readonly waiting: Set<() => void>;
}

/** `hold` is told of a grant that is taken; its result when it is free again. `waitMs`: longest wait for a turn. */
export function createGrantTurns(
  hold: (grant: Grant) => () => void,
  clock: Clock,
  waitMs: number,
): GrantTurns {
  /** By fingerprint: accounts with the same consent stand in one line. */
  const lines = new Map<string, Line>();

  return {
    take(grant, task, onLate) {
      const letGo = hold(grant);
      const line = lines.get(grant.fingerprint) ?? {
        tail: Promise.resolve(),
        lateUntil: undefined,
        waiting: new Set(),
      };
      const isFree = !lines.has(grant.fingerprint);
      lines.set(grant.fingerprint, line);
      const before = line.tail;
      let lateEnd: Promise<unknown> | undefined;
      const turn: Turn = {
        late(end, untilMono) {
          line.lateUntil = untilMono;
          lateEnd = end.finally(() => {
            line.lateUntil = undefined;
          });
          for (const wake of line.waiting) wake();
        },
      };
      const result = (async () => {
        let wake = (): void => undefined;
        const late = new Promise<void>((resume) => {
          wake = resume;
        });
        line.waiting.add(wake);
        let hasTurn = isFree;
        if (!isFree && line.lateUntil === undefined)
          await orAfter(
            clock,
            Promise.race([
              before.then(() => {
                hasTurn = true;
              }),
              late,
            ]),
            waitMs,
          );
        line.waiting.delete(wake);
        if (hasTurn && line.lateUntil === undefined) return task(turn);
        return onLate(line.lateUntil ?? clock.monotonic() + TRY_AGAIN_MS);
      })();
      const end = result.then(
        () => lateEnd,
        () => lateEnd,
      );
      const tail = Promise.allSettled([before, end]).then(() => {
        letGo();
        if (line.tail === tail) lines.delete(grant.fingerprint);
      });
      line.tail = tail;
      return result;
    },
  };
}
