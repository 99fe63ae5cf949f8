import { pause, systemClock } from '../clock.ts';

/** Polls a condition of another process, which sends no event. True when it held in time. */
export async function waitUntil(
  condition: () => boolean | Promise<boolean>,
  timeoutMs: number,
  everyMs = 100,
  clock = systemClock,
): Promise<boolean> {
  const deadline = clock.monotonic() + timeoutMs;
  while (!(await condition())) {
    if (clock.monotonic() >= deadline) return false;
    await pause(clock, everyMs);
  }
  return true;
}
