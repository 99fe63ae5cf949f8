/**
 * What a killed process had written and not yet put in place, or what was set aside: its refresh token may be the only
 * good one. In: the state directory. Out: at the start of a relay its files whole; later what others have left there, to be
 * read as those are.
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
  /** At the start of a relay: puts all of it in its place that can be put there. */
  finish(): Promise<void>;
  /** What other processes have written beside the files, as of now; where not `isFresh`, as of a moment ago. */
  read(isFresh: boolean): Promise<readonly Leftover[]>;
}

export interface Leftover {
  readonly path: string;
  /** The file whose place it was to take. */
  readonly target: string;
  /** None where it is damaged, or has gone. */
  readonly grants: readonly StoredGrant[];
  /** It may be a record, and cannot be read. */
  readonly unread: UnreadFile | undefined;
  /** Whoever wrote it has ended. */
  readonly isDead: boolean;
}

/** The directory is looked through at most this often, ms: it may have 100,000 files… */
const LOOK_EVERY_MS = 1000;
/** … and where nothing points to a dead process, so often that it takes less than this part of the time. */
const LOOKING_PART = 1 / 20;

export function createLeftovers(
  directory: string,
  deps: LeftoverDeps & { readonly clock: Clock },
): Leftovers {
  const { files, grantFiles, clock, processes, log } = deps;
  const ownMark = `${processes.own.pid}.${processes.own.started}.`;
  let lookedAt = Number.NEGATIVE_INFINITY;
  let isGoodUntil = Number.NEGATIVE_INFINITY;
  let last: Promise<readonly string[]> = Promise.resolve([]);
  let coming: Promise<readonly string[]> | undefined;

  async function list(): Promise<readonly string[]> {
    const waitMs = lookedAt + LOOK_EVERY_MS - clock.monotonic();
    if (waitMs > 0) await pause(clock, waitMs);
    lookedAt = clock.monotonic();
    // Whoever comes meanwhile waits for this one.
    isGoodUntil = lookedAt + LOOK_EVERY_MS;
    coming = undefined;
    const names = (await files.list(directory)).filter(
      (name) => name.endsWith('.tmp') && LEFTOVER.exec(name)?.[2]?.startsWith(ownMark) === false,
    );
    const now = clock.monotonic();
    isGoodUntil = Math.max(isGoodUntil, now + (now - lookedAt) / LOOKING_PART);
    return names.map((name) => join(directory, name));
  }

  /** Each by itself: one that cannot be put in its place is left there. */
  async function finishOne(path: string): Promise<void> {
    try {
      await finish(path, deps);
    } catch (error) {
      const why = error instanceof UnreadFile ? error.cause : error;
      log.error(
        { event: 'state_file_unfinished', file: path, reason: reasonOf(why) },
        why instanceof StateFileRefused ? why.message : 'a refresh token cannot be put in its place',
      );
    }
  }

  function listed(isFresh: boolean): Promise<readonly string[]> {
    if (!isFresh && clock.monotonic() < isGoodUntil) return last;
    if (coming === undefined) {
      coming = last.then(list, list);
      last = coming;
    }
    return coming;
  }

  async function readOne(path: string): Promise<Leftover> {
    const facts = { path, target: targetOf(path), isDead: !isBeingWritten(path, processes) };
    try {
      return { ...facts, grants: (await grantFiles.readOrReject(path)) ?? [], unread: undefined };
    } catch (error) {
      // What a living process has only just made is not whole.
      return { ...facts, grants: [], unread: facts.isDead ? (error as UnreadFile) : undefined };
    }
  }

  return {
    async finish() {
      const left = new Map<string, string[]>();
      for (const name of await files.list(directory)) {
        const path = join(directory, name);
        if (LEFTOVER.test(name)) left.set(targetOf(path), [...(left.get(targetOf(path)) ?? []), path]);
        else if (WORTHLESS.test(name)) await files.remove(path);
      }
      await Promise.all(
        [...left.values()].map(async (paths) => {
          for (const path of paths) await finishOne(path);
        }),
      );
    },
    read: async (isFresh) => Promise.all((await listed(isFresh)).map(readOne)),
  };
}

const targetOf = (path: string): string => LEFTOVER.exec(path)?.[1] ?? '';

async function finish(path: string, deps: LeftoverDeps): Promise<void> {
  const { files, grantFiles, locks } = deps;
  const target = targetOf(path);
  const half = await grantFiles.readQuietly(path);
  if (half === undefined) {
    if (isBeingWritten(path, deps.processes)) return;
    const kind = await grantFiles.kindOf(path);
    if (kind === 'damaged') await files.remove(path);
    // What is another user's, or what a disk does not give now, may be the only good one.
    if (kind === 'unread') await grantFiles.readOrReject(path);
    return;
  }
  const held: FileLock[] = [];
  try {
    for (const lockPath of deps.lockPathsOf(target, half)) {
      const attempt = await locks.attempt(lockPath);
      // Whoever refreshes it just now puts it in place.
      if (!attempt.taken) return;
      held.push(attempt.lock);
    }
    const kind = await grantFiles.kindOf(target);
    if (kind === 'unread' && (await files.changedAt(target)) !== undefined) return;
    if (kind === 'other key') await grantFiles.moveAside(target, 'unknown_key');
    await putInPlace(half, { target, wasSetAside: SET_ASIDE.test(path) }, deps, () => {
      if (held.some((lock) => !lock.isHeld())) throw new Error('it stood still for too long');
    });
    if (!isBeingWritten(path, deps.processes)) await files.remove(path);
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
