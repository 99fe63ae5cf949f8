/**
 * Grants in a directory, one file per account, readable by the owner only. A file is replaced as a whole
 * and is on the disk before `rotate` resolves; a damaged one is set aside and reported. Never touches
 * anything but its own files. One relay has the directory; commands share it with that relay, an account
 * at a time.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type Clock, pause, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { createSlices } from '../slices.ts';
import { createConsentFiles } from './consent-files.ts';
import { createFileLocks, type FileLock } from './file-lock.ts';
import { createGrantFiles, fileNameOf, OURS } from './grant-files.ts';
import { createLeftovers } from './leftovers.ts';
import { readMissing, writeMissing } from './missing-accounts.ts';
import { createProcesses, type Processes } from './process-mark.ts';
import { type ConsentHolder, latestFor } from './same-consent.ts';
import type { Sealer } from './sealing.ts';
import { codeOf, StateFileRefused, type StateFiles, stateFiles } from './state-files.ts';
import { afterRotation, isSameGrant, ownGrant, withGrant, withoutEnded, withToken } from './stored-grants.ts';
import type { GrantId, GrantLock, KeptGrant, StoredGrant, TokenStore } from './token-store.ts';

export interface FileStoreDeps {
  readonly log: Log;
  /** Without one the files are in the clear. */
  readonly sealer: Sealer | undefined;
  readonly clock?: Clock;
  /** 0 to 1, for jitter. */
  readonly random?: () => number;
  readonly files?: StateFiles;
  readonly processes?: Processes;
}

export interface FileStoreOptions {
  /** `guest`: a command that shares the directory with the relay; it prunes nothing. Default `owner`. */
  readonly role?: 'owner' | 'guest';
  /** Longest wait for an account that another process refreshes, ms. Default 25,000. */
  readonly lockWaitMs?: number;
}

/** The directory cannot be used as it is; the message names it, why, and the cure. */
export class StateDirectoryError extends Error {
  override readonly name = 'StateDirectoryError';
}

const POLL_MS = 50;
/** Longest wait for another process that changes a file, ms: a dead one elsewhere is noticed by then. */
const WRITE_WAIT_MS = 20_000;
const WRITE_POLL_MS = 5;
const DIRECTORY_LOCK = 'relay.lock';
/** A file may be damaged, or under an old key, or still in the clear, of an account that is served no more; most of so many are not. */
const FILES_TRIED = 50;

const busy = (): Error => Object.assign(new Error('file is busy'), { code: 'EBUSY' });

/** `open` rejects with `StateDirectoryError` where the directory cannot be used, or another relay has it. */
export function createFileStore(
  directory: string,
  deps: FileStoreDeps,
  options: FileStoreOptions = {},
): TokenStore {
  const { log, sealer, clock = systemClock, random = Math.random, files = stateFiles } = deps;
  const processes = deps.processes ?? createProcesses();
  const isOwner = options.role !== 'guest';
  const lockWaitMs = options.lockWaitMs ?? 25_000;
  const locks = createFileLocks({ files, clock, processes });
  const grantFiles = createGrantFiles(directory, { files, sealer, processes, clock, log, isOwner });
  const { pathOf, read, replace } = grantFiles;
  const consents = createConsentFiles(directory, { files, grantFiles, clock });
  /** Last operation per account: reads and writes of one account never overlap. */
  const queues = new Map<string, Promise<unknown>>();
  /** Refresh tokens written beside their file that are not in it yet: the next start puts them there. */
  const halves = new Map<string, string>();
  let directoryLock: FileLock | undefined;
  let openedAt: number | undefined;

  function inTurn<T>(accountId: string, task: () => Promise<T>): Promise<T> {
    const before = queues.get(accountId) ?? Promise.resolve();
    const mine = before.then(task, task);
    queues.set(accountId, mine);
    const done = (): void => {
      if (queues.get(accountId) === mine) queues.delete(accountId);
    };
    mine.then(done, done);
    return mine;
  }

  const writingLock = (path: string): string => `${path}.writing.lock`;

  /**
   * What `task` reads of the file no other process changes before it has written; a command has the directory too.
   * `mayWrite` throws where this process stood still for so long that another one may.
   */
  async function alone<T>(path: string, task: (mayWrite: () => void) => Promise<T>): Promise<T> {
    const deadline = clock.monotonic() + WRITE_WAIT_MS;
    for (;;) {
      const attempt = await locks.attempt(writingLock(path));
      if (attempt.taken) {
        const { lock } = attempt;
        try {
          return await task(() => {
            if (!lock.isHeld()) throw busy();
          });
        } finally {
          // What it was held for is done; it goes as soon as it can.
          await lock.release().catch(() => undefined);
        }
      }
      if (clock.monotonic() > deadline) throw busy();
      await pause(clock, WRITE_POLL_MS * (0.5 + random()));
    }
  }

  /** Reads the grants of an account, puts what `change` makes of them in their place, and answers with its result. */
  const edit = <T>(
    id: GrantId,
    change: (grants: readonly StoredGrant[]) => {
      readonly result: T;
      /** Undefined: as they were. */
      readonly next: readonly StoredGrant[] | undefined;
    },
    isReplacing = false,
  ): Promise<T> =>
    inTurn(id.accountId, () => {
      const path = pathOf(id.accountId);
      return alone(path, async (mayWrite) => {
        const { result, next } = change((await read(id.accountId, isReplacing)).grants);
        if (next === undefined) return result;
        if (next.length > 0) await replace(path, next, mayWrite);
        else {
          mayWrite();
          await files.remove(path);
        }
        consents.seen(id, next);
        return result;
      });
    });

  const leftovers = createLeftovers(directory, {
    files,
    grantFiles,
    locks,
    processes,
    clock,
    log,
    // First that of the consent: whoever refreshes it and finishes this itself is not hindered at the others.
    lockPathsOf: (target, grants) => [
      ...grants.map((grant) => consentLock(grant.grantFingerprint)),
      `${target}.lock`,
      writingLock(target),
    ],
  });

  async function open(): Promise<void> {
    try {
      const { othersMayEnter } = await files.openDirectory(directory);
      if (othersMayEnter)
        log.warn(
          { event: 'state_dir_open', directory },
          'state directory is accessible to others: chmod 700',
        );
      await refuseOtherKey();
      if (!isOwner) return;
      const attempt = await locks.attempt(join(directory, DIRECTORY_LOCK));
      if (!attempt.taken) throw new StateDirectoryError(inUse(attempt.holder));
      directoryLock = attempt.lock;
      openedAt = clock.monotonic();
      await leftovers.finish();
      await sealer?.ready();
    } catch (error) {
      await giveUpDirectory();
      if (error instanceof StateDirectoryError) throw error;
      throw new StateDirectoryError(explain(error), { cause: error });
    }
  }

  /** Where the right key is not given, the newest refresh tokens are not known: nothing is asked with earlier ones. */
  async function refuseOtherKey(): Promise<void> {
    const names = (await files.list(directory)).filter((name) => OURS.test(name)).slice(0, FILES_TRIED);
    const count = { sealed: 0, clear: 0, 'other key': 0, damaged: 0, unread: 0 };
    for (const name of names) count[await grantFiles.kindOf(join(directory, name))] += 1;
    if (count['other key'] > count[sealer === undefined ? 'clear' : 'sealed'])
      throw new StateDirectoryError(
        `the state directory ${directory} is sealed with ${sealer === undefined ? 'a state key, and none' : 'another state key than the one that'} was given: give that one (state_key); where it is lost, remove the *.grant files there, and the accounts go on with the accounts file`,
      );
  }

  async function giveUpDirectory(): Promise<void> {
    await directoryLock?.release().catch(() => undefined);
    directoryLock = undefined;
    openedAt = undefined;
  }

  const inUse = (holder: { readonly pid: number; readonly place: string } | undefined): string =>
    `the state directory ${directory} is in use by another relay (pid ${holder?.pid ?? 'unknown'}): stop it, or give this one a directory of its own (--state-dir)`;

  function explain(error: unknown): string {
    if (error instanceof StateFileRefused) return `state directory: ${error.message}`;
    const words: Readonly<Record<string, string>> = {
      EACCES: 'this user may not write there: change its owner, or give another one',
      EPERM: 'this user may not write there: change its owner, or give another one',
      EROFS: 'it is on a read-only file system: give one that can be written',
      ENOSPC: 'the disk is full: free some space',
      EEXIST: 'it is no directory: give another path',
      ENOTDIR: 'a part of the path is no directory: give another path',
    };
    const code = codeOf(error) ?? 'unknown';
    return `cannot use the state directory ${directory}: ${words[code] ?? code} (--state-dir)`;
  }

  /** Names of those whose file is in the directory, as far as this process has known them. */
  const known = new Map<string, string>();

  const consentLock = (fingerprint: string): string =>
    join(directory, `${createHash('sha256').update(fingerprint).digest('hex').slice(0, 32)}.lock`);

  async function lock(
    accountId: string,
    consent?: string,
    isWanted = (): boolean => true,
  ): Promise<GrantLock | undefined> {
    const path = consent === undefined ? `${pathOf(accountId)}.lock` : consentLock(consent);
    const deadline = clock.monotonic() + lockWaitMs;
    for (;;) {
      const attempt = await locks.attempt(path);
      if (attempt.taken) return attempt.lock;
      if (clock.monotonic() > deadline || !isWanted()) return undefined;
      await pause(clock, POLL_MS * (0.5 + random()));
    }
  }

  async function elsewhere(
    holder: ConsentHolder,
    { unread, isThorough }: { readonly unread: readonly string[]; readonly isThorough: boolean },
  ): Promise<StoredGrant | undefined> {
    const own = pathOf(holder.accountId);
    // Before the files: what finds its place meanwhile is in one of them.
    const left = await leftovers.read(isThorough);
    const beside = await consents.with(holder.fingerprint, isThorough);
    const paths = new Set(beside.paths);
    paths.delete(own);
    for (const id of unread) paths.add(pathOf(id));
    let anybodys = beside.unread;
    for (const { target, unread } of left) {
      if (unread === undefined) continue;
      const consent = await consents.of(target);
      if (target === own || paths.has(target) || consent === holder.fingerprint) throw unread;
      if (consent === undefined) anybodys ??= unread;
    }
    const read = await Promise.all([...paths].map((path) => grantFiles.readOrReject(path)));
    const found = latestFor(
      holder,
      [...left.map(({ grants }) => grants), ...read].map((grants) => ownGrant(grants ?? [], holder)),
    );
    const half = left.find(
      ({ target, grants }) =>
        target === own && grants.some((grant) => grant.refreshToken === found?.refreshToken),
    );
    // Then it goes when it has found its place.
    if (found?.refreshToken !== undefined && half?.isDead) halves.set(found.refreshToken, half.path);
    // It may have the consent of anybody, but hardly of who has a later one than the operator gave.
    if (anybodys !== undefined && found === undefined && holder.generation === 0) throw anybodys;
    return found;
  }

  /** The relay beside this command looks for what is its own: it finds there what came here. */
  async function handOn(id: GrantId, grant: StoredGrant): Promise<void> {
    for (const path of (await consents.with(id.fingerprint, false)).paths) {
      if (path === pathOf(id.accountId)) continue;
      await alone(path, async (mayWrite) => {
        const grants = (await grantFiles.readQuietly(path)) ?? [];
        const other = grants.find((each) => isSameGrant(each, grant));
        if (other !== undefined && other.generation < grant.generation)
          await replace(path, withGrant(grants, { ...grant, tokens: other.tokens }), mayWrite);
      });
    }
  }

  return {
    kind: 'file',
    open,
    load: (id) =>
      inTurn(id.accountId, async () => {
        const path = pathOf(id.accountId);
        let { grants, isStale } = await read(id.accountId);
        // What a command wrote otherwise its relay could not read perhaps.
        if (isStale && isOwner)
          await alone(path, async (mayWrite) => {
            ({ grants, isStale } = await read(id.accountId));
            if (isStale) await replace(path, grants, mayWrite);
          });
        consents.seen(id, grants);
        const found = ownGrant(grants, id);
        await sealer?.ready();
        return found === undefined ? undefined : withoutEnded(found, clock.now());
      }),
    elsewhere,
    serves: consents.serves,
    async rotate(id, rotation) {
      const path = pathOf(id.accountId);
      // Before anything else, and beside what is there: a SIGKILL after this line loses nothing.
      const { grant: came } = afterRotation(undefined, id.fingerprint, rotation, {});
      const first = halves.get(rotation.refreshToken) ?? (await grantFiles.prepare(path, [came]));
      halves.set(rotation.refreshToken, first);
      const tokens = await rotation.tokens;
      const rotate = (grants: readonly StoredGrant[]) => {
        const before = grants.find((each) => isSameGrant(each, came));
        const after = afterRotation(before, id.fingerprint, rotation, tokens);
        return { result: after, next: after.result.kept ? withGrant(grants, after.grant) : undefined };
      };
      const { result, grant } = await edit(id, rotate, true);
      halves.delete(rotation.refreshToken);
      await files.remove(first).catch(() => undefined);
      if (result.kept && !isOwner) await handOn(id, grant).catch(() => undefined);
      return result;
    },
    saveToken: (id, resource, token) =>
      edit(id, (grants) => {
        const before = ownGrant(grants, id);
        if (before === undefined && token === undefined) return { result: undefined, next: undefined };
        const grant = withoutEnded(withToken(before, id.fingerprint, resource, token), clock.now());
        const others = grants.filter((each) => each !== before);
        return { result: undefined, next: grant === undefined ? others : withGrant(grants, grant) };
      }),
    async prune(accountIds, forgetAfterMs) {
      if (!isOwner) return { gone: 0, kept: [] };
      const wanted = new Set<string>();
      const slices = createSlices(clock);
      for (const id of accountIds) {
        const name = fileNameOf(id);
        wanted.add(name);
        known.set(name, id);
        if (slices.isOver) await slices.rest();
      }
      const missing = await readMissing(directory, files);
      const before = JSON.stringify([...missing]);
      const names = new Set<string>();
      for (const name of await files.list(directory)) {
        if (!wanted.has(name) && OURS.test(name)) names.add(name);
        if (slices.isOver) await slices.rest();
      }
      for (const name of missing.keys()) if (!names.has(name)) missing.delete(name);
      const now = clock.now();
      const kept: KeptGrant[] = [];
      let gone = 0;
      for (const name of names) {
        const accountId = known.get(name) ?? missing.get(name)?.accountId ?? name.replace(OURS, '');
        const since = Math.min(missing.get(name)?.since ?? now, now);
        if (since + forgetAfterMs > now) {
          missing.set(name, { accountId, since });
          kept.push({ accountId, until: since + forgetAfterMs });
        } else {
          missing.delete(name);
          known.delete(name);
          const path = join(directory, name);
          if (await inTurn(accountId, () => alone(path, () => files.remove(path)))) gone += 1;
        }
      }
      if (JSON.stringify([...missing]) !== before) await writeMissing(directory, missing, files, grantFiles);
      return { gone, kept };
    },
    lock,
    // Commands share the directory, but ask for nothing while they cannot use it.
    aloneSince: () => openedAt,
    async close() {
      await Promise.allSettled(queues.values());
      await giveUpDirectory();
    },
  };
}
