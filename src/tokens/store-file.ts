/**
 * Grants in a directory, one file per account, readable by the owner only. A file is replaced as a
 * whole and is on the disk before `save` resolves; a damaged one is set aside and reported. Never
 * touches anything but its own files.
 */
import { createHash } from 'node:crypto';
import { access, chmod, constants, mkdir, open, readdir, rename, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../log.ts';
import { SealError, type Sealer } from './sealing.ts';
import { formatStored, parseStored } from './stored-text.ts';
import type { StoredGrant, TokenStore } from './token-store.ts';

export interface FileStoreDeps {
  readonly log: Log;
  /** Without one the files are in the clear. */
  readonly sealer: Sealer | undefined;
  /** ms since the epoch. */
  readonly now?: () => number;
}

/** A record has a few kilobytes; what is larger is something else. */
const MAX_FILE_OCTETS = 256 * 1024;
const OURS = /-[0-9a-f]{16}\.grant$/;
const OUR_LEFTOVER = /-[0-9a-f]{16}\.grant\.\d+\.tmp$/;

/** `open` rejects where the directory cannot be made or written. */
export function createFileStore(directory: string, deps: FileStoreDeps): TokenStore {
  const { log, sealer, now = Date.now } = deps;
  /** Last operation per account: reads and writes of one account never overlap. */
  const queues = new Map<string, Promise<unknown>>();
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

  async function openDirectory(): Promise<void> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const { mode } = await stat(directory);
    if ((mode & 0o077) !== 0) {
      log.warn(
        { event: 'state_dir_open', directory, mode: (mode & 0o777).toString(8) },
        'state directory is accessible to others: chmod 700',
      );
    }
    for (const name of await readdir(directory)) {
      // What a killed process left half-written; the file it was to replace is whole.
      if (OUR_LEFTOVER.test(name)) await unlink(join(directory, name));
    }
    await access(directory, constants.R_OK | constants.W_OK | constants.X_OK);
  }

  async function write(accountId: string, grant: StoredGrant): Promise<void> {
    const path = join(directory, fileName(accountId));
    const half = `${path}.${++temporary}.tmp`;
    try {
      const file = await open(half, 'wx', 0o600);
      try {
        await file.writeFile(formatStored(grant, accountId, sealer));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(half, path);
    } catch (error) {
      await unlink(half).catch(() => undefined);
      throw error;
    }
    // The rename itself is durable only once the directory is.
    await syncDirectory(directory);
  }

  async function read(accountId: string): Promise<StoredGrant | undefined> {
    const path = join(directory, fileName(accountId));
    const text = await readSmall(path);
    if (text === undefined) return undefined;
    try {
      const { grant, stale } = parseStored(text, accountId, sealer);
      if (stale) await write(accountId, grant);
      return grant;
    } catch (error) {
      if (!(error instanceof SealError)) throw error;
      await setAside(path, accountId, error);
      return undefined;
    }
  }

  async function setAside(path: string, accountId: string, error: SealError): Promise<void> {
    const aside = `${path}.${error.code}-${now()}`;
    await rename(path, aside);
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

  async function removeFile(name: string): Promise<boolean> {
    try {
      await unlink(join(directory, name));
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  /** Drops an access token that has ended; a record with nothing else in it goes. */
  async function tidy(accountId: string): Promise<void> {
    const grant = await read(accountId);
    if (grant?.expiresAt === undefined || grant.expiresAt > now()) return;
    const { grantFingerprint, refreshToken, refreshTokenObtainedAt } = grant;
    if (refreshToken === undefined) await removeFile(fileName(accountId));
    else
      await write(accountId, {
        grantFingerprint,
        refreshToken,
        refreshTokenObtainedAt: refreshTokenObtainedAt ?? 0,
      });
  }

  return {
    kind: 'file',
    open: openDirectory,
    load: (accountId) => inTurn(accountId, () => read(accountId)),
    save: (accountId, grant) => inTurn(accountId, () => write(accountId, grant)),
    remove: (accountId) =>
      inTurn(accountId, async () => {
        await removeFile(fileName(accountId));
      }),
    async prune(accountIds) {
      const kept = new Map([...accountIds].map((id) => [fileName(id), id]));
      let gone = 0;
      for (const name of await readdir(directory)) {
        if (!OURS.test(name)) continue;
        const accountId = kept.get(name);
        if (accountId !== undefined) await inTurn(accountId, () => tidy(accountId));
        else if (await removeFile(name)) gone += 1;
      }
      return gone;
    },
    close: async () => {
      await Promise.allSettled(queues.values());
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

async function readSmall(path: string): Promise<string | undefined> {
  try {
    const file = await open(path, 'r');
    try {
      const { size, mode } = await file.stat();
      if (size > MAX_FILE_OCTETS) return '';
      if ((mode & 0o077) !== 0) await chmod(path, 0o600);
      return await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && (error as { code?: unknown }).code === 'ENOENT';
