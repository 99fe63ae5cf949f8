/**
 * The files that grants stand in, one per account, readable by the owner only. In: an account or a path. Out: its
 * records; a file is replaced as a whole and is on the disk then, a damaged one is set aside and reported. Never
 * touches anything but its own files.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { createSemaphore } from '../semaphore.ts';
import type { Processes } from './process-mark.ts';
import { isSealed, SealError, type Sealer } from './sealing.ts';
import { StateFileRefused, type StateFiles } from './state-files.ts';
import { formatStored, parseStored } from './stored-text.ts';
import type { StoredGrant } from './token-store.ts';
import { UnreadFile } from './unreadable.ts';

/** Of a thousand files with one consent each would be a descriptor. */
export const READS_AT_ONCE = 16;
/** A record has a few kilobytes per grant; what is larger is something else. */
export const MAX_FILE_OCTETS = 1024 * 1024;

export const OURS = /-[0-9a-f]{16}\.grant$/;

/** Codes of what cannot be read by this process as it was started, and perhaps by another one. */
const MAY_BE_GOOD: ReadonlySet<string> = new Set(['unknown_key', 'STATE_FILE_FOREIGN']);

const isOfFile = (error: unknown): error is SealError | StateFileRefused =>
  error instanceof SealError || error instanceof StateFileRefused;

/** What nobody can read, or no relay made. */
const isWorthless = (error: unknown): boolean => isOfFile(error) && !MAY_BE_GOOD.has(error.code);

const NOTHING = { grants: [], isStale: false };

/** `other key`: whole perhaps, and sealed with a state key that was not given. `unread`: not there, or it cannot be read now. */
export type GrantFileKind = 'sealed' | 'clear' | 'other key' | 'damaged' | 'unread';

export interface GrantFiles {
  pathOf(accountId: string): string;
  /** `isReplacing`: what is sealed with a key that was not given, or another user's, goes out of the way; else it rejects. */
  read(accountId: string, isReplacing?: boolean): ReturnType<typeof parseStored>;
  /** The record in a file whose account need not be known; undefined where there is none that can be read. */
  readQuietly(path: string): Promise<readonly StoredGrant[] | undefined>;
  /** As `readQuietly`, but rejects with `UnreadFile` where there may be a record that cannot be read now. */
  readOrReject(path: string): Promise<readonly StoredGrant[] | undefined>;
  /** Never rejects. */
  kindOf(path: string): Promise<GrantFileKind>;
  /** Out of the way, under a name that says why. */
  moveAside(path: string, code: string): Promise<string>;
  /** A new file with these grants that is to take the place of `path`. */
  prepare(path: string, grants: readonly StoredGrant[]): Promise<string>;
  /** Durable when it resolves. `mayReplace` throws where the file is no longer to be replaced: asked in the last moment. */
  replace(path: string, grants: readonly StoredGrant[], mayReplace: () => void): Promise<void>;
  /** A name beside `path` that says whose it is. */
  temporaryName(path: string): string;
}

export function createGrantFiles(
  directory: string,
  deps: {
    readonly files: StateFiles;
    readonly sealer: Sealer | undefined;
    readonly processes: Processes;
    readonly clock: Clock;
    readonly log: Log;
    /** Without it what cannot be read is the owner's trouble: `read` rejects. */
    readonly isOwner: boolean;
  },
): GrantFiles {
  const { files, sealer, processes, clock, log, isOwner } = deps;
  let temporary = 0;

  const { pid, started } = processes.own;
  /** Files in the clear beside which a command with a key stands: their relay has none. */
  const inTheClear = new Set<string>();
  const reads = createSemaphore(READS_AT_ONCE);
  const textOf = (path: string): ReturnType<StateFiles['read']> =>
    reads.run(() => files.read(path, MAX_FILE_OCTETS));
  const temporaryName = (path: string): string => `${path}.${pid}.${started}.${++temporary}.tmp`;

  async function parseAny(text: string, path: string): Promise<readonly StoredGrant[]> {
    const name = nameInSeal(path);
    // Version 0.1 sealed under the account's id, which most names begin with.
    const id = name.replace(OURS, '');
    return (await (fileNameOf(id) === name ? parse(text, path, id) : parseStored(text, name, sealer))).grants;
  }

  async function readQuietly(path: string): Promise<readonly StoredGrant[] | undefined> {
    const text = await textOf(path).catch(() => undefined);
    return text === undefined ? undefined : parseAny(text, path).catch(() => undefined);
  }

  async function readOrReject(path: string): Promise<readonly StoredGrant[] | undefined> {
    try {
      const text = await textOf(path);
      return text === undefined ? undefined : await parseAny(text, path);
    } catch (error) {
      if (isWorthless(error)) return undefined;
      throw new UnreadFile(path, error);
    }
  }

  async function kindOf(path: string): Promise<GrantFileKind> {
    const text = await textOf(path).catch(() => undefined);
    if (text === undefined) return 'unread';
    return parseAny(text, path).then(
      () => (isSealed(text) ? 'sealed' : 'clear'),
      (error: unknown) =>
        error instanceof SealError && error.code === 'unknown_key' ? 'other key' : 'damaged',
    );
  }

  async function prepare(path: string, grants: readonly StoredGrant[]): Promise<string> {
    const half = temporaryName(path);
    const text = await formatStored(grants, nameInSeal(path), inTheClear.has(path) ? undefined : sealer);
    try {
      await files.create(half, text);
    } catch (error) {
      await files.remove(half).catch(() => undefined);
      throw error;
    }
    return half;
  }

  async function replace(
    path: string,
    grants: readonly StoredGrant[],
    mayReplace: () => void,
  ): Promise<void> {
    const half = await prepare(path, grants);
    try {
      await files.sync(half);
      mayReplace();
      await files.rename(half, path);
    } catch (error) {
      await files.remove(half).catch(() => undefined);
      throw error;
    }
    // The rename itself is durable only once the directory is.
    await files.sync(directory);
  }

  const pathOf = (accountId: string): string => join(directory, fileNameOf(accountId));

  async function read(accountId: string, isReplacing = false): ReturnType<typeof parseStored> {
    const path = pathOf(accountId);
    try {
      const text = await textOf(path);
      if (text === undefined) return NOTHING;
      if (isOwner || isSealed(text)) inTheClear.delete(path);
      else inTheClear.add(path);
      return await parse(text, path, accountId);
    } catch (error) {
      if (!isOwner || !isOfFile(error)) throw error;
      // It may be the newest one: nothing is asked with an earlier one meanwhile.
      if (!isWorthless(error) && !isReplacing) throw error;
      await setAside(path, accountId, error);
      return NOTHING;
    }
  }

  /** Version 0.1 bound a record to its account's id instead of its file's name. */
  async function parse(text: string, path: string, accountId: string): ReturnType<typeof parseStored> {
    try {
      return await parseStored(text, nameInSeal(path), sealer);
    } catch (error) {
      if (!(error instanceof SealError) || error.code !== 'damaged') throw error;
      const { grants } = await parseStored(text, accountId, sealer);
      return { grants, isStale: true };
    }
  }

  async function moveAside(path: string, code: string): Promise<string> {
    const aside = `${path}.${code.toLowerCase()}-${clock.now()}`;
    await files.rename(path, aside);
    return aside;
  }

  async function setAside(path: string, accountId: string, error: SealError | StateFileRefused) {
    const aside = await moveAside(path, error.code);
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

  return { pathOf, read, readQuietly, readOrReject, kindOf, moveAside, prepare, replace, temporaryName };
}

/** Readable in a listing, and distinct for every id whatever characters it has. */
export function fileNameOf(accountId: string): string {
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
