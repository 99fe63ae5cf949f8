/**
 * Who a sender or an AUTH user belongs to. In: the accounts being served. Out: the account for an
 * address: exact first, then `*@domain`; compared as `foldAddress` has it. Replaced as a whole on reload.
 */
import { foldAddress } from '../protocol/text.ts';
import type { Account } from './account.ts';

export interface AccountDirectory {
  readonly accounts: readonly Account[];
  /** By AUTH user name: id, e-mail or XOAUTH2 user. */
  byUser(name: string): Account | undefined;
  /** By address in MAIL FROM: exact, else `*@domain`. */
  bySender(address: string): Account | undefined;
  byId(idOrEmail: string): Account | undefined;
  /** What is wrong with the account's entry in the accounts file, with its place; undefined where it can be used. */
  problemOf(id: string): string | undefined;
  /** Whether every entry of the file could be read. Else a sender that is not found may belong to one that could not. */
  readonly isComplete: boolean;
}

/** Accounts that are known and cannot be used, by id, and whether there may be more. */
export interface Unreadable {
  readonly problems: ReadonlyMap<string, string>;
  readonly isComplete: boolean;
}

/** Whether `account` may use `address` in MAIL FROM. */
export function maySendAs(account: Account, address: string): boolean {
  const wanted = foldAddress(address);
  const at = wanted.lastIndexOf('@');
  return account.senders.includes(wanted) || (at >= 0 && account.senders.includes(`*${wanted.slice(at)}`));
}

/** Builds the lookup; where two accounts claim one address, the first in the file wins. */
export function createAccountDirectory(
  accounts: readonly Account[],
  { problems, isComplete }: Unreadable = { problems: new Map(), isComplete: true },
): AccountDirectory {
  const senders = new Map<string, Account>();
  const users = new Map<string, Account>();
  const ids = new Map<string, Account>();
  const claim = (map: Map<string, Account>, key: string, account: Account): void => {
    const lower = foldAddress(key);
    if (!map.has(lower)) map.set(lower, account);
  };
  // Identities before patterns and users, so that a pattern of an earlier account never hides a mailbox.
  for (const a of accounts) claim(ids, a.id, a);
  for (const a of accounts) claim(ids, a.email, a);
  for (const a of accounts) claim(users, a.id, a);
  for (const a of accounts) claim(users, a.email, a);
  for (const a of accounts) claim(users, a.user, a);
  for (const a of accounts) claim(senders, a.email, a);
  for (const a of accounts) for (const s of a.senders) claim(senders, s, a);
  return {
    accounts,
    byUser: (name) => users.get(foldAddress(name)),
    bySender: (address) => {
      const lower = foldAddress(address);
      const at = lower.lastIndexOf('@');
      return senders.get(lower) ?? (at >= 0 ? senders.get(`*${lower.slice(at)}`) : undefined);
    },
    byId: (idOrEmail) => ids.get(foldAddress(idOrEmail)),
    problemOf: (id) => problems.get(id),
    isComplete,
  };
}
