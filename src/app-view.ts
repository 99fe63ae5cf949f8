/**
 * The running relay as the admin room sees it. In: the rooms. Out: `AdminBackend`. Owns what only
 * operators ask for: messages by account and the last error in words.
 */

import { type Account, type AccountState, causeFacts, worstState } from './accounts/account.ts';
import { type AccountDirectory, DEFAULT_PREFERENCE } from './accounts/directory.ts';
import type { AccountGauges, AdminBackend } from './admin/backend.ts';
import type { AccountRow, BreakerRow, TokenLife } from './admin/shapes.ts';
import type { BreakerState } from './breaker.ts';
import type { Fleet } from './fleet/fleet.ts';
import type { News } from './fleet/news.ts';
import type { Listener } from './listener/listener.ts';
import { orMake } from './or-make.ts';
import { cureOf } from './protocol/causes/book.ts';
import { formatReply } from './protocol/reply.ts';
import type { RunningRelay } from './relay/create-relay.ts';
import type { TransactionRecord } from './relay/record.ts';
import { mapInSlices } from './slices.ts';
import { TokenError } from './tokens/access-token.ts';
import type { TokenService } from './tokens/token-service.ts';
import type { ResourceStatus } from './tokens/token-status.ts';
import type { UnclearMessages } from './upstream/graph/unclear-messages.ts';
import type { Upstreams } from './upstream/upstream.ts';
import type { AccountWays } from './upstream/ways.ts';

export interface ViewDeps extends Pick<AdminBackend, 'reload' | 'setLogLevel' | 'logDropped' | 'logWaiting'> {
  readonly accounts: () => AccountDirectory;
  readonly tokens: TokenService;
  readonly upstreams: Upstreams;
  readonly ways: AccountWays;
  readonly unclear: UnclearMessages;
  readonly relay: RunningRelay;
  readonly listeners: readonly Listener[];
  readonly warmedUp: () => boolean;
  /** An action changed what is seen of an account. */
  readonly changed: (accountId: string) => void;
  /** Other relays hear of what an operator does here. */
  readonly news: Pick<News, 'drained' | 'refreshed'> | undefined;
  readonly signIns: Pick<AdminBackend, 'signIns' | 'giveToken' | 'removeAccount'>;
  readonly state: {
    readonly fleet: Pick<Fleet, 'isApart' | 'membership'> | undefined;
    /** What was done here is kept. */
    save(): Promise<void>;
  };
}

export interface AdminView {
  readonly backend: AdminBackend;
  count(record: TransactionRecord): void;
  forget(accountId: string): void;
  /** Drains or resumes this relay's account only. */
  setDrained(accountId: string, isDrained: boolean): void;
  /** Messages since the start, all accounts together. */
  totals(): Readonly<Counts>;
}

type Counts = { -readonly [K in keyof AccountRow['messages']]: number };

interface Counted {
  readonly messages: Counts;
  lastError: { readonly text: string; readonly at: number } | undefined;
}

const noCounts = (): Counts => ({ relayed: 0, deferred: 0, rejected: 0 });

const iso = (at: number | undefined): string | null => (at === undefined ? null : new Date(at).toISOString());

/** From `now` to `at`, ms since the epoch. */
const secondsFrom = (now: number, at: number | undefined): number | null =>
  at === undefined ? null : Math.round((at - now) / 1000);

const noConnections = (max: number): AccountRow['pool'] => ({ size: 0, idle: 0, busy: 0, max });

const NO_NEWS: AccountState = { status: 'ready' };

/** Where both are as ill, a login that failed for want of a token says less than the token room itself. */
const worstOf = (upstream: AccountState, token: AccountState): AccountState =>
  token.status === 'ready' ? worstState(upstream, token) : worstState(token, upstream);

/** An account whose entry cannot be used: its mail waits until the entry is corrected. */
const unusable = (problem: string): AccountState => ({
  status: 'misconfigured',
  reason: `its entry in the accounts file cannot be used: ${problem}`,
  cure: 'correct the entry (xoauth2-relay check names what is wrong) and reload',
});

function tokenLife(token: ResourceStatus | undefined, now: number): TokenLife {
  return {
    cached: token?.cached ?? false,
    expires_at: iso(token?.expiresAt),
    expires_in_s: secondsFrom(now, token?.expiresAt),
    age_s: token?.obtainedAt === undefined ? null : Math.round((now - token.obtainedAt) / 1000),
  };
}

export function createAdminBackend(deps: ViewDeps): AdminView {
  const { tokens, upstreams, ways, relay, listeners } = deps;
  const counted = new Map<string, Counted>();
  const totals = noCounts();

  /** While the relay ends its rooms close one after the other. */
  function stateOf(id: string, upstream = ways.status(id), token = tokens.stateOf(id)): AccountState {
    const problem = deps.accounts().problemOf(id);
    return problem === undefined ? worstOf(upstream?.state ?? NO_NEWS, token ?? NO_NEWS) : unusable(problem);
  }

  function row(account: Account): AccountRow {
    const now = Date.now();
    const { id } = account;
    const token = tokens.statusOf(id);
    const upstream = ways.status(id);
    const c = counted.get(id);
    const state = stateOf(id, upstream, token?.state);
    const tokenError = token?.lastError;
    const last =
      tokenError !== undefined && tokenError.at >= (c?.lastError?.at ?? 0)
        ? { text: tokenError.message, at: tokenError.at }
        : c?.lastError;
    return {
      id,
      email: account.email,
      provider: account.provider,
      transport: account.transport,
      way: upstream?.way ?? (account.transport === 'graph' ? 'graph' : 'smtp'),
      status: state.status,
      reason: state.reason ?? null,
      cause: state.cause ?? null,
      cure: state.cure ?? cureOf(state.cause, causeFacts(account)) ?? null,
      until: iso(state.until),
      drained: relay.isDrained(id),
      token: tokenLife(token, now),
      tokens: (token?.resources ?? []).map((r) => ({
        resource: r.resource,
        status: r.state.status,
        ...tokenLife(r, now),
      })),
      pool: upstream?.counts ?? noConnections(account.limits.maxConnections),
      messages: { ...(c?.messages ?? noCounts()) },
      last_error: last?.text ?? null,
      last_error_at: iso(last?.at),
    };
  }

  const breakerRow = (kind: BreakerRow['kind'], b: BreakerState): BreakerRow => ({
    name: b.name,
    kind,
    state: b.state,
    failures: b.faults,
    opened_at: iso(b.openedAt),
    retry_at: iso(b.probeAt),
  });

  function setDrained(id: string, isDrained: boolean): void {
    if (isDrained) relay.drain(id);
    else relay.resume(id);
    upstreams.lookAfter(id);
    deps.changed(id);
  }

  /** An operator's decision outlives a crash once he has heard that it is made. */
  function decideDrained(id: string, isDrained: boolean): Promise<void> {
    setDrained(id, isDrained);
    deps.news?.drained(id, isDrained);
    return deps.state.save();
  }

  function isUsable(account: Account): boolean {
    const { status } = stateOf(account.id);
    return status === 'ready' || status === 'refreshing' || ways.live(account.id) > 0;
  }

  function* rowsOf(): Generator<AccountRow> {
    for (const account of deps.accounts().accounts) yield row(account);
  }

  function* gaugesOf(): Generator<AccountGauges> {
    for (const { id, provider, limits } of deps.accounts().accounts) {
      const upstream = ways.status(id);
      const expiresAt = tokens.expiryOf(id);
      yield {
        id,
        provider,
        status: stateOf(id, upstream).status,
        drained: relay.isDrained(id),
        token: { cached: expiresAt !== undefined, expires_in_s: secondsFrom(Date.now(), expiresAt) },
        pool: upstream?.counts ?? noConnections(limits.maxConnections),
      };
    }
  }

  const backend: AdminBackend = {
    rows: rowsOf,
    gauges: gaugesOf,
    *search({ from, fits }) {
      let isFrom = from === undefined;
      for (const account of deps.accounts().accounts) {
        isFrom ||= account.id === from;
        if (isFrom) yield fits(account) ? row(account) : undefined;
      }
    },
    row(id) {
      const account = deps.accounts().byId(id);
      return account?.id === id ? row(account) : undefined;
    },
    status: (id) => stateOf(id).status,
    account(idOrEmail) {
      const account = deps.accounts().byId(idOrEmail);
      if (account === undefined) return undefined;
      const { upstream, limits, graph } = account;
      return {
        ...row(account),
        user: account.user,
        grant: account.grant,
        senders: account.senders,
        smtp: `${upstream.tls === 'implicit' ? 'smtps' : 'starttls'}://${upstream.host}:${upstream.port}`,
        graph:
          graph === undefined
            ? null
            : { url: graph.url, permissions: graph.permissions, recipients: graph.recipients },
        preference: account.preference ?? DEFAULT_PREFERENCE,
        group: deps
          .accounts()
          .groupOf(account)
          .map(({ id, preference = DEFAULT_PREFERENCE }) => ({
            id,
            preference,
            status: stateOf(id).status,
            drained: relay.isDrained(id),
          })),
        max_connections: limits.maxConnections,
        messages_per_minute: limits.messagesPerMinute ?? null,
        messages_per_day: limits.messagesPerDay ?? null,
        max_recipients: limits.maxRecipients,
      };
    },
    tokenTotals: tokens.totals,
    tokenDetail(id) {
      const token = tokens.statusOf(id);
      return (
        token && {
          source: token.origin ?? null,
          refreshing: token.refreshing,
          next_refresh_at: iso(token.nextRefreshAt),
          uses: token.uses,
          last_used_at: iso(token.lastUsedAt),
          last_error: token.lastError?.message ?? null,
          last_error_at: iso(token.lastError?.at),
          refresh_token_obtained_at: iso(token.refreshTokenObtainedAt),
        }
      );
    },
    keptRemoved: () =>
      tokens
        .keptRemoved()
        .map(({ accountId, until }) => ({ account: accountId, kept_until: new Date(until).toISOString() })),
    fleet: () => ({
      shared: deps.state.fleet !== undefined,
      apart: deps.state.fleet?.isApart ?? false,
      share: 1 / (deps.state.fleet?.membership.relays ?? 1),
      relays: (deps.state.fleet?.membership.seen ?? []).map(({ id, isSelf, silentMs, row }) => ({
        id,
        self: isSelf,
        version: row.version ?? null,
        host: row.host ?? null,
        pid: row.pid ?? null,
        since: iso(row.startedAt),
        relayed: row.relayed ?? 0,
        deferred: row.deferred ?? 0,
        rejected: row.rejected ?? 0,
        lag_ms: row.lagMs ?? 0,
        silent_ms: Math.max(0, silentMs),
      })),
    }),
    breakers: () => [
      ...tokens.breakers().map((b) => breakerRow('token_endpoint', b)),
      ...ways.breakers().map((b) => breakerRow('upstream', b)),
    ],
    // The first usable one decides: where all is well, the first of all.
    isReady: () => deps.warmedUp() && deps.accounts().accounts.some(isUsable),
    async readiness() {
      const all = deps.accounts().accounts;
      const usable = (await mapInSlices(all, isUsable)).filter(Boolean).length;
      return { warmed_up: deps.warmedUp(), usable, total: all.length };
    },
    listener() {
      const all = listeners.map((listener) => listener.counts());
      const sum = (key: 'sessions' | 'sessionsTotal' | 'refusedTotal' | 'authFailures'): number =>
        all.reduce((total, counts) => total + counts[key], 0);
      const limitHits: Record<string, number> = {};
      for (const [limit, hits] of all.flatMap((counts) => Object.entries(counts.limitHits)))
        limitHits[limit] = (limitHits[limit] ?? 0) + hits;
      return {
        sessions: sum('sessions'),
        sessions_total: sum('sessionsTotal'),
        refused_total: sum('refusedTotal'),
        auth_failures_total: sum('authFailures'),
        // One budget serves all listeners.
        held_bytes: all[0]?.heldBytes ?? 0,
        limit_hits: limitHits,
      };
    },
    async refreshToken(id) {
      try {
        await tokens.refresh(id);
        // A new token is worth a new try.
        void ways.retryNow([id]).then(() => ways.warmUp([id]));
        deps.news?.refreshed(id);
        deps.changed(id);
        return { ok: true };
      } catch (error) {
        deps.changed(id);
        if (error instanceof TokenError)
          return {
            ok: false,
            error: error.message,
            ...(error.cure === undefined ? {} : { cure: error.cure }),
          };
        throw error;
      }
    },
    async retry(id) {
      const token = tokens.statusOf(id)?.state.status;
      if (token !== undefined && token !== 'ready' && token !== 'refreshing')
        await tokens.refresh(id).catch(() => undefined);
      await ways.retryNow([id]);
      deps.changed(id);
    },
    forgetToken(id) {
      const had = tokens.statusOf(id)?.cached ?? false;
      tokens.forget(id);
      deps.changed(id);
      return had;
    },
    async unclear() {
      const messages = await deps.unclear.list();
      return messages.map(({ key, account, messageId, since, why, clears }) => ({
        key,
        account: account ?? null,
        message_id: messageId ?? null,
        since: new Date(since).toISOString(),
        reason: why,
        clears,
      }));
    },
    decide: (key, decision) => deps.unclear.decide(key, decision),
    drain: (id) => decideDrained(id, true),
    resume: (id) => decideDrained(id, false),
    reload: deps.reload,
    signIns: deps.signIns.signIns,
    giveToken: deps.signIns.giveToken,
    removeAccount: deps.signIns.removeAccount,
    setLogLevel: deps.setLogLevel,
    logDropped: deps.logDropped,
    logWaiting: deps.logWaiting,
  };

  return {
    backend,
    setDrained,
    count(record) {
      const c = orMake(counted, record.account, () => ({ messages: noCounts(), lastError: undefined }));
      const kind = record.outcome === 'unknown' ? 'deferred' : record.outcome;
      if (kind !== 'aborted') {
        c.messages[kind]++;
        totals[kind]++;
      }
      if (record.outcome !== 'relayed' && record.reply !== undefined)
        c.lastError = { text: formatReply(record.reply), at: Date.now() };
    },
    forget: (accountId) => void counted.delete(accountId),
    totals: () => totals,
  };
}
