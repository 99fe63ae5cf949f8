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

/** `clock.after`, but it keeps the process alive: somebody is waiting. */
function keepAlive(clock: Clock, ms: number, task: () => void): () => void {
  if (clock !== systemClock) return clock.after(ms, task);
  const timer = setTimeout(task, Math.min(ms, MAX_TIMER_MS));
  return () => clearTimeout(timer);
}

/** `over` resolves after `ms` of monotonic time, or at once when it is woken or `signal` aborts; keeps nothing alive. */
export function nap(
  clock: Clock,
  ms: number,
  signal?: AbortSignal,
): { readonly over: Promise<void>; wake(): void } {
  let wake = (): void => {};
  const over = new Promise<void>((resume) => {
    const cancel = clock.after(ms, () => wake());
    wake = () => {
      cancel();
      signal?.removeEventListener('abort', wake);
      resume();
    };
    if (signal?.aborted === true) wake();
    else signal?.addEventListener('abort', wake);
  });
  return { over, wake };
}

/** Resolves after `ms` of monotonic time, and keeps the process alive until then. */
export const pause = (clock: Clock, ms: number): Promise<void> =>
  new Promise((resume) => void keepAlive(clock, ms, resume));

/** Resolves when `done` does, or after `ms` of monotonic time. Rejects as `done` does. */
export async function orAfter(clock: Clock, done: Promise<unknown>, ms: number): Promise<void> {
  let cancel = (): void => {};
  const time = new Promise<void>((resume) => {
    cancel = keepAlive(clock, ms, resume);
  });
  await Promise.race([done, time]).finally(() => cancel());
}

/** Runs `task` every `ms` of monotonic time, counted from the end of the one before, first after `firstMs`, without keeping the process alive; the result ends it. */
export function every(
  clock: Clock,
  ms: number,
  task: () => Promise<void> | undefined,
  firstMs: number = ms,
): () => void {
  let isOver = false;
  let cancel = clock.after(firstMs, tick);
  function next(): void {
    if (!isOver) cancel = clock.after(ms, tick);
  }
  function tick(): void {
    const done = task();
    if (done === undefined) next();
    else void done.finally(next);
  }
  return () => {
    isOver = true;
    cancel();
  };
}
