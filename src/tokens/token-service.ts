/**
 * The token service: a fresh access token for every account. In: accounts with their credentials.
 * Out: `AccessToken`s, synchronously where one is cached. Owns the cache, one flight per account,
 * the background refresh and what an operator sees of it; the only room that sees a credential.
 */
import type { Account, AccountState } from '../accounts/account.ts';
import type { Credential } from '../accounts/credential.ts';
import type { BreakerState } from '../breaker.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { type AccessToken, TokenError, type TokenSource } from './access-token.ts';
import { createFailureBook } from './failure-book.ts';
import { createLimiter } from './limiter.ts';
import { type PrecacheResult, runPrecache } from './precache.ts';
import { createMemoryStore } from './store-memory.ts';
import { createTokenEndpoints, type TokenEndpointOptions } from './token-endpoint.ts';
import {
  createEntry,
  dropToken,
  refreshAheadAt,
  stateOf,
  type TokenEntry,
  type TokenOrigin,
  takeInitialToken,
  usableUntil,
} from './token-entry.ts';
import { createRefresher, type RefreshObservation } from './token-refresher.ts';
import { countTotals, describeEntry, type TokenStatus, type TokenTotals } from './token-status.ts';
import type { TokenStore } from './token-store.ts';

export interface TokenServiceDeps {
  readonly log: Log;
  /** Default: memory. The service opens and closes it. */
  readonly store?: TokenStore;
  readonly clock?: Clock;
  /** 0 to 1, for jitter. */
  readonly random?: () => number;
}

export interface TokenServiceOptions {
  /** Background requests at once, pre-cache and refresh ahead. Default 50. */
  readonly concurrency?: number;
  /** Refresh tokens before they end. Default true. */
  readonly refreshAhead?: boolean;
  readonly endpoint?: TokenEndpointOptions;
}

export interface AccountCredential {
  readonly account: Account;
  readonly credential: Credential;
}

/** What `applyAccounts` did, by account id. */
export interface ApplyResult {
  readonly added: readonly string[];
  readonly changed: readonly string[];
  readonly removed: readonly string[];
  readonly untouched: readonly string[];
}

export interface TokenService extends TokenSource {
  /** Opens the store; before anything else. Rejects where it cannot be used as configured. */
  open(): Promise<void>;
  /**
   * Makes exactly these accounts known: untouched ones keep their token, changed ones drop it, removed ones
   * are cleaned up. Of `alsoKeep` (accounts that cannot be served just now, say for a typing error) the
   * store keeps its records: they may hold the only good refresh token.
   */
  applyAccounts(entries: readonly AccountCredential[], alsoKeep?: readonly string[]): ApplyResult;
  /** Fetches for the given accounts (default: all) what is not cached. Never rejects. */
  precache(accountIds?: readonly string[]): Promise<PrecacheResult>;
  /** Asks the endpoint now, cached or not. Rejects with `TokenError`; while throttled without asking. */
  refresh(accountId: string): Promise<TokenStatus>;
  /** Drops the cached access token, in the store too; the next `get` fetches. False: no such account. */
  forget(accountId: string): boolean;
  statusOf(accountId: string): TokenStatus | undefined;
  totals(): TokenTotals;
  /** One per token endpoint asked so far. */
  breakers(): readonly BreakerState[];
  onStateChange(listener: (accountId: string, state: AccountState) => void): void;
  onRefresh(listener: (observation: RefreshObservation) => void): void;
  /** Stops the background, cuts requests under way, closes the store. */
  close(): Promise<void>;
}

/** Accounts that were paused together are asked about within this time, not all at once, ms. */
const PAUSE_SPREAD_MS = 5000;

export function createTokenService(deps: TokenServiceDeps, options: TokenServiceOptions = {}): TokenService {
  const { log, clock = systemClock, random = Math.random, store = createMemoryStore() } = deps;
  const bound = options.concurrency ?? 50;
  const background = createLimiter(bound);
  const entries = new Map<string, TokenEntry>();
  const stateListeners: ((accountId: string, state: AccountState) => void)[] = [];
  const refreshListeners: ((observation: RefreshObservation) => void)[] = [];
  const endpoints = createTokenEndpoints({ log, clock }, options.endpoint);
  const refresher = createRefresher({
    endpoints,
    store,
    clock,
    log,
    onRefresh: (observation) => {
      for (const listener of refreshListeners) listener(observation);
    },
  });
  const book = createFailureBook({ log, clock, random });
  let hits = 0;
  let misses = 0;
  let closed = false;

  store.onForgotten?.((accountId) => {
    const entry = entries.get(accountId);
    if (entry !== undefined) drop(entry);
  });

  function use(entry: TokenEntry, now: number): void {
    hits += 1;
    entry.uses += 1;
    entry.lastUsedAt = now;
  }

  function peek(accountId: string): AccessToken | undefined {
    const entry = entries.get(accountId);
    if (entry === undefined) return undefined;
    const now = clock.now();
    if (now >= entry.freshUntil) return undefined;
    use(entry, now);
    return entry.token;
  }

  const unknown = (accountId: string): TokenError =>
    new TokenError('unknown_account', `no account ${accountId}`);

  /** One request however many callers: all share the flight. */
  function fetch(entry: TokenEntry, origin: TokenOrigin, force = false): Promise<AccessToken> {
    if (entry.flight !== undefined) return entry.flight;
    const number = ++entry.flights;
    const flight = (async () => {
      const result = await refresher.obtain(entry, { origin, flight: number, force });
      if (result.ok) {
        if (number === entry.flights) book.recover(entry);
        return result.token;
      }
      const { failure, sent, probeAt } = result;
      throw book.record(entry, failure, { sent, probeAt, current: number === entry.flights });
    })();
    const landed = (): void => {
      if (entry.flight === flight) entry.flight = undefined;
      schedule(entry);
      announce(entry);
    };
    entry.flight = flight;
    announce(entry);
    flight.then(landed, landed);
    return flight;
  }

  /** The entry as it is now; a reload may have replaced it while somebody waited. */
  async function acquire(
    accountId: string,
    ask: (entry: TokenEntry) => Promise<AccessToken>,
  ): Promise<AccessToken> {
    for (;;) {
      const entry = entries.get(accountId);
      if (entry === undefined || closed) throw unknown(accountId);
      try {
        const token = await ask(entry);
        if (entry.retired) continue;
        entry.uses += 1;
        entry.lastUsedAt = clock.now();
        return token;
      } catch (error) {
        if (!entry.retired) throw error;
      }
    }
  }

  async function get(accountId: string): Promise<AccessToken> {
    const hit = peek(accountId);
    if (hit !== undefined) return hit;
    misses += 1;
    return acquire(accountId, async (entry) => {
      const now = clock.now();
      if (now < entry.freshUntil && entry.token !== undefined) return entry.token;
      if (entry.flight === undefined && entry.failure !== undefined && now < entry.blockedUntil) {
        throw entry.failure;
      }
      try {
        return await fetch(entry, 'on-demand');
      } catch (error) {
        // The endpoint is down; what is cached may still live although it is past its buffer.
        if (entry.token !== undefined && clock.now() < usableUntil(entry.token)) return entry.token;
        throw error;
      }
    });
  }

  async function renew(accountId: string, rejected: AccessToken): Promise<AccessToken> {
    const refused = rejected.reveal();
    const refuse = (entry: TokenEntry | undefined): void => {
      if (entry === undefined) return;
      entry.rejected = rejected;
      if (entry.token?.reveal() === refused) dropToken(entry);
    };
    refuse(entries.get(accountId));
    const replacement = peek(accountId);
    if (replacement !== undefined) return replacement;
    misses += 1;
    return acquire(accountId, async (entry) => {
      refuse(entry);
      if (entry.flight === undefined && entry.failure !== undefined && clock.now() < entry.blockedUntil) {
        throw entry.failure;
      }
      const token = await fetch(entry, 'renewal');
      if (token.reveal() !== refused) return token;
      // A flight that began before the refusal had it from the store.
      refuse(entry);
      return fetch(entry, 'renewal');
    });
  }

  /** Plans the next background refresh: ahead of the token's end, or after a failure. */
  function schedule(entry: TokenEntry): void {
    entry.cancelTimer?.();
    entry.cancelTimer = undefined;
    entry.nextRefreshAt = undefined;
    if (entry.retired || closed || options.refreshAhead === false) return;
    const now = clock.now();
    const { token, failure, credential } = entry;
    const at =
      failure !== undefined
        ? book.nextTry(entry)
        : token !== undefined
          ? refreshAheadAt(token, credential.safetyBufferMs, random())
          : undefined;
    if (at === undefined) return;
    const paused = book.pausedUntil(entry);
    // After a pause the accounts of a client come one after another.
    entry.nextRefreshAt = Math.max(at, now, paused > now ? paused + PAUSE_SPREAD_MS * random() : 0);
    entry.cancelTimer = clock.after(entry.nextRefreshAt - now, () => {
      entry.cancelTimer = undefined;
      background(async () => {
        const paused = book.pausedUntil(entry);
        if (paused > clock.now()) schedule(entry);
        else if (!entry.retired && !closed) await fetch(entry, 'refresh-ahead');
      }).catch(() => undefined);
    });
  }

  function announce(entry: TokenEntry): void {
    if (entry.retired) return;
    const state = stateOf(entry, clock.now());
    if (state.status === entry.announced) return;
    entry.announced = state.status;
    for (const listener of stateListeners) listener(entry.account.id, state);
  }

  /** A flight under way is for those who wait for it only. */
  function drop(entry: TokenEntry): void {
    dropToken(entry);
    entry.flights += 1;
    entry.flight = undefined;
    schedule(entry);
    announce(entry);
  }

  function retire(entry: TokenEntry): void {
    entry.retired = true;
    entry.cancelTimer?.();
    entry.cancelTimer = undefined;
    dropToken(entry);
  }

  function applyAccounts(
    wanted: readonly AccountCredential[],
    alsoKeep: readonly string[] = [],
  ): ApplyResult {
    const ids = new Set(wanted.map((w) => w.account.id));
    const removed = [...entries.keys()].filter((id) => !ids.has(id));
    const result = { added: [] as string[], changed: [] as string[], untouched: [] as string[], removed };
    for (const id of removed) {
      const entry = entries.get(id);
      if (entry !== undefined) retire(entry);
      entries.delete(id);
    }
    for (const { account, credential } of wanted) {
      const entry = createEntry(account, credential);
      const old = entries.get(account.id);
      if (old?.fingerprint === entry.fingerprint) {
        old.account = account;
        result.untouched.push(account.id);
        continue;
      }
      if (old !== undefined) {
        retire(old);
        if (old.grantFingerprint === entry.grantFingerprint) inherit(entry, old);
      }
      entries.set(account.id, entry);
      takeInitialToken(entry, clock.now());
      if (entry.token !== undefined) schedule(entry);
      (old === undefined ? result.added : result.changed).push(account.id);
    }
    book.keepOnly(entries.values());
    store.prune(new Set([...ids, ...alsoKeep])).then(
      (gone) => {
        if (gone > 0)
          log.info({ event: 'token_store_pruned', gone }, 'removed tokens of accounts that are gone');
      },
      () => log.warn({ event: 'token_store_failed', store: store.kind, what: 'prune' }, 'token store failed'),
    );
    return result;
  }

  function inherit(entry: TokenEntry, old: TokenEntry): void {
    old.successor = entry;
    entry.rejected = old.rejected;
    entry.refreshToken = old.refreshToken;
    entry.refreshTokenObtainedAt = old.refreshTokenObtainedAt;
  }

  function statusOf(accountId: string): TokenStatus | undefined {
    const entry = entries.get(accountId);
    if (entry === undefined) return undefined;
    return describeEntry(entry, clock.now());
  }

  return {
    open: () => store.open(),
    peek,
    get,
    renew,
    applyAccounts,
    async precache(accountIds) {
      const wanted = accountIds ?? [...entries.keys()];
      return runPrecache(
        {
          clock,
          log,
          random,
          hasToken: (entry) => clock.now() < entry.freshUntil,
          pausedUntil: book.pausedUntil,
          fetch: async (entry) => {
            if (!entry.retired && !closed) await fetch(entry, 'pre-cache').catch(() => undefined);
          },
        },
        wanted.flatMap((id) => entries.get(id) ?? []),
        bound,
      );
    },
    async refresh(accountId) {
      await acquire(accountId, async (entry) => {
        const { failure } = entry;
        if (failure?.code === 'throttled' && clock.now() < entry.blockedUntil) throw failure;
        return fetch(entry, 'operator', true);
      });
      return statusOf(accountId) ?? Promise.reject(unknown(accountId));
    },
    forget(accountId) {
      const entry = entries.get(accountId);
      if (entry === undefined) return false;
      drop(entry);
      void refresher.keep(entry, undefined);
      store.announceForgotten?.(accountId).catch(() => undefined);
      return true;
    },
    statusOf,
    totals: () => countTotals({ hits, misses, ...refresher.counts }),
    breakers: endpoints.breakers,
    onStateChange: (listener) => void stateListeners.push(listener),
    onRefresh: (listener) => void refreshListeners.push(listener),
    async close() {
      closed = true;
      for (const entry of entries.values()) retire(entry);
      refresher.close();
      await endpoints.close();
      await store.close();
    },
  };
}
