/**
 * A lock that is a file with its holder's mark in it. In: a path. Out: a lock, or who has it. A holder that
 * has died is noticed by its mark; one in another container by the sign of life it no longer gives.
 */
import { createHash } from 'node:crypto';
import { type Clock, every, pause } from '../clock.ts';
import { formatMark, type Processes, type ProcessMark, parseMark } from './process-mark.ts';
import { codeOf, type StateFiles } from './state-files.ts';
import type { Interruption } from './token-store.ts';

export interface FileLock {
  /** What a dead holder left behind. */
  readonly interrupted: Interruption | undefined;
  /** False: this process was paused for so long that another one may have taken it. */
  isHeld(): boolean;
  release(): Promise<void>;
  /** Gives no more signs of life; once this process has ended whoever takes it hears of an interruption. */
  leave(): void;
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
/** What could not be removed is tried again after this, ms, twice as long each time, */
const REMOVE_AGAIN_MS = 1000;
/** … but no longer than this: then another process waits for it. */
const REMOVE_AGAIN_AT_MOST_MS = 20_000;
const MAX_MARK_OCTETS = 4096;

interface Seen {
  readonly text: string;
  readonly changedAt: number | undefined;
}

export function createFileLocks(deps: {
  readonly files: StateFiles;
  readonly clock: Clock;
  readonly processes: Processes;
}): FileLocks {
  const { files, clock, processes } = deps;
  /** Locks of this process that nobody holds and that could not be removed: the text of each. */
  const leftBehind = new Map<string, string>();

  /** `since`: before it was written; others count its silence from later on. */
  function keepBeating(
    path: string,
    text: string,
    since: number,
  ): { readonly isHeld: () => boolean; readonly stop: () => void } {
    let seenAt = since;
    let isOver = false;
    const endBeats = every(clock, BEAT_MS, () => {
      sign().catch(() => undefined);
    });
    function stop(): void {
      isOver = true;
      endBeats();
    }
    const isHeld = (): boolean => clock.monotonic() - seenAt < SILENCE_MS;
    async function sign(): Promise<void> {
      const at = clock.monotonic();
      if (isHeld()) await files.touch(path);
      else {
        // Silent for so long it may be another's by now.
        const seen = await look(path);
        if (seen?.text !== text) stop();
        else if (isOver || !(await whereUnchanged(path, seen, () => files.touch(path)))) return;
      }
      if (!isOver) seenAt = at;
    }
    return { isHeld, stop };
  }

  /** Whether the holder elsewhere has stopped to give signs of life. */
  async function isSilent(path: string, before: number | undefined): Promise<boolean> {
    for (let waited = 0; waited < SILENCE_MS; waited += BEAT_MS) {
      await pause(clock, BEAT_MS);
      if ((await files.changedAt(path)) !== before) return false;
    }
    return true;
  }

  function hold(path: string, text: string, since: number, interrupted?: Interruption): FileLock {
    const { isHeld, stop } = keepBeating(path, text, since);
    return {
      interrupted,
      isHeld,
      leave: stop,
      async release() {
        stop();
        try {
          if (isHeld()) await files.remove(path);
          else if (!(await isRemoved(path, text))) removeLater(path, text);
        } catch (error) {
          removeLater(path, text);
          throw error;
        }
      },
    };
  }

  /** A lock of ours that nobody holds: its mark is that of a living process, so that nobody else would ever take it. */
  function removeLater(path: string, text: string, waitMs = REMOVE_AGAIN_MS): void {
    leftBehind.set(path, text);
    const again = (): void => removeLater(path, text, Math.min(2 * waitMs, REMOVE_AGAIN_AT_MOST_MS));
    clock.after(waitMs, () => {
      isRemoved(path, text).then((isGone) => isGone || again(), again);
    });
  }

  /** Undefined where there is one. */
  async function take(path: string): Promise<FileLock | undefined> {
    const text = formatMark(processes.own, clock.now());
    const since = clock.monotonic();
    try {
      await files.create(path, text);
    } catch (error) {
      if (codeOf(error) === 'EEXIST') return undefined;
      removeLater(path, text);
      throw error;
    }
    return hold(path, text, since);
  }

  /** In the place of a dead holder's, at once: nobody takes it in between who does not know of the interruption. */
  async function takeOver(
    path: string,
    seen: Seen,
    interrupted: Interruption,
  ): Promise<FileLock | undefined> {
    const text = formatMark(processes.own, clock.now());
    const since = clock.monotonic();
    const isOurs = await whereUnchanged(path, seen, async () => {
      const aside = `${path}.tmp`;
      await files.remove(aside);
      await files.create(aside, text);
      try {
        await files.rename(aside, path);
      } catch (error) {
        removeLater(path, text);
        throw error;
      }
    });
    return isOurs ? hold(path, text, since, interrupted) : undefined;
  }

  /** Of a holder that was paused, or could not remove it: where it was taken over it is another's. */
  async function isRemoved(path: string, text: string): Promise<boolean> {
    const seen = await look(path);
    const isGone = seen?.text !== text || (await whereUnchanged(path, seen, () => files.remove(path)));
    if (isGone && leftBehind.get(path) === text) leftBehind.delete(path);
    return isGone;
  }

  /**
   * Acts on a lock that is nobody's any more: only who holds the claim on it may, one after the other. False where
   * another one has it, or the lock has changed.
   */
  async function whereUnchanged(path: string, seen: Seen, act: () => Promise<unknown>): Promise<boolean> {
    const claim = await attempt(`${path}.${hashOf(seen.text)}.lock`);
    if (!claim.taken) return false;
    try {
      const now = await look(path);
      if (now?.text !== seen.text || now.changedAt !== seen.changedAt) return false;
      await act();
      return true;
    } finally {
      // What it was wanted for is done; it is tried again.
      await claim.lock.release().catch(() => undefined);
    }
  }

  async function look(path: string): Promise<Seen | undefined> {
    const changedAt = await files.changedAt(path);
    const text = await files.read(path, MAX_MARK_OCTETS);
    return text === undefined ? undefined : { text, changedAt };
  }

  async function attempt(path: string): Promise<LockAttempt> {
    const own = leftBehind.get(path);
    // Where it cannot be removed still, that is the trouble, and no other process.
    if (own !== undefined) await isRemoved(path, own);
    for (let tries = 0; tries < 10; tries += 1) {
      const lock = await take(path);
      if (lock?.isHeld() === true) return { taken: true, lock };
      await lock?.release();
      const seen = await look(path);
      if (seen === undefined) continue;
      const holder = parseMark(seen.text);
      // Its writer is between making the file and filling it, or was killed there.
      const isAlive = holder === undefined ? undefined : processes.isAlive(holder);
      if (isAlive === true) return { taken: false, holder };
      if (isAlive === undefined && !(await isSilent(path, seen.changedAt))) return { taken: false, holder };
      const begunAt = holder?.begunAt ?? clock.now();
      const over = await takeOver(path, seen, { begunAt, isOver: isAlive === false });
      if (over?.isHeld() === true) return { taken: true, lock: over };
      await over?.release();
    }
    return { taken: false, holder: undefined };
  }

  return { attempt };
}

/** Of a dead holder's mark: a name for the claim on it. */
const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 16);
