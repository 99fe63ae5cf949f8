import type { Clock } from '../clock.ts';

/** Runs `task` every `ms`, never two at once; the result ends it. */
export function every(clock: Clock, ms: number, task: () => Promise<void>): () => void {
  let cancel = clock.after(ms, tick);
  let isOver = false;
  function tick(): void {
    void task().finally(() => {
      if (!isOver) cancel = clock.after(ms, tick);
    });
  }
  return () => {
    isOver = true;
    cancel();
  };
}
