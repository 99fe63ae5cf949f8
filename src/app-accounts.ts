/**
 * The accounts that are served. In: the accounts file. Out: its accounts for the rooms that need them, the
 * directory in which senders are looked up, and what reading the file again changed. Owns which accounts are
 * known; one whose entry is wrong stays known, so that its mail waits instead of bouncing. The only place where
 * credentials (accounts file) and tokens meet.
 */
import { type Account, mailboxOf } from './accounts/account.ts';
import { type AccountsFile, readAccountsFile, type UnusableAccount } from './accounts/accounts-file.ts';
import type { LoadedAccount } from './accounts/build-account.ts';
import {
  type AccountDirectory,
  createAccountDirectory,
  createDirectoryInSlices,
} from './accounts/directory.ts';
import { diffAccounts, formatProblems, missingAccounts } from './accounts/reload-diff.ts';
import { problemRow } from './accounts/schema.ts';
import type { ReloadResult } from './admin/shapes.ts';
import { fitHeap } from './heap.ts';
import type { OfferedExtensions } from './listener/listener.ts';
import type { Log } from './log.ts';
import { runInSlices, type Steps } from './slices.ts';
import type { TokenService } from './tokens/token-service.ts';
import type { AccountWays } from './upstream/ways.ts';

export interface AppAccountsDeps {
  readonly path: string;
  /** From now on no account is taken in: the rooms close. */
  readonly isStopping: () => boolean;
  readonly log: Log;
  readonly tokens: Pick<TokenService, 'prepareAccounts'>;
  readonly ways: Pick<AccountWays, 'prepare' | 'capabilities'>;
  /** Forgets what belongs to any other account, or mailbox. */
  readonly keepOnly: (
    accountIds: Pick<ReadonlySet<string>, 'has'>,
    mailboxes: Pick<ReadonlySet<string>, 'has'>,
  ) => void;
}

export interface AppAccounts {
  readonly directory: AccountDirectory;
  /** Of the accounts that can be used, in the order of the file. */
  readonly ids: readonly string[];
  /** As loaded; undefined where it cannot be used. */
  loadedOf(id: string): LoadedAccount | undefined;
  /** Whether it is in the accounts file, usable or not. */
  isKnown(id: string): boolean;
  /** What every upstream in use can honour; an account whose upstream is not known yet counts as without DSN. */
  offered(): OfferedExtensions;
  /** Logs what is wrong with the file. */
  report(file: AccountsFile): void;
  /** Serves the accounts of `file` from now on; what takes long is done before, in slices. False where the relay is to stop by then: nothing has changed. */
  apply(file: AccountsFile, accounts?: readonly LoadedAccount[]): Promise<boolean>;
  /** Reads the file again and applies what changed. `gone`: nobody knows them any more. Never rejects: `ok: false` and nothing changed. */
  reload(): Promise<{ readonly result: ReloadResult; readonly gone: readonly string[] }>;
}

export function createAppAccounts(deps: AppAccountsDeps): AppAccounts {
  const { path, isStopping, log, tokens, ways } = deps;
  let loaded: readonly LoadedAccount[] = [];
  let directory: AccountDirectory = createAccountDirectory([]);
  /** What is served now, usable or not. */
  let known: ReadonlyMap<string, Account> = new Map();
  /** One account of each upstream: what a server offers it offers all. */
  let examples: readonly string[] = [];
  const idsOf = (list: readonly LoadedAccount[]): string[] => list.map((a) => a.account.id);

  function report(file: AccountsFile): void {
    // A remark on the file as a whole names it itself.
    const place = (of: string): string => (of === '' ? '' : `${path}: ${of}: `);
    for (const { path: of, message } of file.problems.map(problemRow))
      log.error({ event: 'account_problem', path: of }, `${place(of)}${message}`);
    for (const { path: of, message } of file.warnings.map(problemRow))
      log.warn({ event: 'account_warning', path: of }, `${place(of)}${message}`);
  }

  async function apply(
    file: AccountsFile,
    accounts: readonly LoadedAccount[] = file.accounts,
  ): Promise<boolean> {
    const unread = [...file.unusable, ...missingAccounts(file, known)];
    const { all, mailboxes, upstreamExamples } = await runInSlices(gather(accounts, unread));
    const next = await createDirectoryInSlices([...all.values()], {
      problems: new Map(unread.map((u) => [u.account.id, formatProblems(u.problems)])),
      isComplete: file.isComplete,
      hidesSenders: file.hidesSenders,
    });
    const unreadIds = unread.map((u) => u.account.id);
    const serve = [
      await runInSlices(tokens.prepareAccounts(accounts, unreadIds)),
      await runInSlices(ways.prepare(accounts.map((a) => a.account))),
    ];
    if (isStopping()) return false;
    // At once for all rooms: no message meets half of it.
    for (const begin of serve) begin();
    [directory, known, loaded, examples] = [next, all, accounts, upstreamExamples];
    // An empty file takes nobody out: what should have written it has failed, perhaps.
    if (all.size > 0) deps.keepOnly(all, mailboxes);
    fitHeap(all.size);
    return true;
  }

  function unchanged(message: string, problems: ReloadResult['errors'] = []) {
    log.error({ event: 'reload_failed' }, `reload failed, nothing changed: ${message}`);
    const errors = [{ path, message }, ...problems];
    return {
      result: { ok: false, added: [], changed: [], removed: [], untouched: idsOf(loaded), errors },
      gone: [],
    };
  }

  return {
    get directory() {
      return directory;
    },
    get ids() {
      return idsOf(loaded);
    },
    loadedOf: (id) => loaded.find(({ account }) => account.id === id),
    isKnown: (id) => known.has(id),
    offered() {
      let dsn = loaded.length > 0;
      let smtpUtf8 = true;
      let eightBitMime = true;
      for (const id of examples) {
        const capabilities = ways.capabilities(id);
        dsn &&= capabilities?.dsn === true;
        smtpUtf8 &&= capabilities?.smtpUtf8 !== false;
        eightBitMime &&= capabilities?.eightBitMime !== false;
      }
      return { dsn, smtpUtf8, eightBitMime };
    },
    report,
    apply,
    async reload() {
      let file: AccountsFile;
      try {
        file = await readAccountsFile(path);
      } catch (error) {
        return unchanged(error instanceof Error ? error.message : 'cannot be read');
      }
      if (isStopping()) return unchanged('the relay is stopping');
      report(file);
      if (file.accounts.length === 0 && file.problems.length > 0)
        return unchanged('no account in it can be served', file.problems.map(problemRow));
      const before = known;
      const { added, changed, untouched, all } = await diffAccounts(loaded, file.accounts);
      if (!(await apply(file, all))) return unchanged('the relay is stopping');
      const after = known;
      const gone = [...before.values()].filter((account) => !after.has(account.id));
      const result: ReloadResult = {
        ok: true,
        added: idsOf(added).filter((id) => !before.has(id)),
        // One that could not be used and now can has changed.
        changed: [...idsOf(changed), ...idsOf(added).filter((id) => before.has(id))],
        // A place in the file that was mended was nobody's account.
        removed: gone.filter((account) => account.email.includes('@')).map((account) => account.id),
        untouched: idsOf(untouched),
        errors: file.problems.map(problemRow),
      };
      return { result, gone: gone.map((account) => account.id) };
    },
  };
}

/** All by id, their mailboxes, and one account of each upstream. */
function* gather(
  accounts: readonly LoadedAccount[],
  unread: readonly UnusableAccount[],
): Steps<{
  readonly all: ReadonlyMap<string, Account>;
  readonly mailboxes: ReadonlySet<string>;
  readonly upstreamExamples: readonly string[];
}> {
  const all = new Map<string, Account>();
  const mailboxes = new Set<string>();
  const byUpstream = new Map<string, string>();
  for (const { account } of accounts) {
    const { host, port } = account.upstream;
    byUpstream.set(account.transport === 'graph' ? 'graph' : `${host}:${port}`, account.id);
    all.set(account.id, account);
    mailboxes.add(mailboxOf(account));
    yield;
  }
  for (const { account } of unread) all.set(account.id, account);
  return { all, mailboxes, upstreamExamples: [...byUpstream.values()] };
}
