/**
 * What reading the accounts file again changes. In: what is served, what the file says now. Out: accounts added,
 * changed, untouched, and those that only seem to be gone. Pure.
 */
import { createSlices } from '../slices.ts';
import type { Account } from './account.ts';
import type { AccountsFile, UnusableAccount } from './accounts-file.ts';
import type { LoadedAccount } from './build-account.ts';
import { Secret } from './credential.ts';
import { formatPlaceIn, type Problem } from './schema.ts';

export interface AccountsDiff {
  readonly added: readonly LoadedAccount[];
  /** As they are now. */
  readonly changed: readonly LoadedAccount[];
  readonly untouched: readonly LoadedAccount[];
  /** All three in the order of `after`. */
  readonly all: readonly LoadedAccount[];
}

/** What a reload changes, by account id, found out in slices. An untouched account is the object of `before`. */
export async function diffAccounts(
  before: readonly LoadedAccount[],
  after: readonly LoadedAccount[],
): Promise<AccountsDiff> {
  const slices = createSlices();
  const old = new Map<string, LoadedAccount>();
  for (const item of before) {
    old.set(item.account.id, item);
    if (slices.isOver) await slices.rest();
  }
  const added: LoadedAccount[] = [];
  const changed: LoadedAccount[] = [];
  const untouched: LoadedAccount[] = [];
  const all: LoadedAccount[] = [];
  for (const item of after) {
    if (slices.isOver) await slices.rest();
    const earlier = old.get(item.account.id);
    const isUntouched =
      earlier !== undefined &&
      isSame(earlier.credential, item.credential) &&
      isSame(earlier.account, item.account);
    if (isUntouched) untouched.push(earlier);
    else if (earlier === undefined) added.push(item);
    else changed.push(item);
    all.push(isUntouched ? earlier : item);
  }
  return { added, changed, untouched, all };
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null;

/** Deeply; of secrets their text, which Node's own comparison does not see. */
function isSame(a: unknown, b: unknown): boolean {
  if (!isObject(a) || !isObject(b)) return Object.is(a, b);
  if (a instanceof Secret || b instanceof Secret)
    return a instanceof Secret && b instanceof Secret && a.reveal() === b.reveal();
  const keys = Object.keys(a);
  return (
    Array.isArray(a) === Array.isArray(b) &&
    keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && isSame(a[key], b[key]))
  );
}

/** Accounts that would be gone while an entry cannot be read that may be theirs: they stay known, their mail waits. */
export function missingAccounts(
  file: AccountsFile,
  before: ReadonlyMap<string, Account>,
): readonly UnusableAccount[] {
  const suspects = file.unusable.filter((u) => !u.isNamed || !before.has(u.account.id));
  if (suspects.length === 0) return [];
  const kept = new Set([...file.accounts, ...file.unusable].map((a) => a.account.id));
  return [...before.values()]
    .filter((account) => account.email.includes('@') && !kept.has(account.id))
    .map((account) => ({ account, isNamed: true, problems: suspects.flatMap((u) => u.problems) }));
}

/** The first few, each with its place. */
export const formatProblems = (problems: readonly Problem[]): string =>
  problems
    .slice(0, 3)
    .map((p) => `${formatPlaceIn(p)}${p.line === undefined ? '' : ` (line ${p.line})`}: ${p.message}`)
    .join('; ');
