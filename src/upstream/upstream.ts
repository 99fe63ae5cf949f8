/**
 * The upstream side of every account. In: accounts, tokens. Out: per account a pool of authenticated
 * connections behind pacing, health and the endpoint's breaker. Owns connections, endpoints and the
 * one maintenance timer. 535 is answered with one new token on a fresh connection, never more.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Account, AccountState } from '../accounts/account.ts';
import type { Log } from '../log.ts';
import type { Capabilities } from '../protocol/capabilities.ts';
import type { Verdict } from '../protocol/verdict.ts';
import { type AccessToken, TokenError, type TokenSource } from '../tokens/access-token.ts';
import { type AccountHealth, createAccountHealth } from './account-health.ts';
import type { UpstreamConnection } from './connection.ts';
import { type BreakerState, createEndpoint, type UpstreamEndpoint } from './endpoint.ts';
import { UpstreamError } from './failure.ts';
import type { OpenConnection } from './open.ts';
import { type ConnectionPool, createConnectionPool, type Lease, type PoolCounts } from './pool.ts';

/** How often pools are looked after; well below every idle and age limit. */
const DEFAULT_MAINTENANCE_MS = 5_000;
/** Connections being opened at once at one endpoint: enough to warm 1,000 accounts quickly, no flood. */
const DEFAULT_MAX_OPENING = 50;

/** What src/relay sees of one account's upstream. */
export interface AccountUpstream {
  readonly account: Account;
  readonly health: AccountHealth;
  /** Connections open now. */
  readonly live: number;
  /** What the server offered last; undefined before a first connection. */
  readonly capabilities: Capabilities | undefined;
  /** BDAT may be used on this connection: wanted for the account, and proved to be safe. */
  mayUseBdat(connection: UpstreamConnection): boolean;
  /** The server does not know BDAT after all: use DATA from now on. */
  refuseBdat(connection: UpstreamConnection): void;
  /** Rejects with `UpstreamError`. */
  acquire(): Promise<Lease>;
  /** Makes sure that there is a connection, opening one if there is none. Rejects with `UpstreamError`. */
  ensureConnected(): Promise<void>;
  /** A transaction begins: connections stay to be had until the returned function is called, also when the account is removed meanwhile. */
  hold(): () => void;
  /** A verdict of a transaction: feeds breaker and health. */
  report(verdict: Verdict): void;
  /** A message was taken. */
  delivered(): void;
}

export interface UpstreamStatus {
  readonly counts: PoolCounts;
  readonly state: AccountState;
}

export interface Upstreams {
  of(accountId: string): AccountUpstream | undefined;
  /** Serves exactly these accounts from now on: equal ones (same object) are untouched, others get a new pool; pools of the gone ones close once idle. */
  applyAccounts(accounts: readonly Account[]): void;
  /** Opens the warm connections of these accounts (default all) in parallel; never rejects. Resolves with how many accounts have one. */
  warmUp(accountIds?: readonly string[]): Promise<{ readonly warm: number; readonly cold: number }>;
  /** Closes the account's connections as they fall idle and opens none ahead, until `unpark`. */
  park(accountId: string): void;
  unpark(accountId: string): void;
  status(accountId: string): UpstreamStatus | undefined;
  breakers(): readonly BreakerState[];
  /** Waits for busy connections, says QUIT on all. */
  close(): Promise<void>;
}

export interface UpstreamsDeps {
  readonly tokens: TokenSource;
  readonly open: OpenConnection;
  readonly log: Log;
  /** An account's state may have changed. */
  readonly onStateChange?: (accountId: string) => void;
  readonly onBreaker?: (state: BreakerState) => void;
}

export interface UpstreamsOptions {
  /** Longest wait for a connection, ms; default 30,000 in settings. */
  readonly acquireTimeoutMs: number;
  /** Connections being opened at once per endpoint; default 50. */
  readonly maxOpening?: number;
  /** Time between two looks at the pools, ms; default 5,000. */
  readonly maintenanceMs?: number;
  /** An open breaker is probed after this, ms. */
  readonly breakerResetMs?: number;
}

interface Served {
  readonly upstream: AccountUpstream;
  readonly pool: ConnectionPool;
  readonly endpoint: UpstreamEndpoint;
  readonly retired: AbortController;
  /** Resolves when no transaction holds it. */
  whenFree(): Promise<void>;
}

/** A token room's error as an upstream event. */
function tokenTrouble(error: unknown, account: string): UpstreamError {
  if (!(error instanceof TokenError)) throw error;
  return new UpstreamError(
    { kind: 'token', code: error.code, account, detail: error.message, retryAt: error.retryAt },
    error,
  );
}

export function createUpstreams(deps: UpstreamsDeps, options: UpstreamsOptions): Upstreams {
  const { tokens, log } = deps;
  const endpoints = new Map<string, UpstreamEndpoint>();
  const served = new Map<string, Served>();
  const closing = new Set<Promise<void>>();
  const parked = new Set<string>();
  let stop = (): void => {};
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });

  function endpointOf(account: Account): UpstreamEndpoint {
    const name = `${account.upstream.host}:${account.upstream.port}`;
    let endpoint = endpoints.get(name);
    if (endpoint === undefined) {
      endpoint = createEndpoint(name, {
        maxOpening: options.maxOpening ?? DEFAULT_MAX_OPENING,
        ...(options.breakerResetMs === undefined ? {} : { resetMs: options.breakerResetMs }),
        onBreaker: (state) => {
          log.warn(
            { event: 'breaker', endpoint: state.name, state: state.state },
            'upstream breaker changed',
          );
          deps.onBreaker?.(state);
        },
      });
      endpoints.set(name, endpoint);
    }
    return endpoint;
  }

  async function token(account: Account): Promise<AccessToken> {
    try {
      return tokens.peek(account.id) ?? (await tokens.get(account.id));
    } catch (error) {
      throw tokenTrouble(error, account.id);
    }
  }

  /** An authenticated connection, its server proved or found wanting where BDAT is wanted. */
  async function openProved(
    account: Account,
    endpoint: UpstreamEndpoint,
    access: AccessToken,
  ): Promise<UpstreamConnection> {
    const connection = await endpoint.guard(account.id, () => deps.open(account, access));
    const { chunking, pipelining } = connection.capabilities;
    if (!account.chunking || !chunking || !pipelining) return connection;
    await endpoint.proofs.prove(connection);
    // What broke the connection is remembered: the next one is not asked.
    return connection.dead ? endpoint.guard(account.id, () => deps.open(account, access)) : connection;
  }

  /** Authenticates; after a 535 once more with a new token. */
  async function openAuthenticated(
    account: Account,
    endpoint: UpstreamEndpoint,
  ): Promise<UpstreamConnection> {
    const first = await token(account);
    try {
      return await openProved(account, endpoint, first);
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      if (error.verdict.renewToken) {
        const renewed = await tokens.renew(account.id, first).catch((e: unknown) => {
          throw tokenTrouble(e, account.id);
        });
        return openProved(account, endpoint, renewed);
      }
      // A server that misunderstood our AUTH gets one more try on a fresh connection.
      if (error.verdict.retry === 'fresh') return openProved(account, endpoint, first);
      throw error;
    }
  }

  function serve(account: Account): Served {
    const endpoint = endpointOf(account);
    endpoint.accounts++;
    const health = createAccountHealth();
    let nextLoginAt = 0;
    /** Ends waits for a login that nobody needs any more. */
    const retired = new AbortController();

    async function open(): Promise<UpstreamConnection> {
      const now = Date.now();
      const paused = health.gate('logins', now);
      if (paused !== undefined)
        throw new UpstreamError({ kind: 'local', cause: 'logins_paused' }, undefined, paused);
      const waitMs = Math.max(0, nextLoginAt - now);
      nextLoginAt = Math.max(now, nextLoginAt) + account.limits.loginIntervalMs;
      if (waitMs > 0) await delay(waitMs, undefined, { ref: false, signal: retired.signal }).catch(() => {});
      if (retired.signal.aborted) throw new UpstreamError({ kind: 'local', cause: 'draining' });
      const startedAt = Date.now();
      try {
        const connection = await openAuthenticated(account, endpoint);
        endpoint.capabilities = connection.capabilities;
        log.debug(
          { event: 'connected', account: account.id, connection: connection.id, ms: Date.now() - startedAt },
          'upstream connection opened',
        );
        if (health.succeeded('logins', Date.now())) deps.onStateChange?.(account.id);
        return connection;
      } catch (error) {
        if (error instanceof UpstreamError) {
          // What did not come as far as AUTH was no login and needs no interval after it.
          if (error.event.kind === 'lost' && error.event.stage !== 'auth') nextLoginAt = Date.now();
          const changed = health.suffered(error.verdict, Date.now());
          log[changed ? 'warn' : 'debug'](
            {
              event: 'connect_failed',
              account: account.id,
              endpoint: endpoint.name,
              class: error.verdict.class,
            },
            error.message,
          );
          if (changed) deps.onStateChange?.(account.id);
        }
        throw error;
      }
    }

    const pool = createConnectionPool(account, open, {
      acquireTimeoutMs: options.acquireTimeoutMs,
      concurrency: () => health.concurrency(account.limits.maxConnections, Date.now()),
      keepIdle: () => !parked.has(account.id),
      mayOpen: () => !parked.has(account.id) && health.mayLogIn(Date.now()) && !endpoint.open,
    });
    let connecting: Promise<void> | undefined;
    let holds = 0;
    const waitingForFree: (() => void)[] = [];

    /** One that is being opened already is as good as a new one. */
    async function connect(): Promise<void> {
      await pool.opened();
      if (pool.live > 0) return;
      const lease = await pool.acquire();
      lease.release();
    }

    const upstream: AccountUpstream = {
      account,
      health,
      get live() {
        return pool.live;
      },
      get capabilities() {
        return endpoint.capabilities;
      },
      mayUseBdat: (connection) => account.chunking && endpoint.proofs.isProved(connection),
      refuseBdat(connection) {
        endpoint.proofs.refute(connection);
        log.warn(
          { event: 'bdat_refused', endpoint: endpoint.name },
          'upstream offers CHUNKING but refuses BDAT; using DATA',
        );
      },
      acquire: () => pool.acquire(),
      ensureConnected() {
        if (pool.live > 0) return Promise.resolve();
        connecting ??= connect().finally(() => {
          connecting = undefined;
        });
        return connecting;
      },
      hold() {
        holds++;
        let held = true;
        return () => {
          if (!held) return;
          held = false;
          if (--holds === 0) for (const free of waitingForFree.splice(0)) free();
        };
      },
      report(verdict) {
        endpoint.report(account.id, verdict.breaker);
        if (health.suffered(verdict, Date.now())) deps.onStateChange?.(account.id);
      },
      delivered() {
        if (health.succeeded('sending', Date.now())) deps.onStateChange?.(account.id);
      },
    };
    const whenFree = (): Promise<void> =>
      holds === 0 ? Promise.resolve() : new Promise((resolve) => waitingForFree.push(resolve));
    return { upstream, pool, endpoint, whenFree, retired };
  }

  /** Closes the pool once its transactions are over, or at once when the relay stops. */
  function retire(gone: Served): void {
    gone.endpoint.accounts--;
    const closed: Promise<void> = Promise.race([gone.whenFree(), stopped])
      .then(() => {
        gone.retired.abort();
        return gone.pool.close();
      })
      .finally(() => closing.delete(closed));
    closing.add(closed);
  }

  const maintenance = setInterval(() => {
    for (const { pool } of served.values()) pool.maintain();
  }, options.maintenanceMs ?? DEFAULT_MAINTENANCE_MS);
  maintenance.unref();

  return {
    of: (accountId) => served.get(accountId)?.upstream,
    applyAccounts(accounts) {
      const wanted = new Map(accounts.map((a) => [a.id, a]));
      for (const [id, current] of served) {
        if (wanted.get(id) === current.upstream.account) continue;
        served.delete(id);
        retire(current);
      }
      for (const account of accounts) if (!served.has(account.id)) served.set(account.id, serve(account));
    },
    async warmUp(accountIds) {
      const ids = accountIds ?? [...served.keys()];
      await Promise.all(
        ids.map((id) => {
          const s = served.get(id);
          return s?.pool.warm(s.upstream.account.limits.minConnections);
        }),
      );
      const warm = ids.filter((id) => (served.get(id)?.pool.live ?? 0) > 0).length;
      return { warm, cold: ids.length - warm };
    },
    park(accountId) {
      parked.add(accountId);
      served.get(accountId)?.pool.maintain();
    },
    unpark(accountId) {
      parked.delete(accountId);
      served.get(accountId)?.pool.maintain();
    },
    status(accountId) {
      const s = served.get(accountId);
      return s === undefined
        ? undefined
        : { counts: s.pool.counts, state: s.upstream.health.state(Date.now()) };
    },
    breakers: () => [...endpoints.values()].map((e) => e.breaker),
    async close() {
      clearInterval(maintenance);
      stop();
      for (const s of served.values()) retire(s);
      served.clear();
      await Promise.all(closing);
      for (const endpoint of endpoints.values()) endpoint.close();
    },
  };
}
