/**
 * The token service: a fresh access token for every account and resource. In: accounts with their
 * credentials. Out: `AccessToken`s, synchronously where one is cached. Owns the cache, one flight per
 * slot, the background refresh and what an operator sees of it; the only room that sees a credential.
 */
import type { AccountState } from '../accounts/account.ts';
import type { TokenResource } from '../accounts/credential.ts';
import { type Activity, createActivity } from '../activity.ts';
import type { BreakerState } from '../breaker.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { createWatch } from '../protocol/masking.ts';
import { runAtOnce } from '../slices.ts';
import { type AccessToken, TokenError, type TokenSource } from './access-token.ts';
import { type AccountRoll, type ApplyResult, createAccountRoll } from './account-roll.ts';
import { type Adoption, createAdoption } from './adoption.ts';
import { createBackground } from './background.ts';
import { createCacheUse } from './cache-use.ts';
import { createClosing } from './closing.ts';
import { stopping } from './disbelief.ts';
import { createFailureBook } from './failure-book.ts';
import { createGrantKeeper } from './grant-keeper.ts';
import { type PrecacheResult, runPrecache } from './precache.ts';
import type { AccountCredential } from './served-account.ts';
import { createMemoryStore } from './store-memory.ts';
import { createTokenEndpoints, type TokenEndpointOptions } from './token-endpoint.ts';
import { createRefresher, type RefreshObservation } from './token-refresher.ts';
import type { Slot, TokenOrigin } from './token-slot.ts';
import {
  countTotals,
  describeAccount,
  slotsInOrder,
  stateOfAccount,
  type TokenFigures,
  type TokenStatus,
} from './token-status.ts';
import type { KeptGrant, TokenStore } from './token-store.ts';
import type { WithoutStore } from './unlocked.ts';

export type { AccountCredential, ApplyResult };

export interface TokenServiceDeps {
  readonly log: Log;
  /** Default: memory. The service opens and closes it. */
  readonly store?: TokenStore;
  /** A token endpoint fails and is not asked for `restMs`; undefined: it answers again. For other relays. */
  readonly onEndpointRest?: (tokenUrl: string, restMs: number | undefined) => void;
  /** Default: every account sends all the time. */
  readonly activity?: Activity;
  readonly clock?: Clock;
  /** 0 to 1, for jitter. */
  readonly random?: () => number;
}

export interface TokenServiceOptions {
  /** Background requests at once, pre-cache and refresh ahead. Default 50. */
  readonly concurrency?: number;
  /** Refresh tokens before they end. Default true. */
  readonly refreshAhead?: boolean;
  /** How long the grant of an account that has left the accounts file is kept, ms. Default 14 days. */
  readonly forgetAfterMs?: number;
  /** While the store that processes share cannot be had. Default `wait`. */
  readonly withoutStore?: WithoutStore;
  readonly endpoint?: TokenEndpointOptions;
}

export interface TokenService extends TokenSource, Adoption {
  /** Opens the store; before anything else. Rejects where it cannot be used as configured. */
  open(): Promise<void>;
  /** Makes ready to know exactly these accounts (see `AccountRoll.prepare`). */
  prepareAccounts: AccountRoll['prepare'];
  /** The same, and knows them, at once. */
  applyAccounts(entries: readonly AccountCredential[], alsoKeep?: readonly string[]): ApplyResult;
  /** Fetches for the given accounts (default: all) what is not cached. Never rejects. */
  precache(accountIds?: readonly string[]): Promise<PrecacheResult>;
  /** Asks the endpoint now, cached or not. Rejects with `TokenError`; while throttled without asking. */
  refresh(accountId: string, resource?: TokenResource): Promise<TokenStatus>;
  /** Drops the cached access tokens, in the store too; the next `get` fetches. False: no such account. */
  forget(accountId: string): boolean;
  statusOf(accountId: string): TokenStatus | undefined;
  /** `statusOf(accountId).state`, for many accounts. */
  stateOf(accountId: string): AccountState | undefined;
  /** Likewise, when its token ends, ms since the epoch; undefined where none can be used. */
  expiryOf(accountId: string): number | undefined;
  /** Accounts whose newest refresh token could not be saved yet. */
  unsaved(): readonly string[];
  /** Accounts that left the accounts file and whose grants are still kept. */
  keptRemoved(): readonly KeptGrant[];
  totals(): TokenFigures;
  /** Statistics of the cache begin anew, for what comes after the warm-up. */
  resetCacheCounts(): void;
  /** The store has lost its data: what this process knows of it is written again. */
  saveAgain(): Promise<void>;
  /** One per token endpoint asked so far. */
  breakers(): readonly BreakerState[];
  /** Another relay found a token endpoint failing and asks again in `leftMs`; undefined: it answers again. */
  endpointHeard(tokenUrl: string, leftMs: number | undefined): void;
  onStateChange(listener: (accountId: string, state: AccountState) => void): void;
  onRefresh(listener: (observation: RefreshObservation) => void): void;
  /** From now on nothing is asked any more; cached tokens are handed out as before. */
  drain(): void;
  /** When no answer is awaited any more, a late one neither, and what came is kept or could not be. */
  answered(): Promise<void>;
  /**
   * Awaits the refreshes under way and their saving, at most as long as an answer may take since `drain` or for
   * `deadlineMs`, whichever is longer; then closes everything, once for all callers. Rejects with `GrantsUnsavedError` after
   * that where a refresh token is lost.
   */
  close(options?: { readonly deadlineMs?: number }): Promise<void>;
}

const FORGET_AFTER_MS = 14 * 24 * 60 * 60_000;

export function createTokenService(deps: TokenServiceDeps, options: TokenServiceOptions = {}): TokenService {
  const { log, clock = systemClock, random = Math.random, activity = createActivity(0) } = deps;
  const store = deps.store ?? createMemoryStore(clock);
  const stateListeners: ((accountId: string, state: AccountState) => void)[] = [];
  const refreshListeners: ((observation: RefreshObservation) => void)[] = [];
  const endpoints = createTokenEndpoints(
    { log, clock, ...(deps.onEndpointRest && { onRest: deps.onEndpointRest }) },
    options.endpoint,
  );
  const keeper = createGrantKeeper({ store, clock, log, onChange: (accountId) => announce(accountId, true) });
  const refresher = createRefresher({
    endpoints,
    store,
    keeper,
    withoutStore: options.withoutStore ?? 'wait',
    clock,
    log,
    onRefresh: (observation) => {
      for (const listener of refreshListeners) listener(observation);
    },
    onLateToken: replan,
  });
  const book = createFailureBook({ log, clock, random });
  const background = createBackground(
    {
      clock,
      random,
      book,
      fetch,
      activity,
      lookAgain: refresher.lookAgain,
      isShared: store.kind !== 'memory',
    },
    { bound: options.concurrency ?? 50, refreshAhead: options.refreshAhead !== false },
  );
  const accounts = createAccountRoll(
    { store, keeper, book, background, activity, clock, log },
    { forgetAfterMs: options.forgetAfterMs ?? FORGET_AFTER_MS },
  );
  const cache = createCacheUse({ log, clock });
  let stage: 'serving' | 'draining' | 'closed' = 'serving';

  store.onForgotten?.((accountId) => {
    for (const slot of accounts.get(accountId)?.slots() ?? []) drop(slot);
  });

  function peek(accountId: string, resource: TokenResource = 'smtp'): AccessToken | undefined {
    const token = accounts.get(accountId)?.slot(resource)?.handOut();
    if (token !== undefined) cache.hit(accountId, resource);
    return token;
  }

  const unknown = (accountId: string): TokenError =>
    new TokenError('unknown_account', `no account ${accountId}`);

  /** One request however many callers: all share the flight. */
  function fetch(slot: Slot, origin: TokenOrigin, force = false): Promise<AccessToken> {
    if (slot.flight !== undefined) return slot.flight.result;
    if (stage !== 'serving') return Promise.reject(new TokenError(stopping.kind, stopping.message));
    const number = slot.nextFlight();
    // The slot knows of the flight before anything of it happens.
    const result = Promise.resolve().then(() => fly(slot, { origin, flight: number, force }));
    slot.apply({ type: 'asked', flight: { number, result } });
    announce(slot.accountId);
    const landed = (): void => replan(slot);
    result.then(landed, landed);
    return result;
  }

  async function fly(
    slot: Slot,
    request: { readonly origin: TokenOrigin; readonly flight: number; readonly force: boolean },
  ): Promise<AccessToken> {
    const { flight } = request;
    const result = await refresher.obtain(slot, request);
    const isCurrent = slot.flight?.number === flight;
    if (result.ok) {
      if (isCurrent && slot.trouble !== undefined) book.recovered(slot);
      slot.apply({ type: 'answered', flight, held: slot.hold(result.token, result.origin) });
      return result.token;
    }
    const { failure, sent, probeAt } = result;
    const trouble = book.record(slot, failure, { sent, probeAt, current: isCurrent });
    slot.apply({ type: 'refused', flight, trouble });
    throw trouble.error;
  }

  /** The slot as it is now; a reload may have replaced it while somebody waited. */
  async function acquire(
    accountId: string,
    resource: TokenResource,
    ask: (slot: Slot) => Promise<AccessToken>,
  ): Promise<AccessToken> {
    for (;;) {
      const account = accounts.get(accountId);
      if (account === undefined || stage === 'closed') throw unknown(accountId);
      const slot = account.slot(resource);
      if (slot === undefined)
        throw new TokenError('bad_request', `account ${accountId} has no scope for ${resource}`, {
          cure: `give the account a provider, grant or scope with tokens for ${resource}`,
        });
      try {
        const token = await ask(slot);
        if (slot.isRetired) continue;
        slot.noteUse();
        return token;
      } catch (error) {
        if (!slot.isRetired) throw error;
      }
    }
  }

  const isBlocked = (slot: Slot): boolean =>
    slot.flight === undefined && clock.monotonic() < slot.blockedUntilMono;

  async function get(accountId: string, resource: TokenResource = 'smtp'): Promise<AccessToken> {
    const hit = peek(accountId, resource);
    if (hit !== undefined) return hit;
    cache.missed(accountId, resource, accounts.get(accountId)?.slot(resource)?.token);
    return acquire(accountId, resource, async (slot) => {
      const { token, trouble } = slot;
      if (token !== undefined && slot.isFresh()) return token;
      if (trouble !== undefined && isBlocked(slot)) throw trouble.error;
      try {
        return await fetch(slot, 'on-demand');
      } catch (error) {
        // The endpoint is down; what is cached may still live although it is past its buffer.
        if (slot.token !== undefined && slot.isUsable()) return slot.token;
        throw error;
      }
    });
  }

  async function renew(
    accountId: string,
    rejected: AccessToken,
    resource: TokenResource = 'smtp',
  ): Promise<AccessToken> {
    const refused = rejected.reveal();
    accounts.get(accountId)?.slot(resource)?.reject(rejected);
    log.debug({ event: 'token_rejected', account: accountId, resource }, 'the mail server refused the token');
    const replacement = peek(accountId, resource);
    if (replacement !== undefined) return replacement;
    cache.missed(accountId, resource, undefined);
    return acquire(accountId, resource, async (slot) => {
      slot.reject(rejected);
      if (slot.trouble !== undefined && isBlocked(slot)) throw slot.trouble.error;
      const token = await fetch(slot, 'renewal');
      if (token.reveal() !== refused) return token;
      // A flight that began before the refusal had it from the store.
      slot.reject(rejected);
      return fetch(slot, 'renewal');
    });
  }

  function announce(accountId: string, always = false): void {
    const account = accounts.get(accountId);
    const state = stateOf(accountId);
    if (account === undefined || state === undefined || (!always && state.status === account.told)) return;
    account.told = state.status;
    for (const listener of stateListeners) listener(accountId, state);
  }

  function stateOf(accountId: string): AccountState | undefined {
    const account = accounts.get(accountId);
    return account && stateOfAccount(account);
  }

  function replan(slot: Slot): void {
    background.plan(slot);
    announce(slot.accountId);
  }

  /** A flight under way is for those who wait for it only. */
  function drop(slot: Slot): void {
    slot.apply({ type: 'forgotten' });
    log.debug(
      { event: 'token_forgotten', account: slot.accountId, resource: slot.resource },
      'access token dropped',
    );
    replan(slot);
  }

  function statusOf(accountId: string): TokenStatus | undefined {
    const account = accounts.get(accountId);
    return account && describeAccount(accountId, account, background.plannedAt);
  }

  function drain(): void {
    if (stage === 'serving') stage = 'draining';
    refresher.stop();
    background.stop();
  }

  return {
    open: () => store.open(),
    peek,
    get,
    renew,
    mask: (accountId, used) =>
      createWatch([...new Set([used?.reveal() ?? '', ...(accounts.get(accountId)?.secrets() ?? [])])]),
    prepareAccounts: accounts.prepare,
    applyAccounts: (entries, alsoKeep) => runAtOnce(accounts.prepare(entries, alsoKeep))(),
    async precache(accountIds) {
      return runPrecache(
        {
          clock,
          log,
          random,
          hasToken: (slot) => slot.isFresh(),
          pausedUntil: book.pausedUntil,
          fetch: async (slot) => {
            if (!slot.isRetired && stage === 'serving') await fetch(slot, 'pre-cache').catch(() => undefined);
          },
        },
        (accountIds ?? accounts.ids()).flatMap((id) => accounts.get(id)?.ahead ?? []),
        options.concurrency ?? 50,
      );
    },
    async refresh(accountId, resource = 'smtp') {
      await acquire(accountId, resource, async (slot) => {
        if (slot.trouble?.error.code === 'throttled' && isBlocked(slot)) throw slot.trouble.error;
        return fetch(slot, 'operator', true);
      });
      return statusOf(accountId) ?? Promise.reject(unknown(accountId));
    },
    ...createAdoption({
      accounts,
      refresher,
      keeper,
      log,
      isServing: () => stage === 'serving',
      plan: background.plan,
      announce: (accountId) => announce(accountId, true),
      fetch: (slot, origin) =>
        fetch(slot, origin, origin === 'operator').then(
          () => undefined,
          () => undefined,
        ),
    }),
    forget(accountId) {
      const account = accounts.get(accountId);
      if (account === undefined) return false;
      for (const slot of account.slots()) {
        drop(slot);
        void keeper.saveToken(slot.grant, slot.resource, undefined);
      }
      store.announceForgotten?.(accountId).catch(() => undefined);
      return true;
    },
    statusOf,
    stateOf,
    expiryOf(accountId) {
      const account = accounts.get(accountId);
      const first = account && slotsInOrder(account)[0];
      return first?.isUsable() ? first.token?.expiresAt : undefined;
    },
    unsaved: keeper.unsaved,
    keptRemoved: accounts.keptRemoved,
    totals: () => countTotals({ ...cache.counts, ...refresher.counts }),
    resetCacheCounts: cache.reset,
    saveAgain: () => keeper.saveAgain(),
    breakers: endpoints.breakers,
    endpointHeard: endpoints.heard,
    onStateChange: (listener) => void stateListeners.push(listener),
    onRefresh: (listener) => void refreshListeners.push(listener),
    drain,
    answered: refresher.answered,
    close: createClosing({
      refresher,
      endpoints,
      keeper,
      store,
      log,
      drain,
      onSettled() {
        stage = 'closed';
        accounts.retireAll();
      },
    }),
  };
}
