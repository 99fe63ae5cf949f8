/**
 * Time as every room sees it: a parameter, so that a test or a simulation can let hours pass. Intervals,
 * pauses, limits and deadlines are monotonic; the wall clock is only for what is told in wall time
 * (token ends, logs, the day of a budget), because it can step.
 */
export interface Clock {
  /** Wall clock, ms since the epoch. May step either way. */
  now(): number;
  /** Monotonic, ms from an origin of its own; never compared with `now()`. */
  monotonic(): number;
  /** Runs `task` after `ms` of monotonic time, without keeping the process alive; the result cancels it. */
  after(ms: number, task: () => void): () => void;
}

/** Node's timers overflow beyond this and would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, task) {
    const timer = setTimeout(task, Math.min(Math.max(ms, 0), MAX_TIMER_MS));
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** Resolves after `ms` of monotonic time. Unlike `after` it keeps the process alive: somebody is waiting. */
export const pause = (clock: Clock, ms: number): Promise<void> =>
  new Promise((resume) => {
    if (clock === systemClock) setTimeout(resume, Math.min(ms, MAX_TIMER_MS));
    else clock.after(ms, resume);
  });
