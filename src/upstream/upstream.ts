/**
 * The upstream side of all accounts. In: accounts, tokens. Out: each account's upstream, made when it is first
 * of use and let go when it has not been for long: thousands that seldom send cost nothing here. Owns the
 * endpoints, the one maintenance timer, and what becomes of an account that is removed, or comes back.
 */
import { type Account, type AccountState, mailboxOf } from '../accounts/account.ts';
import { type Clock, every, orAfter, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Capabilities } from '../protocol/capabilities.ts';
import { createSlices, type Steps } from '../slices.ts';
import type { TokenSource } from '../tokens/access-token.ts';
import type { KeptPause } from './account-health.ts';
import { type AccountUpstream, createAccountUpstream, type MailboxUpstream } from './account-upstream.ts';
import { type BreakerState, createEndpoints } from './endpoint.ts';
import { createLoginPacer, type LoginPacer } from './login-pacer.ts';
import { createAllMailboxConnections } from './mailbox-connections.ts';
import type { OpenConnection } from './open.ts';
import type { PoolCounts } from './pool.ts';
import { formatProxy } from './proxy.ts';

/** How often pools are looked after; well below every idle and age limit. */
const MAINTENANCE_MS = 5_000;
/** A warm-up that takes longer goes on by itself: nobody waits for an endpoint that is silent. */
const WARM_UP_MS = 60_000;

export interface UpstreamStatus {
  readonly counts: PoolCounts;
  readonly state: AccountState;
}

export interface Upstreams {
  /** To be used within minutes. Undefined where the account is not served, or by Graph alone. */
  of(accountId: string): AccountUpstream | undefined;
  /** What there is of it, without making any. */
  peek(accountId: string): AccountUpstream | undefined;
  /** What the account's server offered last; undefined before a first connection to it. */
  capabilities(accountId: string): Capabilities | undefined;
  /** Makes ready to serve exactly these accounts, by id; the result does so at once. What belongs to an account id and its mailbox stays: connections that still fit, pauses, counts. Connections of the gone ones close once their transactions are over; until then they count where another account has their mailbox. */
  prepare(accounts: ReadonlyMap<string, Account>): Steps<() => void>;
  /** Opens the warm connections of these accounts (default all) in parallel; never rejects. Resolves, after a minute at most, with how many accounts have one. */
  warmUp(accountIds?: readonly string[]): Promise<{ readonly warm: number; readonly cold: number }>;
  /** The operator changed something: accounts that are paused or unreachable (default all of them) are tried again now. Resolves with those, when their login has succeeded or failed. */
  retryNow(accountIds?: readonly string[]): Promise<readonly string[]>;
  /** Looks after the account's connections now: `isParked` may say something else. */
  lookAfter(accountId: string): void;
  status(accountId: string): UpstreamStatus | undefined;
  breakers(): readonly BreakerState[];
  /** The account's pauses that stand; undefined where it is not served. */
  pausesOf(accountId: string): readonly KeptPause[] | undefined;
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
  /** Default: each mailbox's logins within this process. */
  readonly logins?: LoginPacer;
  readonly clock?: Clock;
  /** Whether the account's connections close as they fall idle and none are opened ahead. Default: never. */
  readonly isParked?: (accountId: string) => boolean;
  /** Whether no connection of the account is kept warm: it has not sent for long. Default: never. */
  readonly isIdle?: (accountId: string) => boolean;
  /** An account's state may have changed. */
  readonly onStateChange?: (accountId: string) => void;
}

export interface UpstreamsOptions {
  /** Longest wait for a connection, whatever it waits for, ms. */
  readonly acquireTimeoutMs: number;
  /** Connections being opened at once per endpoint. */
  readonly maxOpening: number;
}

const NONE = { size: 0, idle: 0, busy: 0 };

/** A proxy in trouble says nothing about the server, nor about another way to it. */
const endpointName = ({ upstream, smtpProxy }: Account): string =>
  `${upstream.host}:${upstream.port}${smtpProxy === undefined ? '' : smtpProxy === 'none' ? ' without proxy' : ` through ${formatProxy(smtpProxy)}`}`;

export function createUpstreams(deps: UpstreamsDeps, options: UpstreamsOptions): Upstreams {
  const { tokens, log, clock = systemClock } = deps;
  const ownLogins = createLoginPacer(clock);
  const connectionsOf = createAllMailboxConnections(clock);
  const endpoints = createEndpoints(log, 'upstream', {
    maxOpening: options.maxOpening,
    clock,
  });
  let accounts: ReadonlyMap<string, Account> = new Map();
  /** Those of `accounts` that are or were lately in use. */
  const served = new Map<string, MailboxUpstream>();
  /** Of accounts that were removed or are another mailbox now, with transactions still open. */
  const retiring = new Set<MailboxUpstream>();
  /** Saying goodbye. */
  const closing = new Set<MailboxUpstream>();
  const ending = new Set<Promise<void>>();

  const serve = (account: Account): MailboxUpstream =>
    createAccountUpstream(
      account,
      {
        tokens,
        open: deps.open,
        logins: deps.logins ?? ownLogins,
        connectionsOf,
        log,
        clock,
        endpointOf: (account) => endpoints.named(endpointName(account)),
        mailboxNow() {
          const now = accounts.get(account.id);
          return now && mailboxOf(now);
        },
        isParked: () => deps.isParked?.(account.id) ?? false,
        isIdle: () => deps.isIdle?.(account.id) ?? false,
        onStateChange: () => deps.onStateChange?.(account.id),
      },
      options,
    );

  /** Closes it once its transactions are over, unless it is wanted again before. */
  async function retire(gone: MailboxUpstream): Promise<void> {
    retiring.add(gone);
    await gone.whenFree();
    if (retiring.delete(gone)) await bidFarewell(gone);
  }

  async function bidFarewell(gone: MailboxUpstream): Promise<void> {
    closing.add(gone);
    await gone.close();
    closing.delete(gone);
  }

  function end(promise: Promise<void>): void {
    const ended = promise.finally(() => ending.delete(ended));
    ending.add(ended);
  }

  function servedOf(accountId: string): MailboxUpstream | undefined {
    let current = served.get(accountId);
    if (current === undefined) {
      const account = accounts.get(accountId);
      if (account === undefined || account.transport === 'graph') return undefined;
      current = serve(account);
      served.set(accountId, current);
    }
    current.noteUse();
    return current;
  }

  async function maintain(): Promise<void> {
    const slices = createSlices(clock);
    for (const [id, current] of served) {
      if (current.isForgettable) {
        served.delete(id);
        end(bidFarewell(current));
      } else current.pool.maintain();
      if (slices.isOver) await slices.rest();
    }
    ownLogins.tidy();
  }
  const endMaintenance = every(clock, MAINTENANCE_MS, maintain);

  function serveOnly(wanted: ReadonlyMap<string, Account>, perEndpoint: ReadonlyMap<string, number>): void {
    accounts = wanted;
    const isWanted = ({ upstream: { account }, mailbox }: MailboxUpstream): boolean => {
      const now = wanted.get(account.id);
      if (now === undefined || now.transport === 'graph') return false;
      return now === account || mailboxOf(now) === mailbox;
    };
    for (const [id, current] of served) {
      if (isWanted(current)) continue;
      served.delete(id);
      end(retire(current));
    }
    for (const current of retiring) {
      const { id } = current.upstream.account;
      if (served.has(id) || !isWanted(current)) continue;
      retiring.delete(current);
      served.set(id, current);
    }
    for (const [id, current] of served) {
      const account = wanted.get(id);
      if (account !== undefined && current.upstream.account !== account) current.update(account);
    }
    const inUse = new Set(perEndpoint.keys());
    for (const { endpoint } of [...served.values(), ...retiring, ...closing]) inUse.add(endpoint.name);
    endpoints.keepOnly(inUse);
    for (const name of inUse) endpoints.named(name).accounts = perEndpoint.get(name) ?? 0;
  }

  function status(accountId: string): UpstreamStatus | undefined {
    const s = served.get(accountId);
    if (s === undefined) {
      const account = accounts.get(accountId);
      if (account === undefined || account.transport === 'graph') return undefined;
      return { counts: { ...NONE, max: account.limits.maxConnections }, state: { status: 'ready' } };
    }
    const { state } = s.upstream.health;
    // Nobody asks an endpoint whose breaker is open: that is when it is tried again.
    const { probeAt } = s.endpoint.breaker;
    const isResting = state.status === 'unreachable' && probeAt !== undefined;
    return { counts: s.pool.counts, state: isResting ? { ...state, until: probeAt } : state };
  }

  return {
    of: (accountId) => servedOf(accountId)?.upstream,
    peek: (accountId) => served.get(accountId)?.upstream,
    capabilities(accountId) {
      const account = accounts.get(accountId);
      return account && endpoints.all.get(endpointName(account))?.capabilities;
    },
    *prepare(wanted) {
      const perEndpoint = new Map<string, number>();
      for (const account of wanted.values()) {
        yield;
        if (account.transport === 'graph') continue;
        const name = endpointName(account);
        perEndpoint.set(name, (perEndpoint.get(name) ?? 0) + 1);
      }
      return () => serveOnly(wanted, perEndpoint);
    },
    async warmUp(accountIds = [...accounts.keys()]) {
      const slices = createSlices(clock);
      const ids = accountIds;
      const opening: Promise<void>[] = [];
      for (const id of ids) {
        const least = accounts.get(id)?.limits.minConnections ?? 0;
        if (least > 0) opening.push(servedOf(id)?.pool.warm(least) ?? Promise.resolve());
        if (slices.isOver) await slices.rest();
      }
      await orAfter(clock, Promise.all(opening), WARM_UP_MS);
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
    lookAfter: (accountId) => servedOf(accountId)?.pool.maintain(),
    status,
    breakers: endpoints.breakers,
    pausesOf: (accountId) =>
      served.get(accountId)?.upstream.health.kept() ?? (accounts.has(accountId) ? [] : undefined),
    keptPauses() {
      const kept: Record<string, readonly KeptPause[]> = {};
      for (const [id, { upstream }] of served) {
        const pauses = upstream.health.kept();
        if (pauses.length > 0) kept[id] = pauses;
      }
      return kept;
    },
    restorePauses(kept) {
      for (const [id, pauses] of Object.entries(kept)) servedOf(id)?.upstream.health.restore(pauses);
    },
    async close() {
      endMaintenance();
      accounts = new Map();
      const all = [...served.values(), ...retiring, ...closing];
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
