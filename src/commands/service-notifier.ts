/**
 * Tells systemd how the service is (sd_notify(3)). In: READY, RELOADING, STOPPING, a watchdog period. Out:
 * messages to NOTIFY_SOCKET. Node has no UNIX datagram sockets, so systemd's own `systemd-notify` carries
 * them: the unit needs NotifyAccess=all. Without NOTIFY_SOCKET nothing happens.
 */
import { execFile } from 'node:child_process';
import { orAfter, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';

export interface ServiceNotifier {
  ready(status: string): void;
  reloading(): void;
  stopping(): void;
  /** Ends the watchdog messages; resolves when what was said has been carried, or after a second. */
  close(): Promise<void>;
}

/** systemd-notify takes milliseconds; a stop is not held up by one that hangs. */
const LAST_WORD_MS = 1_000;

export function createServiceNotifier(
  env: Readonly<Record<string, string | undefined>>,
  log: Log,
): ServiceNotifier {
  if (env.NOTIFY_SOCKET === undefined)
    return { ready() {}, reloading() {}, stopping() {}, close: async () => {} };

  // One after the other: a READY that overtakes its RELOADING would leave the unit reloading for ever.
  let last = Promise.resolve();
  const send = (...assignments: readonly string[]): void => {
    last = last.then(
      () =>
        new Promise((resolve) => {
          execFile('systemd-notify', assignments, { timeout: 5_000 }, (error) => {
            if (error !== null)
              log.warn(
                { event: 'notify_failed', reason: error.code ?? error.signal },
                'systemd-notify failed',
              );
            resolve();
          });
        }),
    );
  };

  const period = watchdogPeriodMs(env, process.pid);
  const watchdog = period === undefined ? undefined : setInterval(() => send('WATCHDOG=1'), period);
  watchdog?.unref();
  return {
    ready: (status) => send('READY=1', `STATUS=${status}`),
    reloading: () => send('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1_000n}`),
    stopping: () => send('STOPPING=1'),
    async close() {
      clearInterval(watchdog);
      await orAfter(systemClock, last, LAST_WORD_MS);
    },
  };
}

/** Half the time after which systemd takes the service for dead, as sd_watchdog_enabled(3) advises. */
function watchdogPeriodMs(
  env: Readonly<Record<string, string | undefined>>,
  pid: number,
): number | undefined {
  const microseconds = Number(env.WATCHDOG_USEC);
  if (!(microseconds > 0)) return undefined;
  if (env.WATCHDOG_PID !== undefined && Number(env.WATCHDOG_PID) !== pid) return undefined;
  return Math.max(1, Math.floor(microseconds / 2_000));
}
