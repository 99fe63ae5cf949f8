/**
 * The accounts file under the account commands. In: path, an edit of its text. Out: the checked new file on
 * disk, and a running relay told to reload. A text that would not parse is never written.
 */

import { dirname } from 'node:path';
import { accountEntries, EMPTY_ACCOUNTS_TEXT, type EntryObject } from '../accounts/accounts-edit.ts';
import { type AccountsFile, parseAccounts, readAccountsText } from '../accounts/accounts-file.ts';
import type { Settings } from '../config.ts';
import { createAdminClient, NotRunningError } from './admin-client.ts';
import type { CommandContext } from './definition.ts';
import { CommandError } from './definition.ts';
import type { Terminal } from './terminal.ts';
import { writeFileAtomically } from './write-file.ts';

/** The text of the accounts file; a file that is not there yet is an empty list. */
export async function readOrEmpty(path: string): Promise<string> {
  try {
    const { text } = await readAccountsText(path);
    return text.replace(/^\ufeff/, '').trim() === '' ? EMPTY_ACCOUNTS_TEXT : text;
  } catch (error) {
    if (((error as Error).cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT')
      return EMPTY_ACCOUNTS_TEXT;
    throw error;
  }
}

/** Index of the account with this id or address; -1 where there is none. */
export function findAccount(text: string, name: string): number {
  const wanted = name.toLowerCase();
  const matches = (entry: EntryObject): boolean =>
    [entry.account_id, entry.email].some((key) => typeof key === 'string' && key.toLowerCase() === wanted);
  return accountEntries(text).findIndex(matches);
}

/** Parses `text` as the file at `path` would be. */
export const parseAt = (text: string, path: string, env: CommandContext['env']): Promise<AccountsFile> =>
  parseAccounts(text, { env, directory: dirname(path) });

export async function saveAccounts(path: string, text: string): Promise<void> {
  try {
    await writeFileAtomically(path, text);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'error';
    throw new CommandError(`cannot write ${path}: ${code}`, 1, { cause: error });
  }
}

/** Tells a running relay; says what came of it. */
export async function reloadRunning(settings: Settings, terminal: Terminal): Promise<void> {
  try {
    const result = await createAdminClient(settings).reload();
    terminal.note(
      result.ok
        ? `reloaded: ${result.added.length} added, ${result.changed.length} changed, ${result.removed.length} removed`
        : 'the running relay did not take the file; see its log',
    );
  } catch (error) {
    if (error instanceof NotRunningError)
      terminal.note('no running relay to reload; it will read the file when it starts');
    else if (error instanceof CommandError) terminal.note(`not reloaded: ${error.message}`);
    else throw error;
  }
}
