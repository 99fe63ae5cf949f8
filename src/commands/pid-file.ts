/**
 * Which relay in the background has a pid file. In: its path. Out: a claim for the relay itself, for others the
 * process that holds one. The number in the file is for people and scripts: alone it may be another program's by
 * now. What counts is the lock beside it, which names its holder by number, beginning and place.
 */
import { constants, lstatSync, statSync } from 'node:fs';
import { open, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { explainFileError } from '../accounts/secret-source.ts';
import { systemClock } from '../clock.ts';
import { makeDirectories } from '../directories.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { createFileLocks, type FileLock } from '../tokens/file-lock.ts';
import { createProcesses, parseMark } from '../tokens/process-mark.ts';
import { StateFileRefused, stateFiles } from '../tokens/state-files.ts';
import { EXIT_CONFIGURATION } from './definition.ts';

export interface PidFile {
  /** Says the number. Rejects with `OperatorError`. */
  write(): Promise<void>;
  /** Removes what was written and the claim. */
  release(): Promise<void>;
}

export interface RunningRelay {
  readonly pid: number;
  /** When it began, by the kernel's count: ticks of 10 ms since the boot; '' where it did not tell. */
  readonly started: string;
  isAlive(): boolean;
}

/** Exit code 1: another one runs. */
export const runsAlready = (pid: number | 'unknown', path: string): OperatorError =>
  new OperatorError(`a relay is running already: process ${pid} (${path})`);

/** The claim of this process. Rejects with `OperatorError`, also where another relay has it. */
export async function claimPidFile(path: string): Promise<PidFile> {
  try {
    refuseForeign(path);
    makeDirectories(dirname(path));
    const lock = await takeLock(path);
    let isWritten = false;
    return {
      async write() {
        refuseForeign(path);
        await rm(path, { force: true });
        // A new file: a link that somebody puts here is not followed.
        await writeFile(path, `${process.pid}\n`, { flag: 'wx', mode: 0o600 });
        isWritten = true;
      },
      async release() {
        if (isWritten && lock.isHeld()) await rm(path, { force: true });
        await lock.release();
      },
    };
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    const why = error instanceof StateFileRefused ? error.message : explainFileError(error);
    throw new OperatorError(
      `cannot write the pid file ${path}: ${why}; or name another with --pid-file`,
      EXIT_CONFIGURATION,
      { cause: error },
    );
  }
}

async function takeLock(path: string): Promise<FileLock> {
  const locks = createFileLocks({ files: stateFiles, clock: systemClock, processes: createProcesses() });
  const attempt = await locks.attempt(lockOf(path));
  if (attempt.taken) return attempt.lock;
  throw runsAlready(attempt.holder?.pid ?? 'unknown', path);
}

/** The relay that has the pid file; undefined where none runs for certain. Never waits. */
export async function findRelay(path: string): Promise<RunningRelay | undefined> {
  const lock = await readPlain(lockOf(path));
  const mark = lock === undefined ? undefined : parseMark(lock.text);
  if (lock === undefined || mark === undefined) return undefined;
  const processes = createProcesses();
  const isAlive = (): boolean => processes.isAlive(mark) === true;
  if (!isAlive()) return undefined;
  // Whoever may write the directory could name a process of somebody else.
  const owner = statSync(`/proc/${mark.pid}`, { throwIfNoEntry: false })?.uid ?? lock.uid;
  const { pid, started } = mark;
  return owner === lock.uid ? { pid, started, isAlive } : undefined;
}

/** The number in a pid file that no claim stands beside, where such a process runs: of an earlier version, or no relay. */
export async function findUncertain(path: string): Promise<number | undefined> {
  const text = (await readPlain(path))?.text.trim() ?? '';
  if (!/^\d{1,10}$/.test(text) || Number(text) < 2) return undefined;
  try {
    process.kill(Number(text), 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return undefined;
  }
  return Number(text);
}

/** Why this user cannot know whether a relay has the pid file; undefined: he can. */
export async function whyUnseen(path: string): Promise<string | undefined> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    await (await open(lockOf(path), O_RDONLY | O_NOFOLLOW | O_NONBLOCK)).close();
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'EACCES' || code === 'EPERM' ? explainFileError(error) : undefined;
  }
}

const lockOf = (path: string): string => `${path}.lock`;

/** What has this name and holds no number is not ours to replace. */
function refuseForeign(path: string): void {
  const facts = lstatSync(path, { throwIfNoEntry: false });
  if (facts !== undefined && !(facts.isFile() && facts.size <= MAX_NUMBER_OCTETS))
    throw new StateFileRefused(`something that is no pid file has this name: remove it`);
}

/** A number with its line end. */
const MAX_NUMBER_OCTETS = 12;
const MAX_OCTETS = 4096;

/** Undefined where there is none, or it is no plain file: of a FIFO a reader waits. */
async function readPlain(path: string): Promise<{ text: string; uid: number } | undefined> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch(() => undefined);
  if (file === undefined) return undefined;
  try {
    const facts = await file.stat();
    if (!facts.isFile() || facts.size > MAX_OCTETS) return undefined;
    return { text: await file.readFile('utf8'), uid: facts.uid };
  } finally {
    await file.close();
  }
}
