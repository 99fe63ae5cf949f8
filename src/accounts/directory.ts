/**
 * Who a sender or an AUTH user belongs to. In: the accounts being served. Out: the accounts for an
 * address, the most exact match first, then by preference, then as the file has them; compared as
 * `foldAddress` has it. Replaced as a whole on reload.
 */
import { orMake } from '../or-make.ts';
import { type Exactness, NULL_SENDER, type SenderKey, senderKeys } from '../protocol/sender-pattern.ts';
import { foldAddress } from '../protocol/text.ts';
import { runAtOnce, runInSlices } from '../slices.ts';
import type { Account } from './account.ts';

/** An account that may send as an address. */
export interface Candidate {
  readonly account: Account;
  readonly exactness: Exactness;
  /** 0 for the address itself; the lower the more exact, also of two patterns of one kind (`*@*.a.test` before `*@*.test`). */
  readonly rank: number;
}

export interface AccountDirectory {
  readonly accounts: readonly Account[];
  /** By AUTH user name: id, e-mail or XOAUTH2 user. */
  byUser(name: string): Account | undefined;
  /** Those that may use `address` in MAIL FROM, first choice first; `''` is the null sender. */
  candidates(address: string): readonly Candidate[];
  /** An account whose patterns match but which denies the address, by name or because it may look like one denied. */
  deniedBy(address: string): Account | undefined;
  byId(idOrEmail: string): Account | undefined;
  /** Other accounts that can take mail of this one's senders, 20 at most. */
  groupOf(account: Account): readonly Account[];
  /** What is wrong with the account's entry in the accounts file, with its place; undefined where it can be used. */
  problemOf(id: string): string | undefined;
  /** Whether every entry of the file could be read. Else a sender that is not found may belong to one that could not. */
  readonly isComplete: boolean;
  /** An entry that could not be read may be that of any sender which no account names as an address. */
  readonly hidesSenders: boolean;
}

/** Accounts that are known and cannot be used, by id, and whether there may be more. */
export interface Unreadable {
  readonly problems: ReadonlyMap<string, string>;
  readonly isComplete: boolean;
  readonly hidesSenders: boolean;
}

const ALL_READ: Unreadable = { problems: new Map(), isComplete: true, hidesSenders: false };

/** More accounts for one sender are no choice but a mistake, and each has to be looked at. */
const MAX_CANDIDATES = 100;
/** Senders whose accounts need not be searched again. */
const MAX_KNOWN = 1_000;
export const DEFAULT_PREFERENCE = 10;
/** Of a group an operator reads no more. */
const MAX_GROUP = 20;

interface Rules {
  readonly senders: Pick<ReadonlySet<string>, 'has'> & Iterable<string>;
  readonly deny: ReadonlySet<string>;
}
const rules = new WeakMap<Account, Rules>();
const NO_DENY: ReadonlySet<string> = new Set();

function rulesOf(account: Account): Rules {
  const { senders, deny = [] } = account;
  const email = foldAddress(account.email);
  // Most accounts send as themselves alone: nothing is kept of them.
  if (deny.length === 0 && senders.every((sender) => sender === email))
    return { senders: onlyOne(email), deny: NO_DENY };
  return orMake(rules, account, () => ({ senders: new Set([email, ...senders]), deny: new Set(deny) }));
}

const onlyOne = (key: string): Rules['senders'] => ({
  has: (other) => other === key,
  [Symbol.iterator]: () => [key].values(),
});

/**
 * Whether `deny` refuses what a pattern of `exactness` lets in. What is denied is a name as people read it, and
 * letters outside ASCII look like others (full-width, Cyrillic): past a `deny` they get only where they are named.
 */
function denies(account: Account, keys: readonly SenderKey[], exactness: Exactness): boolean {
  if ((account.deny ?? []).length === 0) return false;
  const { deny } = rulesOf(account);
  return keys.some(({ key }) => deny.has(key)) || mayLookLikeAnother(keys[0]?.key ?? '', exactness);
}

const PLAIN = /^[ -~]*$/;
const A_LABEL = /[@.]xn--/;

function mayLookLikeAnother(folded: string, exactness: Exactness): boolean {
  if (exactness === 'address') return false;
  return !PLAIN.test(folded) || (exactness === 'any' && A_LABEL.test(folded));
}

/** How `account` may use `address` in MAIL FROM; undefined where it may not. */
export function matchOf(account: Account, address: string): Candidate | undefined {
  const keys = senderKeys(address);
  const { senders } = rulesOf(account);
  const rank = keys.findIndex(({ key }) => senders.has(key));
  const exactness = keys[rank]?.exactness;
  return exactness === undefined || denies(account, keys, exactness)
    ? undefined
    : { account, exactness, rank };
}

/** By which kind of pattern `account` may use `address` in MAIL FROM; undefined where it may not. */
export const exactnessOf = (account: Account, address: string): Exactness | undefined =>
  matchOf(account, address)?.exactness;

/** Whether `account` may use `address` in MAIL FROM. */
export const maySendAs = (account: Account, address: string): boolean =>
  exactnessOf(account, address) !== undefined;

/** Builds the lookup at once. */
export const createAccountDirectory = (
  accounts: readonly Account[],
  unreadable?: Unreadable,
): AccountDirectory => runAtOnce(buildSteps(accounts, unreadable));

/** Builds the lookup in slices. */
export const createDirectoryInSlices = (
  accounts: readonly Account[],
  unreadable?: Unreadable,
): Promise<AccountDirectory> => runInSlices(buildSteps(accounts, unreadable));

function* buildSteps(
  accounts: readonly Account[],
  { problems, isComplete, hidesSenders }: Unreadable = ALL_READ,
): Generator<undefined, AccountDirectory> {
  const senders = new Map<string, Account | Account[]>();
  const users = new Map<string, Account>();
  const ids = new Map<string, Account>();
  const claim = (map: Map<string, Account>, key: string, account: Account): void => {
    if (!map.has(key)) map.set(key, account);
  };
  // Identities before users, so that a shared user name of an earlier account never hides a mailbox.
  for (const a of accounts) {
    claim(ids, foldAddress(a.id), a);
    yield;
  }
  for (const a of accounts) {
    claim(ids, foldAddress(a.email), a);
    yield;
  }
  const byIdentity = (name: string): Account | undefined => ids.get(name);
  for (const a of accounts) {
    // Most have no other user name than their own.
    const user = foldAddress(a.user);
    if (byIdentity(user) === undefined) claim(users, user, a);
    yield;
  }
  for (const account of accounts) {
    for (const key of rulesOf(account).senders) {
      const found = senders.get(key);
      if (found === undefined) senders.set(key, account);
      else if (Array.isArray(found)) found.push(account);
      else senders.set(key, [found, account]);
    }
    yield;
  }
  // The mailbox itself is more exact than an account that lists its address; else the file's order stays.
  for (const [key, list] of senders) {
    if (Array.isArray(list))
      list.sort(
        (a, b) =>
          Number(foldAddress(b.email) === key) - Number(foldAddress(a.email) === key) ||
          (a.preference ?? DEFAULT_PREFERENCE) - (b.preference ?? DEFAULT_PREFERENCE),
      );
    yield;
  }
  const sendersOf = (key: string): readonly Account[] => {
    const found = senders.get(key);
    return found === undefined ? [] : Array.isArray(found) ? found : [found];
  };

  /** Of late: few senders send most of the mail. */
  const known = new Map<string, readonly Candidate[]>();

  function candidates(address: string): readonly Candidate[] {
    if (known.size > MAX_KNOWN) known.clear();
    return orMake(known, address, () => search(address));
  }

  function search(address: string): readonly Candidate[] {
    const keys = senderKeys(address);
    const found: Candidate[] = [];
    for (const [rank, { key, exactness }] of keys.entries())
      for (const account of sendersOf(key)) {
        if (found.length === MAX_CANDIDATES) return found;
        if (found.some((c) => c.account === account) || denies(account, keys, exactness)) continue;
        found.push({ account, exactness, rank });
      }
    return found;
  }

  return {
    accounts,
    byUser: (name) => byIdentity(foldAddress(name)) ?? users.get(foldAddress(name)),
    candidates,
    deniedBy: (address) => {
      const keys = senderKeys(address);
      for (const { key, exactness } of keys)
        for (const account of sendersOf(key)) if (denies(account, keys, exactness)) return account;
      return undefined;
    },
    groupOf(account) {
      const group = new Set<Account>();
      for (const pattern of rulesOf(account).senders) {
        const sample = pattern === NULL_SENDER ? '' : pattern.replace('@*.', '@x.').replace('*', 'x');
        // Nearly every account could send a sender that only `*` matches; the others with `*` do.
        for (const other of pattern === '*' ? sendersOf('*') : candidates(sample).map((c) => c.account))
          if (other !== account && group.size < MAX_GROUP) group.add(other);
        if (group.size === MAX_GROUP) break;
      }
      return [...group];
    },
    byId: (idOrEmail) => byIdentity(foldAddress(idOrEmail)),
    problemOf: (id) => problems.get(id),
    isComplete,
    hidesSenders,
  };
}

/** Whether the first choice comes strictly before the second, whatever room they have. */
export const isPreferred = (a: Candidate, b: Candidate): boolean =>
  a.rank < b.rank ||
  (a.rank === b.rank &&
    (a.account.preference ?? DEFAULT_PREFERENCE) < (b.account.preference ?? DEFAULT_PREFERENCE));
