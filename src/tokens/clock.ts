/** Time as the token room sees it: replaceable, so that hours pass in a test without waiting. */
export interface Clock {
  /** ms since the epoch. */
  now(): number;
  /** Runs `task` after `ms`, without keeping the process alive; the result cancels it. */
  after(ms: number, task: () => void): () => void;
}

/** Node's timers overflow beyond this and would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, task) {
    const timer = setTimeout(task, Math.min(Math.max(ms, 0), MAX_TIMER_MS));
    timer.unref();
    return () => clearTimeout(timer);
  },
};
