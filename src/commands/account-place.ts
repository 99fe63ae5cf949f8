/**
 * Where `account add` puts an entry: the accounts file. In: the entry, again where its refresh token is replaced. Out: the
 * file with it, whatever else is changed in it meanwhile. A refresh token that the file cannot take goes into a file of its
 * own: the provider may take no other one any more.
 */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { accountEntries, appendAccount, type EntryObject, updateAccount } from '../accounts/accounts-edit.ts';
import { editAccounts, findAccount } from '../enrol/accounts-on-disk.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { writeFileAtomically } from '../write-file.ts';

export interface AccountPlace {
  /** The entry as it was at first; empty where there was none. */
  readonly before: EntryObject;
  /** `text` with the entry. Throws `OperatorError` where somebody else has changed it there. */
  change(text: string, entry: EntryObject): string;
  /** On the disk when it resolves. Rejects with `OperatorError`. */
  write(entry: EntryObject): Promise<void>;
  /** As `write`, of a refresh token that nobody else has; rejects with word of where it is instead. */
  keep(entry: EntryObject, refreshToken: string): Promise<void>;
  /** Such a one that is not proved yet: in the entry where that is new, else in a file of its own. Resolves with the path. */
  hold(entry: EntryObject, refreshToken: string): Promise<string>;
}

export function createAccountPlace(path: string, email: string, text: string): AccountPlace {
  const entryIn = (current: string): EntryObject => ({
    ...(accountEntries(current)[findAccount(current, email)] ?? {}),
  });
  const before = entryIn(text);
  /** As we know it to be there. */
  let there = before;
  let aside: { readonly path: string; readonly refreshToken: string } | undefined;

  function change(current: string, entry: EntryObject): string {
    const index = findAccount(current, email);
    const isNew = Object.keys(there).length === 0;
    if (!isDeepStrictEqual(entryIn(current), there))
      throw new OperatorError(
        `${email} was ${isNew ? 'added' : index < 0 ? 'removed' : 'changed'} in ${path} by somebody else meanwhile: nothing was written; look at it and run this again${isNew ? ' with --replace' : ''}`,
      );
    return index < 0
      ? appendAccount(current, entry)
      : updateAccount(current, index, { ...entry, email: there.email ?? email });
  }

  async function write(entry: EntryObject): Promise<void> {
    let written = there;
    await editAccounts(path, (current) => {
      const next = change(current, entry);
      written = entryIn(next);
      return next;
    });
    there = written;
  }

  async function dropAside(): Promise<void> {
    const { path: old } = aside ?? {};
    aside = undefined;
    if (old !== undefined) await rm(old, { force: true });
  }

  /** The path; undefined where no file takes it. */
  async function setAside(refreshToken: string): Promise<string | undefined> {
    if (aside?.refreshToken === refreshToken) return aside.path;
    const made = await putAside(refreshToken, dirname(path));
    if (made === undefined) return undefined;
    await dropAside();
    aside = { path: made, refreshToken };
    return made;
  }

  async function keep(entry: EntryObject, refreshToken: string): Promise<void> {
    try {
      await write({ ...entry, refresh_token: refreshToken });
    } catch (error) {
      const held = await setAside(refreshToken);
      const where = held === undefined ? LOST : wordOf(held);
      throw new OperatorError(`${(error as Error).message}; ${where}`, 1, { cause: error });
    }
    await dropAside();
  }

  return {
    before,
    change,
    write,
    keep,
    async hold(entry, refreshToken) {
      if (Object.keys(before).length === 0) {
        await keep(entry, refreshToken);
        return path;
      }
      const held = await setAside(refreshToken);
      if (held === undefined) throw new OperatorError(LOST);
      return held;
    },
  };
}

const LOST = 'no file takes the newest refresh token: it is lost with this command, sign in again';
/** What is done with a refresh token in a file of its own. */
export const wordOf = (path: string): string =>
  `the newest refresh token is in ${path}: give it with --refresh-token-file, then remove that file`;

/** The path of a new file of this user's alone; undefined where none can be made. */
async function putAside(refreshToken: string, directory: string): Promise<string | undefined> {
  const name = `refresh-token-${randomBytes(6).toString('hex')}`;
  for (const place of [directory, homedir(), tmpdir()]) {
    const path = join(place, name);
    try {
      await writeFileAtomically(path, `${refreshToken}\n`);
      return path;
    } catch {
      // The next one may take it.
    }
  }
  return undefined;
}
