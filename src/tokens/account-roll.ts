/**
 * Which accounts the token service serves. In: the accounts file's credentials, whole each time. Out: the
 * accounts with their slots. Owns who is served, and what the store still keeps of those who have left.
 */
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Background } from './background.ts';
import type { FailureBook } from './failure-book.ts';
import { credentialFingerprint } from './grant-form.ts';
import type { Grant, GrantKeeper } from './grant-keeper.ts';
import { type AccountCredential, createServedAccount, type ServedAccount } from './served-account.ts';
import type { KeptGrant, TokenStore } from './token-store.ts';

/** What `apply` did, by account id. */
export interface ApplyResult {
  readonly added: readonly string[];
  readonly changed: readonly string[];
  readonly removed: readonly string[];
  readonly untouched: readonly string[];
}

export interface AccountRoll {
  get(accountId: string): ServedAccount | undefined;
  ids(): readonly string[];
  /**
   * Makes exactly these accounts known: untouched ones keep their tokens, changed ones drop them; the grants of
   * removed ones are kept for a while. `alsoKeep` are accounts that cannot be served just now, say for a typing
   * error: they are not removed.
   */
  apply(wanted: readonly AccountCredential[], alsoKeep: readonly string[]): ApplyResult;
  /** Accounts that have left and whose grants the store still keeps. */
  keptRemoved(): readonly KeptGrant[];
  /** Nobody is served any more. */
  retireAll(): void;
}

export function createAccountRoll(
  deps: {
    readonly store: TokenStore;
    readonly keeper: GrantKeeper;
    readonly book: FailureBook;
    readonly background: Background;
    readonly clock: Clock;
    readonly log: Log;
  },
  options: {
    /** How long the grant of an account that has left is kept, ms. */
    readonly forgetAfterMs: number;
  },
): AccountRoll {
  const { store, keeper, book, background, clock, log } = deps;
  const accounts = new Map<string, ServedAccount>();
  let kept: readonly KeptGrant[] = [];

  function retire(account: ServedAccount): void {
    for (const slot of account.slots()) {
      slot.apply({ type: 'retired' });
      background.cancel(slot);
    }
  }

  /** What an entry of the accounts file makes of the account there was. */
  function place(entry: AccountCredential): 'added' | 'changed' | 'untouched' {
    const { id } = entry.account;
    const old = accounts.get(id);
    // The same object needs no hash.
    if (old !== undefined && old.credential === entry.credential && old.account === entry.account)
      return 'untouched';
    if (old !== undefined && old.fingerprint === credentialFingerprint(entry.credential)) {
      old.setAccount(entry.account);
      return 'untouched';
    }
    const made = createServedAccount(entry, { keeper, clock, onSlot: background.plan });
    if (old !== undefined) {
      retire(old);
      for (const slot of old.slots()) made.slot(slot.resource)?.inherit(slot);
    }
    accounts.set(id, made);
    return old === undefined ? 'added' : 'changed';
  }

  function prune(ids: ReadonlySet<string>): void {
    store.prune(ids, options.forgetAfterMs).then(
      (pruned) => {
        kept = pruned.kept;
        if (pruned.gone > 0)
          log.info(
            { event: 'token_store_pruned', gone: pruned.gone },
            'removed tokens of accounts that are gone',
          );
      },
      () => log.warn({ event: 'token_store_failed', store: store.kind, what: 'prune' }, 'token store failed'),
    );
  }

  return {
    get: (accountId) => accounts.get(accountId),
    ids: () => [...accounts.keys()],
    apply(wanted, alsoKeep) {
      const ids = new Set(wanted.map((w) => w.account.id));
      const removed = [...accounts.keys()].filter((id) => !ids.has(id));
      const result = { added: [] as string[], changed: [] as string[], untouched: [] as string[], removed };
      for (const id of removed) {
        const account = accounts.get(id);
        if (account !== undefined) retire(account);
        accounts.delete(id);
      }
      for (const entry of wanted) result[place(entry)].push(entry.account.id);
      keeper.keepOnly(new Set<Grant>([...accounts.values()].map((account) => account.grant)));
      book.keepOnly([...accounts.values()].flatMap((account) => account.slots()));
      prune(new Set([...ids, ...alsoKeep]));
      return result;
    },
    keptRemoved: () => kept,
    retireAll() {
      for (const account of accounts.values()) retire(account);
    },
  };
}
