/**
 * The requests of one grant, one after another: a refresh token is never used twice at once. In: tasks. Out:
 * their results. Whoever waits behind an answer that is late is told so instead of waiting on.
 */
import type { Grant } from './grant-keeper.ts';

export interface Turn {
  /** The limit has passed and the answer is still read: the grant stays taken until `end`, at most until `untilMono`. */
  late(end: Promise<unknown>, untilMono: number): void;
}

export interface GrantTurns {
  /** Runs `task` when the grant is free; `onLate` gives the result where an answer is late meanwhile. */
  take<T>(grant: Grant, task: (turn: Turn) => Promise<T>, onLate: (untilMono: number) => T): Promise<T>;
}

interface Line {
  /** Ends when the last one in it has, its late answer included. */
  tail: Promise<unknown>;
  /** Monotonic ms. */
  lateUntil: number | undefined;
  /** Told when an answer is late. */
  readonly waiting: Set<() => void>;
  readonly letGo: () => void;
}

/** `hold` is told of a grant that is taken; its result when it is free again. */
export function createGrantTurns(hold: (grant: Grant) => () => void): GrantTurns {
  const lines = new Map<Grant, Line>();

  return {
    take(grant, task, onLate) {
      const line = lines.get(grant) ?? {
        tail: Promise.resolve(),
        lateUntil: undefined,
        waiting: new Set(),
        letGo: hold(grant),
      };
      lines.set(grant, line);
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
        if (line.lateUntil === undefined) await Promise.race([before, late]);
        line.waiting.delete(wake);
        return line.lateUntil === undefined ? task(turn) : onLate(line.lateUntil);
      })();
      const end = result.then(
        () => lateEnd,
        () => lateEnd,
      );
      const tail = Promise.allSettled([before, end]).then(() => {
        if (line.tail !== tail) return;
        lines.delete(grant);
        line.letGo();
      });
      line.tail = tail;
      return result;
    },
  };
}
