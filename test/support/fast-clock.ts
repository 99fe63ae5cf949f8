/** Real time, many times as fast: what waits for seconds is over in milliseconds, in the same order. */
import type { Clock } from '../../src/clock.ts';

export function createFastClock(factor: number): Clock {
  const start = performance.now();
  const wall = Date.now();
  const passed = (): number => (performance.now() - start) * factor;
  return {
    now: () => wall + passed(),
    monotonic: passed,
    after(ms, task) {
      const timer = setTimeout(task, ms / factor);
      return () => clearTimeout(timer);
    },
  };
}
