/**
 * A lock that is a file with its holder's mark in it. In: a path. Out: a lock, or who has it. A holder that
 * has died is noticed by its mark; one in another container by the sign of life it no longer gives.
 */
import { type Clock, pause } from '../clock.ts';
import { formatMark, type Processes, type ProcessMark, parseMark } from './process-mark.ts';
import { codeOf, type StateFiles } from './state-files.ts';
import type { Interruption } from './token-store.ts';

export interface FileLock {
  /** What a dead holder left behind. */
  readonly interrupted: Interruption | undefined;
  /** False: this process was paused for so long that another one may have taken it. */
  isHeld(): boolean;
  release(): Promise<void>;
}

export type LockAttempt =
  | { readonly taken: true; readonly lock: FileLock }
  | { readonly taken: false; readonly holder: ProcessMark | undefined };

export interface FileLocks {
  /** Takes it or says who has it; waits only to see whether a holder elsewhere gives a sign of life. */
  attempt(path: string): Promise<LockAttempt>;
}

/** A holder renews its lock this often… */
const BEAT_MS = 5000;
/** …and one elsewhere that has not for this long is gone. */
const SILENCE_MS = 15_000;
const MAX_MARK_OCTETS = 4096;

export function createFileLocks(deps: {
  readonly files: StateFiles;
  readonly clock: Clock;
  readonly processes: Processes;
}): FileLocks {
  const { files, clock, processes } = deps;
  let takeovers = 0;

  function keepBeating(path: string): { readonly isHeld: () => boolean; readonly stop: () => void } {
    let cancel = clock.after(BEAT_MS, beat);
    let seenAt = clock.monotonic();
    const isHeld = (): boolean => clock.monotonic() - seenAt < SILENCE_MS;
    function beat(): void {
      if (!isHeld()) return;
      const at = clock.monotonic();
      files.touch(path).then(
        () => {
          seenAt = at;
        },
        () => undefined,
      );
      cancel = clock.after(BEAT_MS, beat);
    }
    return { isHeld, stop: () => cancel() };
  }

  /** Whether the holder elsewhere has stopped to give signs of life. */
  async function isSilent(path: string): Promise<boolean> {
    const before = await files.changedAt(path);
    for (let waited = 0; waited < SILENCE_MS; waited += BEAT_MS) {
      await pause(clock, BEAT_MS);
      if ((await files.changedAt(path)) !== before) return false;
    }
    return true;
  }

  async function take(path: string, interrupted: Interruption | undefined): Promise<LockAttempt | undefined> {
    const text = formatMark(processes.own, clock.now());
    try {
      await files.create(path, text);
    } catch (error) {
      if (codeOf(error) === 'EEXIST') return undefined;
      throw error;
    }
    const { isHeld, stop } = keepBeating(path);
    return {
      taken: true,
      lock: {
        interrupted,
        isHeld,
        async release() {
          stop();
          // One that was taken over is another's.
          if (isHeld() || (await files.read(path, MAX_MARK_OCTETS)) === text) await files.remove(path);
        },
      },
    };
  }

  /** Moves a dead holder's lock away; false where, meanwhile, somebody else has done so. */
  async function moveAway(path: string, text: string): Promise<boolean> {
    takeovers += 1;
    const aside = `${path}.${processes.own.pid}.${takeovers}.tmp`;
    try {
      await files.rename(path, aside);
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return false;
      throw error;
    }
    // Between our look and our move another one may have taken the lock: then it is given back.
    const moved = await files.read(aside, MAX_MARK_OCTETS);
    if (moved !== text) await files.rename(aside, path);
    else await files.remove(aside);
    return moved === text;
  }

  return {
    async attempt(path) {
      let interrupted: Interruption | undefined;
      for (let tries = 0; tries < 10; tries += 1) {
        const taken = await take(path, interrupted);
        if (taken !== undefined) return taken;
        const text = await files.read(path, MAX_MARK_OCTETS);
        if (text === undefined) continue;
        const holder = parseMark(text);
        // Its writer is between making the file and filling it, or was killed there.
        const isAlive = holder === undefined ? undefined : processes.isAlive(holder);
        if (isAlive === true) return { taken: false, holder };
        if (isAlive === undefined && !(await isSilent(path))) return { taken: false, holder };
        if (await moveAway(path, text))
          interrupted = { begunAt: holder?.begunAt ?? clock.now(), isOver: isAlive === false };
      }
      return { taken: false, holder: undefined };
    },
  };
}
