/**
 * Which accounts the token service serves. In: the accounts file's credentials, whole each time. Out: the
 * accounts with their slots. Owns who is served, and what the store still keeps of those who have left.
 */
import type { Activity } from '../activity.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { createSlices, type Steps } from '../slices.ts';
import type { Background } from './background.ts';
import { clientOf, type FailureBook } from './failure-book.ts';
import type { Grant } from './grant.ts';
import { credentialFingerprint } from './grant-form.ts';
import type { GrantKeeper } from './grant-keeper.ts';
import { isSameMailbox } from './same-consent.ts';
import { type AccountCredential, createServedAccount, type ServedAccount } from './served-account.ts';
import type { Slot } from './token-slot.ts';
import type { KeptGrant, TokenStore } from './token-store.ts';

/** What serving other accounts changed, by account id. */
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
   * Makes ready to know exactly these accounts; the result does so at once: untouched ones keep their tokens,
   * changed ones drop them; the grants of removed ones are kept for a while. `alsoKeep` are accounts that cannot be
   * served just now, say for a typing error: they are not removed.
   */
  prepare(wanted: readonly AccountCredential[], alsoKeep?: readonly string[]): Steps<() => ApplyResult>;
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
    readonly activity: Pick<Activity, 'onWake'>;
    readonly clock: Clock;
    readonly log: Log;
  },
  options: {
    /** How long the grant of an account that has left is kept, ms. */
    readonly forgetAfterMs: number;
  },
): AccountRoll {
  const { store, keeper, book, background, clock, log } = deps;
  let accounts: ReadonlyMap<string, ServedAccount> = new Map();
  /** Counts what was prepared: what an earlier one left to tidy up is tidied up after the later. */
  let round = 0;
  let kept: readonly KeptGrant[] = [];

  function retire(account: ServedAccount): void {
    for (const slot of account.slots()) {
      slot.apply({ type: 'retired' });
      background.cancel(slot);
    }
  }

  deps.activity.onWake((accountId) => {
    for (const slot of accounts.get(accountId)?.slots() ?? []) if (slot.isAsleep) background.plan(slot);
  });

  // The same object needs no hash.
  const isSame = (old: ServedAccount, { account, credential }: AccountCredential): boolean =>
    (old.credential === credential && old.account === account) ||
    (old.fingerprint === credentialFingerprint(credential) &&
      (credential.grant !== 'refresh_token' || isSameMailbox(old.account.user, account.user)));

  function replace(old: ServedAccount, made: ServedAccount): void {
    retire(old);
    made.told = old.told;
    for (const slot of old.slots()) made.slot(slot.resource)?.inherit(slot);
  }

  function* prepare(
    wanted: readonly AccountCredential[],
    alsoKeep: readonly string[] = [],
  ): Steps<() => ApplyResult> {
    round += 1;
    const next = new Map<string, ServedAccount>();
    const result = { added: [] as string[], changed: [] as string[], untouched: [] as string[] };
    const removed: string[] = [];
    const begin: (() => void)[] = [];
    let plan = (slot: Slot): void => {
      if (slot.token !== undefined) begin.push(() => background.plan(slot));
    };
    const onSlot = (slot: Slot): void => plan(slot);
    for (const entry of wanted) {
      yield;
      const { id } = entry.account;
      const old = accounts.get(id);
      if (old !== undefined && isSame(old, entry)) {
        next.set(id, old);
        result.untouched.push(id);
        if (old.account !== entry.account) begin.push(() => old.setAccount(entry.account));
        continue;
      }
      const made = createServedAccount(entry, { keeper, clock, onSlot });
      next.set(id, made);
      result[old === undefined ? 'added' : 'changed'].push(id);
      if (old !== undefined) begin.push(() => replace(old, made));
    }
    for (const [id, account] of accounts) {
      yield;
      if (next.has(id)) continue;
      removed.push(id);
      begin.push(() => retire(account));
    }
    return () => {
      accounts = next;
      store.serves?.(next);
      plan = background.plan;
      for (const step of begin) step();
      void tidyUp(next, alsoKeep);
      return { ...result, removed };
    };
  }

  /** Whatever belongs to others goes; nobody waits for that. */
  async function tidyUp(
    served: ReadonlyMap<string, ServedAccount>,
    alsoKeep: readonly string[],
  ): Promise<void> {
    const own = round;
    const slices = createSlices(clock);
    const clients = new Set<string>();
    for (const account of served.values()) {
      for (const slot of account.slots()) clients.add(clientOf(slot));
      if (slices.isOver) await slices.rest();
      if (own !== round) return;
    }
    book.keepOnly(clients);
    for (const _ of keeper.keepOnly(wantedGrants)) {
      if (slices.isOver) await slices.rest();
      if (own !== round) return;
    }
    prune(new Set([...served.keys(), ...alsoKeep]));
  }

  const wantedGrants = { has: (grant: Grant) => accounts.get(grant.accountId)?.grant === grant };

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
    prepare,
    keptRemoved: () => kept,
    retireAll() {
      for (const account of accounts.values()) retire(account);
    },
  };
}
