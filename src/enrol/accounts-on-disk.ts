/**
 * The accounts file while it is edited. In: path, an edit of its text. Out: the checked new file on disk. A text that would not parse is never written.
 */

import { realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import { accountEntries, EMPTY_ACCOUNTS_TEXT, type EntryObject } from '../accounts/accounts-edit.ts';
import { type AccountsFile, parseAccounts, readAccountsText } from '../accounts/accounts-file.ts';
import { JsonSyntaxError } from '../accounts/json-text.ts';
import { formatPlaceIn } from '../accounts/schema.ts';
import { explainFileError, type SecretPlaces } from '../accounts/secret-source.ts';
import { systemClock } from '../clock.ts';
import { foldAddress } from '../protocol/text.ts';
import { createFileLocks, type FileLock } from '../tokens/file-lock.ts';
import { createProcesses } from '../tokens/process-mark.ts';
import { stateFiles } from '../tokens/state-files.ts';
import { refuseMounted, writeFileAtomically } from '../write-file.ts';
import { OperatorError } from './operator-error.ts';
import { waitUntil } from './wait-until.ts';

/** The text of the accounts file, which has a list of accounts. Rejects with `OperatorError` where it has none. */
export async function readWhole(path: string): Promise<string> {
  const { text } = await readAccountsText(path);
  if (text.replace(/^\ufeff/, '').trim() === '') return EMPTY_ACCOUNTS_TEXT;
  try {
    accountEntries(text);
  } catch (error) {
    if (error instanceof JsonSyntaxError || error instanceof SyntaxError)
      throw new OperatorError(`${path}: ${error.message}`, 2, { cause: error });
    throw error;
  }
  return text;
}

/** As `readWhole`; a file that is not there yet is an empty list. */
export async function readOrEmpty(path: string): Promise<string> {
  try {
    return await readWhole(path);
  } catch (error) {
    if (((error as Error).cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT')
      return EMPTY_ACCOUNTS_TEXT;
    throw error;
  }
}

/** Index of the account with this id or address; -1 where there is none. */
export function findAccount(text: string, name: string): number {
  const wanted = foldAddress(name);
  const matches = (entry: EntryObject): boolean =>
    [entry.account_id, entry.email].some((key) => typeof key === 'string' && foldAddress(key) === wanted);
  return accountEntries(text).findIndex(matches);
}

/** Parses `text` as the file at `path` would be. `mayRun` as in `SecretPlaces`. */
export const parseAt = (
  text: string,
  path: string,
  env: SecretPlaces['env'],
  mayRun = true,
): Promise<AccountsFile> => parseAccounts(text, { env, directory: dirname(path), mayRun });

/** What is wrong with the entry at `index` itself, one line each. */
export const mistakesOf = ({ problems }: AccountsFile, index: number): readonly string[] =>
  problems
    .filter(({ entry }) => entry === index)
    .map(({ key, message }) => (key === '' ? message : `${key} ${message}`));

/** Why the entry at `index` is no account: its own mistakes; where it has none another is in its way, and all are told. */
export function whyUnusable(parsed: AccountsFile, index: number): readonly string[] {
  const own = mistakesOf(parsed, index);
  return own.length > 0
    ? own
    : parsed.problems.map((problem) => `${formatPlaceIn(problem)} ${problem.message}`);
}

/**
 * Reads, changes and writes the file while nobody else does. `change` gets the text as it is now and gives the
 * new one, or undefined to leave it; a file changed by hand in between is read again. A text that is no
 * accounts file is never written. Rejects with `OperatorError`.
 */
export const editAccounts = (
  path: string,
  change: (text: string) => string | undefined | Promise<string | undefined>,
): Promise<void> =>
  asEditor(path, async () => {
    for (;;) {
      const before = await readOrEmpty(path);
      const text = await change(before);
      if (text === undefined) return;
      accountEntries(text);
      if (await writeFileAtomically(path, text, async () => (await readOrEmpty(path)) === before)) return;
    }
  });

/** While nobody else edits the file. */
async function asEditor(path: string, work: () => Promise<void>): Promise<void> {
  const target = await realpath(path).catch(() => path);
  try {
    const lock = await lockFile(`${target}.lock`, path);
    try {
      await work();
    } finally {
      // The edit is done; the lock goes with this process at the latest.
      await lock.release().catch(() => undefined);
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof OperatorError || code === undefined) throw error;
    throw new OperatorError(`cannot write ${path}: ${explainFileError(error)}`, 1, { cause: error });
  }
}

/** Whether an edit could be brought to the disk, found out by all of it but the last step. Rejects with `OperatorError`. */
export const tryEditing = (path: string): Promise<void> =>
  asEditor(path, async () => {
    await writeFileAtomically(path, await readOrEmpty(path), async () => false);
    await refuseMounted(path);
  });

/** Edits take milliseconds; a person's dialogue holds no lock. */
const LOCK_TIMEOUT_MS = 30_000;
const LOCK_POLL_MS = 20;

async function lockFile(lockPath: string, path: string): Promise<FileLock> {
  const locks = createFileLocks({ files: stateFiles, clock: systemClock, processes: createProcesses() });
  let holder: number | undefined;
  let lock: FileLock | undefined;
  const isLocked = await waitUntil(
    async () => {
      const attempt = await locks.attempt(lockPath);
      if (attempt.taken) lock = attempt.lock;
      else holder = attempt.holder?.pid;
      return attempt.taken;
    },
    LOCK_TIMEOUT_MS,
    LOCK_POLL_MS,
  );
  if (isLocked && lock !== undefined) return lock;
  throw new OperatorError(
    `${path} is being changed by process ${holder ?? 'unknown'}: try again when it has ended (${lockPath})`,
  );
}
