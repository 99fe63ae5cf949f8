/** A clock that moves when told. */
import type { Clock } from '../../src/clock.ts';

/** Starts at the real time; timers run in order, on monotonic time. */
export interface TestClock extends Clock {
  /** Time passes, for both clocks. */
  advance(ms: number): void;
  /** The wall clock alone steps, as by NTP or a resumed VM. */
  step(ms: number): void;
  readonly pending: () => number;
}

export function createTestClock(): TestClock {
  let offset = Date.now();
  let passed = 0;
  let timers: { at: number; task: () => void }[] = [];
  return {
    now: () => offset + passed,
    monotonic: () => passed,
    after(ms, task) {
      const timer = { at: passed + ms, task };
      timers.push(timer);
      return () => {
        timers = timers.filter((other) => other !== timer);
      };
    },
    advance(ms) {
      const until = passed + ms;
      for (;;) {
        const due = timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
        if (due === undefined) break;
        timers = timers.filter((timer) => timer !== due);
        passed = Math.max(passed, due.at);
        due.task();
      }
      passed = until;
    },
    step(ms) {
      offset += ms;
    },
    pending: () => timers.length,
  };
}
