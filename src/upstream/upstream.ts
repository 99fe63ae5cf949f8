/**
 * The upstream side of all accounts. In: accounts, tokens. Out: each account's upstream. Owns the
 * endpoints, the one maintenance timer, and what becomes of an account that is removed, or comes back.
 */
import type { Account, AccountState } from '../accounts/account.ts';
import { type Clock, orAfter, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { TokenSource } from '../tokens/access-token.ts';
import type { KeptPause } from './account-health.ts';
import { type AccountUpstream, createAccountUpstream, type ServedAccount } from './account-upstream.ts';
import { type BreakerState, createEndpoint, type UpstreamEndpoint } from './endpoint.ts';
import { createLoginPacer, type LoginPacer } from './login-pacer.ts';
import type { OpenConnection } from './open.ts';
import type { PoolCounts } from './pool.ts';

export type { AccountUpstream } from './account-upstream.ts';

/** How often pools are looked after; well below every idle and age limit. */
const DEFAULT_MAINTENANCE_MS = 5_000;
/** Connections being opened at once at one endpoint: enough to warm 1,000 accounts quickly, no flood. */
const DEFAULT_MAX_OPENING = 50;
/** A warm-up that takes longer goes on by itself: nobody waits for an endpoint that is silent. */
const WARM_UP_MS = 60_000;

export interface UpstreamStatus {
  readonly counts: PoolCounts;
  readonly state: AccountState;
}

export interface Upstreams {
  of(accountId: string): AccountUpstream | undefined;
  /** Serves exactly these accounts from now on. What belongs to an account id stays: connections that still fit, pauses, counts. Connections of the gone ones close once their transactions are over. */
  applyAccounts(accounts: readonly Account[]): void;
  /** Opens the warm connections of these accounts (default all) in parallel; never rejects. Resolves, after a minute at most, with how many accounts have one. */
  warmUp(accountIds?: readonly string[]): Promise<{ readonly warm: number; readonly cold: number }>;
  /** The operator changed something: accounts that are paused or unreachable (default all of them) are tried again now. Resolves with those, when their login has succeeded or failed. */
  retryNow(accountIds?: readonly string[]): Promise<readonly string[]>;
  /** Looks after the account's connections now: `isParked` may say something else. */
  lookAfter(accountId: string): void;
  status(accountId: string): UpstreamStatus | undefined;
  breakers(): readonly BreakerState[];
  /** Pauses that stand, by account id, to be kept over a restart. */
  keptPauses(): Readonly<Record<string, readonly KeptPause[]>>;
  restorePauses(kept: Readonly<Record<string, readonly KeptPause[]>>): void;
  /** Cuts busy connections and logins under way, says QUIT on the idle ones. */
  close(): Promise<void>;
}

export interface UpstreamsDeps {
  readonly tokens: TokenSource;
  readonly open: OpenConnection;
  readonly log: Log;
  /** Default: each account's logins within this process. */
  readonly logins?: LoginPacer;
  readonly clock?: Clock;
  /** Whether the account's connections close as they fall idle and none are opened ahead. Default: never. */
  readonly isParked?: (accountId: string) => boolean;
  /** An account's state may have changed. */
  readonly onStateChange?: (accountId: string) => void;
}

export interface UpstreamsOptions {
  /** Longest wait for a connection, whatever it waits for, ms; default 30,000 in settings. */
  readonly acquireTimeoutMs: number;
  /** Connections being opened at once per endpoint; default 50. */
  readonly maxOpening?: number;
  /** Time between two looks at the pools, ms; default 5,000. */
  readonly maintenanceMs?: number;
  /** An open breaker is probed after this, ms. */
  readonly breakerResetMs?: number;
}

export function createUpstreams(deps: UpstreamsDeps, options: UpstreamsOptions): Upstreams {
  const { tokens, log, clock = systemClock } = deps;
  const ownLogins = createLoginPacer(clock);
  const endpoints = new Map<string, UpstreamEndpoint>();
  const served = new Map<string, ServedAccount>();
  /** Removed, with transactions or connections still open. */
  const retiring = new Map<string, ServedAccount>();
  const ending = new Set<Promise<void>>();

  function endpointOf(account: Account): UpstreamEndpoint {
    const name = `${account.upstream.host}:${account.upstream.port}`;
    let endpoint = endpoints.get(name);
    if (endpoint === undefined) {
      endpoint = createEndpoint(name, {
        maxOpening: options.maxOpening ?? DEFAULT_MAX_OPENING,
        ...(options.breakerResetMs === undefined ? {} : { resetMs: options.breakerResetMs }),
        clock,
        onBreaker: (state) => {
          log.warn(
            { event: 'breaker', endpoint: state.name, state: state.state },
            'upstream breaker changed',
          );
        },
      });
      endpoints.set(name, endpoint);
    }
    return endpoint;
  }

  const serve = (account: Account): ServedAccount =>
    createAccountUpstream(
      account,
      {
        tokens,
        open: deps.open,
        logins: deps.logins ?? ownLogins,
        log,
        clock,
        endpointOf,
        isParked: () => deps.isParked?.(account.id) ?? false,
        onStateChange: () => deps.onStateChange?.(account.id),
      },
      options,
    );

  /** Closes it once its transactions are over, unless it is wanted again before. */
  async function retire(id: string, gone: ServedAccount): Promise<void> {
    retiring.set(id, gone);
    await gone.whenFree();
    if (retiring.get(id) !== gone) return;
    await gone.close();
    if (retiring.get(id) === gone) retiring.delete(id);
  }

  function end(promise: Promise<void>): void {
    const ended = promise.finally(() => ending.delete(ended));
    ending.add(ended);
  }

  function maintain(): void {
    for (const { pool } of served.values()) pool.maintain();
    cancelMaintenance = clock.after(options.maintenanceMs ?? DEFAULT_MAINTENANCE_MS, maintain);
  }
  let cancelMaintenance = clock.after(options.maintenanceMs ?? DEFAULT_MAINTENANCE_MS, maintain);

  function status(accountId: string): UpstreamStatus | undefined {
    const s = served.get(accountId);
    if (s === undefined) return undefined;
    const { state } = s.upstream.health;
    // Nobody asks an endpoint whose breaker is open: that is when it is tried again.
    const { probeAt } = s.endpoint.breaker;
    const isResting = state.status === 'unreachable' && probeAt !== undefined;
    return { counts: s.pool.counts, state: isResting ? { ...state, until: probeAt } : state };
  }

  return {
    of: (accountId) => served.get(accountId)?.upstream,
    applyAccounts(accounts) {
      const wanted = new Set(accounts.map((a) => a.id));
      for (const [id, current] of served) {
        if (wanted.has(id)) continue;
        served.delete(id);
        end(retire(id, current));
      }
      ownLogins.keepOnly(wanted);
      for (const account of accounts) {
        const current = served.get(account.id) ?? retiring.get(account.id);
        retiring.delete(account.id);
        if (current === undefined || current.isClosing) {
          // What still says goodbye would count beside the new ones.
          current?.pool.cut();
          served.set(account.id, serve(account));
        } else {
          served.set(account.id, current);
          if (current.upstream.account !== account) current.update(account);
        }
      }
    },
    async warmUp(accountIds) {
      const ids = accountIds ?? [...served.keys()];
      const all = Promise.all(
        ids.map((id) => {
          const s = served.get(id);
          return s?.pool.warm(s.upstream.account.limits.minConnections);
        }),
      );
      await orAfter(clock, all, WARM_UP_MS);
      const warm = ids.filter((id) => (served.get(id)?.pool.live ?? 0) > 0).length;
      return { warm, cold: ids.length - warm };
    },
    async retryNow(accountIds) {
      const ids = (accountIds ?? [...served.keys()]).filter(
        (id) => served.get(id)?.upstream.health.retryNow() === true,
      );
      await Promise.all(
        ids.map((id) => {
          const s = served.get(id);
          return s?.pool.warm(s.pool.live + 1);
        }),
      );
      return ids;
    },
    lookAfter: (accountId) => served.get(accountId)?.pool.maintain(),
    status,
    breakers: () => [...endpoints.values()].map((e) => e.breaker),
    keptPauses() {
      const kept: Record<string, readonly KeptPause[]> = {};
      for (const [id, { upstream }] of served) {
        const pauses = upstream.health.kept();
        if (pauses.length > 0) kept[id] = pauses;
      }
      return kept;
    },
    restorePauses(kept) {
      for (const [id, pauses] of Object.entries(kept)) served.get(id)?.upstream.health.restore(pauses);
    },
    async close() {
      cancelMaintenance();
      const all = [...served.values(), ...retiring.values()];
      served.clear();
      await Promise.all(
        all.map((s) => {
          const closing = s.close();
          s.pool.cut();
          return closing;
        }),
      );
      await Promise.all(ending);
    },
  };
}
