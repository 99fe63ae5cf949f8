/**
 * The accounts that are served. In: the accounts file. Out: its accounts for the rooms that need them, the
 * directory in which senders are looked up, and what reading the file again changed. Owns which accounts are
 * known; one whose entry is wrong stays known, so that its mail waits instead of bouncing.
 */
import type { Account } from './accounts/account.ts';
import {
  type AccountsFile,
  type LoadedAccount,
  readAccountsFile,
  type UnusableAccount,
} from './accounts/accounts-file.ts';
import { type AccountDirectory, createAccountDirectory } from './accounts/directory.ts';
import { diffAccounts, formatProblems, missingAccounts } from './accounts/reload-diff.ts';
import type { ReloadResult } from './admin/backend.ts';
import type { OfferedExtensions } from './listener/listener.ts';
import type { Log } from './log.ts';
import type { TokenService } from './tokens/token-service.ts';
import type { AccountWays } from './upstream/ways.ts';

export interface AppAccountsDeps {
  readonly path: string;
  readonly log: Log;
  readonly tokens: Pick<TokenService, 'applyAccounts'>;
  readonly ways: Pick<AccountWays, 'applyAccounts' | 'capabilities'>;
  /** Forgets what belongs to any other account. */
  readonly keepOnly: (accountIds: ReadonlySet<string>) => void;
}

export interface AppAccounts {
  readonly directory: AccountDirectory;
  /** Of the accounts that can be used, in the order of the file. */
  readonly ids: readonly string[];
  /** What every upstream in use can honour; an account whose upstream is not known yet counts as without DSN. */
  offered(): OfferedExtensions;
  /** Logs what is wrong with the file. */
  report(file: AccountsFile): void;
  /** Serves the accounts of `file` from now on. */
  apply(file: AccountsFile, accounts?: readonly LoadedAccount[]): void;
  /** Reads the file again and applies what changed. `gone`: nobody knows them any more. Never rejects: `ok: false` and nothing changed. */
  reload(): Promise<{ readonly result: ReloadResult; readonly gone: readonly string[] }>;
}

export function createAppAccounts(deps: AppAccountsDeps): AppAccounts {
  const { path, log, tokens, ways } = deps;
  let loaded: readonly LoadedAccount[] = [];
  let unusable: readonly UnusableAccount[] = [];
  let directory: AccountDirectory = createAccountDirectory([]);

  /** What is served now, usable or not. */
  const known = (): ReadonlyMap<string, Account> =>
    new Map([...loaded, ...unusable].map(({ account }) => [account.id, account]));
  const idsOf = (list: readonly LoadedAccount[]): string[] => list.map((a) => a.account.id);

  function report(file: AccountsFile): void {
    // A remark on the file as a whole names it itself.
    const place = (of: string): string => (of === '' ? '' : `${path}: ${of}: `);
    for (const { path: of, message } of file.problems)
      log.error({ event: 'account_problem', path: of }, `${place(of)}${message}`);
    for (const { path: of, message } of file.warnings)
      log.warn({ event: 'account_warning', path: of }, `${place(of)}${message}`);
  }

  function apply(file: AccountsFile, accounts: readonly LoadedAccount[] = file.accounts): void {
    unusable = [...file.unusable, ...missingAccounts(file, known())];
    loaded = accounts;
    tokens.applyAccounts(
      accounts,
      unusable.map((u) => u.account.id),
    );
    ways.applyAccounts(accounts.map((a) => a.account));
    directory = createAccountDirectory([...known().values()], {
      problems: new Map(unusable.map((u) => [u.account.id, formatProblems(u.problems)])),
      isComplete: file.isComplete,
    });
    deps.keepOnly(new Set(known().keys()));
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
    offered() {
      let dsn = loaded.length > 0;
      let smtpUtf8 = true;
      let eightBitMime = true;
      for (const { account } of loaded) {
        const capabilities = ways.capabilities(account.id);
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
      report(file);
      if (file.accounts.length === 0 && file.problems.length > 0)
        return unchanged('no account in it can be served', file.problems);
      const before = known();
      const { added, changed, untouched } = diffAccounts(loaded, file.accounts);
      const order = new Map(file.accounts.map((a, i) => [a.account.id, i]));
      const place = ({ account }: LoadedAccount): number => order.get(account.id) ?? 0;
      apply(
        file,
        [...untouched, ...added, ...changed].sort((a, b) => place(a) - place(b)),
      );
      const after = known();
      const gone = [...before.values()].filter((account) => !after.has(account.id));
      const result: ReloadResult = {
        ok: true,
        added: idsOf(added).filter((id) => !before.has(id)),
        // One that could not be used and now can has changed.
        changed: [...idsOf(changed), ...idsOf(added).filter((id) => before.has(id))],
        // A place in the file that was mended was nobody's account.
        removed: gone.filter((account) => account.email.includes('@')).map((account) => account.id),
        untouched: idsOf(untouched),
        errors: file.problems,
      };
      return { result, gone: gone.map((account) => account.id) };
    },
  };
}
