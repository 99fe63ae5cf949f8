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
import { parseJsonObject } from '../protocol/token-failure.ts';
import { createSlices } from '../slices.ts';
import { createFileLocks, type FileLock } from './file-lock.ts';
import { createProcesses, type Processes } from './process-mark.ts';
import { SealError, type Sealer } from './sealing.ts';
import { codeOf, StateFileRefused, type StateFiles, stateFiles } from './state-files.ts';
import {
  afterRotation,
  formatStored,
  parseStored,
  withGrant,
  withoutEnded,
  withToken,
} from './stored-text.ts';
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

/** A record has a few kilobytes per grant; what is larger is something else. */
const MAX_FILE_OCTETS = 1024 * 1024;
const POLL_MS = 50;
const OURS = /-[0-9a-f]{16}\.grant$/;
/** Written whole or not at all; the process that wrote it may have ended before it took the file's place. */
const LEFTOVER = /^(.*-[0-9a-f]{16}\.grant)\.[\d.]+\.tmp$/;
const LOCK_LEFTOVER = /\.lock\.[\d.]+\.tmp$/;
const DIRECTORY_LOCK = 'relay.lock';
/** Since when accounts are missing from the accounts file. */
const MISSING = 'missing.json';

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
  /** Last operation per account: reads and writes of one account never overlap. */
  const queues = new Map<string, Promise<unknown>>();
  let directoryLock: FileLock | undefined;
  let openedAt: number | undefined;
  let temporary = 0;

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

  const temporaryName = (path: string): string => `${path}.${processes.own.pid}.${++temporary}.tmp`;

  async function open(): Promise<void> {
    try {
      const { othersMayEnter } = await files.openDirectory(directory);
      if (othersMayEnter)
        log.warn(
          { event: 'state_dir_open', directory },
          'state directory is accessible to others: chmod 700',
        );
      if (!isOwner) return;
      const attempt = await locks.attempt(join(directory, DIRECTORY_LOCK));
      if (!attempt.taken) throw new StateDirectoryError(inUse(attempt.holder));
      directoryLock = attempt.lock;
      openedAt = clock.monotonic();
      await finishLeftovers();
      const any = (await files.list(directory)).find((name) => OURS.test(name));
      if (any !== undefined) await readQuietly(join(directory, any));
      await sealer?.ready();
    } catch (error) {
      if (error instanceof StateDirectoryError) throw error;
      throw new StateDirectoryError(explain(error), { cause: error });
    }
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

  /** What a killed process had written and not yet put in place: its refresh token may be the only good one. */
  async function finishLeftovers(): Promise<void> {
    for (const name of await files.list(directory)) {
      const path = join(directory, name);
      const target = LEFTOVER.exec(name)?.[1];
      if (target !== undefined) await finish(path, join(directory, target));
      else if (LOCK_LEFTOVER.test(name)) await files.remove(path);
    }
  }

  async function finish(path: string, target: string): Promise<void> {
    const half = (await readQuietly(path)) ?? [];
    const whole = (await readQuietly(target)) ?? [];
    const generationOf = (fingerprint: string): number =>
      whole.find((grant) => grant.grantFingerprint === fingerprint)?.generation ?? 0;
    const newer = half.filter((grant) => grant.generation > generationOf(grant.grantFingerprint));
    if (newer.length > 0) {
      await replace(target, newer.reduce(withGrant, whole));
      log.warn(
        { event: 'state_file_finished', file: target },
        'the last run was killed while it saved a refresh token: finished',
      );
    }
    await files.remove(path);
  }

  /** The record in a file whose account is not known. */
  async function readQuietly(path: string): Promise<readonly StoredGrant[] | undefined> {
    try {
      const text = await files.read(path, MAX_FILE_OCTETS);
      return text === undefined ? undefined : (await parseStored(text, nameInSeal(path), sealer)).grants;
    } catch {
      return undefined;
    }
  }

  /** A new file with these grants that is to take the place of `path`. */
  async function prepare(path: string, grants: readonly StoredGrant[]): Promise<string> {
    const half = temporaryName(path);
    const text = await formatStored(grants, nameInSeal(path), sealer);
    try {
      await files.create(half, text);
    } catch (error) {
      await files.remove(half).catch(() => undefined);
      throw error;
    }
    return half;
  }

  async function replace(path: string, grants: readonly StoredGrant[]): Promise<void> {
    const half = await prepare(path, grants);
    try {
      await files.sync(half);
      await files.rename(half, path);
    } catch (error) {
      await files.remove(half).catch(() => undefined);
      throw error;
    }
    // The rename itself is durable only once the directory is.
    await files.sync(directory);
  }

  const pathOf = (accountId: string): string => join(directory, fileName(accountId));

  async function read(accountId: string): Promise<readonly StoredGrant[]> {
    const path = pathOf(accountId);
    try {
      const text = await files.read(path, MAX_FILE_OCTETS);
      if (text === undefined) return [];
      const { grants, stale } = await parse(text, path, accountId);
      if (stale) await replace(path, grants);
      return grants;
    } catch (error) {
      if (!(error instanceof SealError || error instanceof StateFileRefused)) throw error;
      await setAside(path, accountId, error);
      return [];
    }
  }

  /** Version 0.1 bound a record to its account's id instead of its file's name. */
  async function parse(text: string, path: string, accountId: string): ReturnType<typeof parseStored> {
    try {
      return await parseStored(text, nameInSeal(path), sealer);
    } catch (error) {
      if (!(error instanceof SealError) || error.code !== 'damaged') throw error;
      const { grants } = await parseStored(text, accountId, sealer);
      return { grants, stale: true };
    }
  }

  async function setAside(path: string, accountId: string, error: SealError | StateFileRefused) {
    const aside = `${path}.${error.code.toLowerCase()}-${clock.now()}`;
    await files.rename(path, aside);
    log.error(
      {
        event: 'state_file_set_aside',
        account: accountId,
        file: aside,
        class: error.code,
        reason: error.message,
      },
      'stored tokens of an account cannot be read: set aside, going on with the accounts file',
    );
  }

  const find = (grants: readonly StoredGrant[], id: GrantId): StoredGrant | undefined =>
    grants.find((grant) => grant.grantFingerprint === id.fingerprint);

  async function readMissing(): Promise<Map<string, KeptGrant & { readonly since: number }>> {
    const text = await files.read(join(directory, MISSING), MAX_FILE_OCTETS).catch(() => undefined);
    const rows = Object.entries(parseJsonObject(text ?? '') ?? {}).flatMap(([name, row]) => {
      const { account, since } = (row ?? {}) as { account?: unknown; since?: unknown };
      if (typeof account !== 'string' || typeof since !== 'number') return [];
      return [[name, { accountId: account, since, until: 0 }] as const];
    });
    return new Map(rows);
  }

  async function writeMissing(rows: ReadonlyMap<string, { accountId: string; since: number }>) {
    const path = join(directory, MISSING);
    if (rows.size === 0) {
      await files.remove(path);
      return;
    }
    const half = temporaryName(path);
    const facts = [...rows].map(([name, { accountId, since }]) => [name, { account: accountId, since }]);
    await files.create(half, JSON.stringify(Object.fromEntries(facts)));
    await files.rename(half, path);
  }

  /** Names of those whose file is in the directory, as far as this process has known them. */
  const known = new Map<string, string>();

  async function lock(accountId: string): Promise<GrantLock | undefined> {
    const path = `${pathOf(accountId)}.lock`;
    const deadline = clock.monotonic() + lockWaitMs;
    for (;;) {
      const attempt = await locks.attempt(path);
      if (attempt.taken) return attempt.lock;
      if (clock.monotonic() > deadline) return undefined;
      await pause(clock, POLL_MS * (0.5 + random()));
    }
  }

  return {
    kind: 'file',
    open,
    load: (id) =>
      inTurn(id.accountId, async () => {
        const found = find(await read(id.accountId), id);
        await sealer?.ready();
        return found === undefined ? undefined : withoutEnded(found, clock.now());
      }),
    async rotate(id, rotation) {
      const path = pathOf(id.accountId);
      // Before anything else, and beside what is there: a SIGKILL after this line loses nothing.
      const first = await prepare(path, [afterRotation(undefined, id.fingerprint, rotation, {}).grant]);
      try {
        const tokens = await rotation.tokens;
        return await inTurn(id.accountId, async () => {
          const grants = await read(id.accountId);
          const { result, grant } = afterRotation(find(grants, id), id.fingerprint, rotation, tokens);
          if (result.kept) await replace(path, withGrant(grants, grant));
          return result;
        });
      } finally {
        await files.remove(first).catch(() => undefined);
      }
    },
    saveToken: (id, resource, token) =>
      inTurn(id.accountId, async () => {
        const grants = await read(id.accountId);
        const before = find(grants, id);
        if (before === undefined && token === undefined) return;
        const grant = withoutEnded(withToken(before, id.fingerprint, resource, token), clock.now());
        const next =
          grant === undefined
            ? grants.filter((g) => g.grantFingerprint !== id.fingerprint)
            : withGrant(grants, grant);
        if (next.length === 0) await files.remove(pathOf(id.accountId));
        else await replace(pathOf(id.accountId), next);
      }),
    async prune(accountIds, forgetAfterMs) {
      if (!isOwner) return { gone: 0, kept: [] };
      const wanted = new Set<string>();
      const slices = createSlices(clock);
      for (const id of accountIds) {
        const name = fileName(id);
        wanted.add(name);
        known.set(name, id);
        if (slices.isOver) await slices.rest();
      }
      const missing = await readMissing();
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
          missing.set(name, { accountId, since, until: 0 });
          kept.push({ accountId, until: since + forgetAfterMs });
        } else {
          missing.delete(name);
          known.delete(name);
          if (await inTurn(accountId, () => files.remove(join(directory, name)))) gone += 1;
        }
      }
      if (JSON.stringify([...missing]) !== before) await writeMissing(missing);
      return { gone, kept };
    },
    lock,
    // Commands share the directory, but ask for nothing while they cannot use it.
    aloneSince: () => openedAt,
    async close() {
      await Promise.allSettled(queues.values());
      await directoryLock?.release().catch(() => undefined);
      directoryLock = undefined;
    },
  };
}

/** Readable in a listing, and distinct for every id whatever characters it has. */
function fileName(accountId: string): string {
  const readable = accountId
    .replace(/[^\w@+.-]/g, '_')
    .replace(/^\.+/, '_')
    .slice(0, 80);
  const distinct = createHash('sha256').update(accountId).digest('hex').slice(0, 16);
  return `${readable}-${distinct}.grant`;
}

/** A record is bound to the file it stands in; a leftover is a file that was to be this one. */
const nameInSeal = (path: string): string =>
  /^.*-[0-9a-f]{16}\.grant/.exec(
    path.slice(Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1),
  )?.[0] ?? path;
