/** Runs at most so many tasks at once; the others wait in the order they came. */
export interface Semaphore {
  run<T>(task: () => Promise<T>): Promise<T>;
  /** How many wait. */
  readonly waiting: number;
  /** How many run. */
  readonly running: number;
}

export function createSemaphore(bound: number): Semaphore {
  let running = 0;
  const turns: (() => void)[] = [];
  return {
    get waiting() {
      return turns.length;
    },
    get running() {
      return running;
    },
    async run(task) {
      if (running >= bound) await new Promise<void>((resume) => turns.push(resume));
      else running += 1;
      try {
        return await task();
      } finally {
        // The place is handed on, so that nobody can slip in between.
        const next = turns.shift();
        if (next === undefined) running -= 1;
        else next();
      }
    },
  };
}

/** Does `task` for each of `items`, the first first, so many at once. Rejects with the first that does. */
export async function eachAtOnce<T>(
  bound: number,
  items: readonly T[],
  task: (item: T) => Promise<void>,
): Promise<void> {
  const left = items.values();
  const work = async (): Promise<void> => {
    for (const item of left) await task(item);
  };
  await Promise.all(Array.from({ length: Math.min(bound, items.length) }, work));
}
