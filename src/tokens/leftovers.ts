/**
 * What a killed process had written and not yet put in place, or what was set aside: its refresh token may be the only
 * good one. In: the state directory at the start of a relay, or when a refresh token was refused. Out: its files whole. What
 * a living process is just writing is left to it.
 */
import { join } from 'node:path';
import { type Clock, pause } from '../clock.ts';
import type { Log } from '../log.ts';
import type { FileLock, FileLocks } from './file-lock.ts';
import type { GrantFiles } from './grant-files.ts';
import type { Processes } from './process-mark.ts';
import { StateFileRefused, type StateFiles } from './state-files.ts';
import { reasonOf } from './store-watch.ts';
import { isSameGrant, withGrant } from './stored-grants.ts';
import type { StoredGrant } from './token-store.ts';
import { UnreadFile } from './unreadable.ts';

/**
 * Written whole or not at all; the process that wrote it may have ended before it took the file's place. Or set aside
 * because its key was not given: now it may be.
 */
const LEFTOVER = /^(.*-[0-9a-f]{16}\.grant)\.(?:([\d.]+)\.tmp|unknown_key-\d+)$/;
const SET_ASIDE = /\.unknown_key-\d+$/;
/** Of locks and of the list of missing accounts: nothing is lost with them. */
const WORTHLESS = /(?:\.lock|^missing\.json)\.[\d.]+\.tmp$/;

export interface LeftoverDeps {
  readonly files: StateFiles;
  readonly grantFiles: GrantFiles;
  readonly locks: FileLocks;
  readonly processes: Processes;
  readonly log: Log;
  /** Paths of the locks under which these grants of the file are refreshed. */
  readonly lockPathsOf: (target: string, grants: readonly StoredGrant[]) => readonly string[];
}

export interface Leftovers {
  /** At the start of a relay, all of it. */
  finish(): Promise<void>;
  /** Only what dead processes have left; the lock at `ownLock` is held by whoever calls. */
  finishOfDead(ownLock: string): Promise<void>;
  /** Tries once more where something is left beside the file at `path`. Rejects with why it cannot be put in place. */
  refuseUnfinished(path: string): Promise<void>;
}

/** The directory is looked through for what dead processes left at most this often, ms: it may have 100,000 files. */
const LOOK_EVERY_MS = 1000;

export function createLeftovers(
  directory: string,
  deps: LeftoverDeps & { readonly clock: Clock },
): Leftovers {
  const { files, clock, processes, log } = deps;
  /** By the file whose place they could not take. */
  const unfinished = new Map<string, { readonly names: readonly string[]; readonly error: unknown }>();
  let lookedAt = Number.NEGATIVE_INFINITY;
  let last: Promise<readonly string[]> = Promise.resolve([]);
  let coming: Promise<readonly string[]> | undefined;

  async function list(): Promise<readonly string[]> {
    const waitMs = lookedAt + LOOK_EVERY_MS - clock.monotonic();
    if (waitMs > 0) await pause(clock, waitMs);
    lookedAt = clock.monotonic();
    coming = undefined;
    return (await files.list(directory)).filter(
      (name) => LEFTOVER.test(name) && !SET_ASIDE.test(name) && !isBeingWritten(name, processes),
    );
  }

  /** As it is from now on: what came before the caller was told to look is in it. */
  function listed(): Promise<readonly string[]> {
    if (coming === undefined) {
      coming = last.then(list, list);
      last = coming;
    }
    return coming;
  }

  /** Each by itself: one that cannot be finished is its account's trouble alone. Never rejects. */
  async function finishAll(left: readonly string[], ownLock?: string): Promise<void> {
    const byTarget = new Map<string, string[]>();
    for (const name of left) {
      const target = join(directory, LEFTOVER.exec(name)?.[1] ?? '');
      byTarget.set(target, [...(byTarget.get(target) ?? []), name]);
    }
    await Promise.all([...byTarget].map(([target, names]) => finishFor(target, names, ownLock)));
  }

  async function finishFor(target: string, names: readonly string[], ownLock?: string): Promise<void> {
    try {
      let isDone = true;
      for (const name of names)
        if (!(await finish(join(directory, name), target, deps, ownLock))) isDone = false;
      if (isDone) unfinished.delete(target);
    } catch (error) {
      const why = error instanceof UnreadFile ? error.cause : error;
      if (!unfinished.has(target))
        log.error(
          { event: 'state_file_unfinished', file: target, left: names, reason: reasonOf(why) },
          why instanceof StateFileRefused ? why.message : 'a refresh token cannot be put in its place',
        );
      unfinished.set(target, { names, error });
    }
  }

  return {
    async finish() {
      const left: string[] = [];
      for (const name of await files.list(directory)) {
        if (LEFTOVER.test(name)) left.push(name);
        else if (WORTHLESS.test(name)) await files.remove(join(directory, name));
      }
      await finishAll(left);
    },
    finishOfDead: async (ownLock) => finishAll(await listed(), ownLock),
    async refuseUnfinished(path) {
      const { names } = unfinished.get(path) ?? {};
      if (names !== undefined) await finishFor(path, names);
      const left = unfinished.get(path);
      if (left !== undefined) throw left.error;
    },
  };
}

/** False: whoever refreshes it just now puts it in place. */
async function finish(path: string, target: string, deps: LeftoverDeps, ownLock?: string): Promise<boolean> {
  const { files, grantFiles, locks } = deps;
  const half = await grantFiles.readQuietly(path);
  if (half === undefined) {
    if (isBeingWritten(path, deps.processes)) return true;
    const kind = await grantFiles.kindOf(path);
    if (kind === 'damaged') await files.remove(path);
    // What is another user's, or what a disk does not give now, may be the only good one.
    if (kind === 'unread') await grantFiles.readOrReject(path);
    return true;
  }
  const held: FileLock[] = [];
  try {
    for (const lockPath of deps.lockPathsOf(target, half)) {
      if (lockPath === ownLock) continue;
      const attempt = await locks.attempt(lockPath);
      if (!attempt.taken) return false;
      held.push(attempt.lock);
    }
    const kind = await grantFiles.kindOf(target);
    if (kind === 'unread' && (await files.changedAt(target)) !== undefined) return true;
    if (kind === 'other key') await grantFiles.moveAside(target, 'unknown_key');
    await putInPlace(half, { target, wasSetAside: SET_ASIDE.test(path) }, deps, () => {
      if (held.some((lock) => !lock.isHeld())) throw new Error('it stood still for too long');
    });
    if (!isBeingWritten(path, deps.processes)) await files.remove(path);
    return true;
  } finally {
    await Promise.allSettled(held.map((lock) => lock.release()));
  }
}

async function putInPlace(
  half: readonly StoredGrant[],
  { target, wasSetAside }: { readonly target: string; readonly wasSetAside: boolean },
  { grantFiles, log }: LeftoverDeps,
  mayReplace: () => void,
): Promise<void> {
  const whole = (await grantFiles.readQuietly(target)) ?? [];
  const newer = half.filter((grant) => {
    const other = whole.find((each) => isSameGrant(each, grant));
    // Since it was set aside the generations may have begun anew.
    const isOlder = wasSetAside && obtainedAt(other) > obtainedAt(grant);
    return grant.generation > (other?.generation ?? 0) && !isOlder;
  });
  if (newer.length === 0) return;
  await grantFiles.replace(target, newer.reduce(withGrant, whole), mayReplace);
  log.warn(
    { event: 'state_file_finished', file: target },
    'a refresh token that had not found its place, as its run was killed or had another key, is there now',
  );
}

const obtainedAt = (grant: StoredGrant | undefined): number => grant?.refreshTokenObtainedAt ?? 0;

/** By the name its writer gave it: process id, when that process began, a count. */
function isBeingWritten(path: string, processes: Processes): boolean {
  const [pid, started, count] = (LEFTOVER.exec(path)?.[2] ?? '').split('.');
  if (!pid || !started || count === undefined) return false;
  return processes.isAlive({ ...processes.own, pid: Number(pid), started }) === true;
}
