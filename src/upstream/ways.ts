/**
 * Every account's way to its provider. In: accounts. Out: the way its next message takes: SMTP, Graph, or
 * Graph for as long as SMTP AUTH is known to be switched off. What operators see of it is asked here too.
 */
import type { Account, AccountState } from '../accounts/account.ts';
import type { BreakerState } from '../breaker.ts';
import type { Log } from '../log.ts';
import type { Capabilities } from '../protocol/capabilities.ts';
import { formatReply, type Reply } from '../protocol/reply.ts';
import type { Steps } from '../slices.ts';
import type { AccountHealth } from './account-health.ts';
import { createFallbackDelivery } from './fallback-delivery.ts';
import type { GraphWay, GraphWays } from './graph/graph-way.ts';
import type { PoolCounts } from './pool.ts';
import type { SmtpWays } from './smtp-way.ts';
import type { Upstreams } from './upstream.ts';
import type { Way, WayName, Ways } from './way.ts';

export interface WayStatus {
  /** By which way mail leaves now. */
  readonly way: WayName;
  /** Connections; by Graph there are none of the account's own. */
  readonly counts: PoolCounts;
  /** `reason` of a `ready` account says why mail leaves by another way than wished. */
  readonly state: AccountState;
}

export interface AccountWays extends Ways {
  /** Makes ready to serve exactly these; the result does so at once. Transactions under way finish. */
  prepare(accounts: Iterable<Account>): Steps<() => void>;
  /** Opens warm connections in parallel; never rejects. An account that needs none counts as warm. */
  warmUp(accountIds: readonly string[]): Promise<{ readonly warm: number; readonly cold: number }>;
  status(accountId: string): WayStatus | undefined;
  /** Connections open now. */
  live(accountId: string): number;
  capabilities(accountId: string): Capabilities | undefined;
  /** The operator changed something: accounts that are not ready (default all of them) are tried again now. Resolves with those, when it has succeeded or failed. */
  retryNow(accountIds?: readonly string[]): Promise<readonly string[]>;
  breakers(): readonly BreakerState[];
  close(): Promise<void>;
}

export interface AccountWaysDeps {
  readonly upstreams: Upstreams;
  readonly smtp: SmtpWays;
  readonly graph: GraphWays;
  readonly log: Log;
  readonly onStateChange?: (accountId: string) => void;
  /** Mail of the account is on its way. */
  readonly onAsked?: (accountId: string) => void;
}

/** Rows of the book of causes by which a server says that SMTP AUTH is switched off, for OAuth too. */
export const SMTP_AUTH_OFF: ReadonlySet<string> = new Set([
  'smtp-auth-off-mailbox',
  'smtp-auth-off-tenant',
  'security-defaults',
  'smtp-no-licence',
]);
const NO_CONNECTIONS: PoolCounts = { size: 0, idle: 0, busy: 0, max: 0 };

export function createAccountWays(deps: AccountWaysDeps): AccountWays {
  const { upstreams, smtp, graph, log, onStateChange } = deps;
  let accounts: ReadonlyMap<string, Account> = new Map();
  /** Accounts whose mail leaves by Graph although SMTP is wished. */
  const fallen = new Set<string>();

  const healthOf = (accountId: string): AccountHealth | undefined => upstreams.peek(accountId)?.health;
  /** Why SMTP cannot be used, where that is because it is switched off. */
  function switchedOff(accountId: string): AccountState | undefined {
    const standing = healthOf(accountId)?.standing('logins');
    const cause = standing?.verdict.cause;
    if (standing === undefined || cause === undefined || !SMTP_AUTH_OFF.has(cause)) return undefined;
    return {
      status: 'ready',
      reason: `mail leaves by Graph, SMTP AUTH is switched off: ${formatReply(standing.verdict.answer)}`,
      cause,
      until: standing.until,
    };
  }

  function turn(accountId: string, isOff: boolean): void {
    if (fallen.has(accountId) === isOff) return;
    if (isOff) fallen.add(accountId);
    else fallen.delete(accountId);
    log.warn(
      { event: 'way_changed', account: accountId, way: isOff ? 'graph' : 'smtp' },
      isOff ? 'SMTP AUTH is switched off: mail leaves by Graph' : 'mail leaves by SMTP again',
    );
    onStateChange?.(accountId);
  }

  /** One for each transaction: by which way it goes is decided when it becomes ready, and once more where a login is refused after that. */
  function createFallback(account: Account, first: Way, second: GraphWay): Way {
    let chosen: Way = first;
    return {
      account,
      get facts() {
        return chosen.facts;
      },
      async ready(): Promise<Reply | undefined> {
        const refusal = await first.ready();
        if (refusal === undefined) turn(account.id, false);
        if (refusal === undefined || switchedOff(account.id) === undefined) return refusal;
        turn(account.id, true);
        // What Graph cannot take waits for SMTP: that it is off is the account's trouble, not the message's.
        chosen = second.orWait(refusal);
        return second.ready();
      },
      begin(trace, mayBegin) {
        const delivery = chosen.begin(trace, mayBegin);
        if (chosen !== first) return delivery;
        return createFallbackDelivery({
          first: delivery,
          trace,
          mayBegin,
          secondFor(refusal) {
            if (switchedOff(account.id) === undefined) return undefined;
            turn(account.id, true);
            return second.orWait(refusal);
          },
        });
      },
    };
  }

  function* prepare(wanted: Iterable<Account>): Steps<() => void> {
    const next = new Map<string, Account>();
    for (const account of wanted) {
      next.set(account.id, account);
      yield;
    }
    const serve = [yield* upstreams.prepare(next), yield* graph.prepare(next)];
    return () => {
      accounts = next;
      for (const id of fallen) if (accounts.get(id)?.transport !== 'smtp_then_graph') fallen.delete(id);
      for (const begin of serve) begin();
    };
  }

  return {
    of(accountId, others, sender) {
      const account = accounts.get(accountId);
      if (account === undefined) return undefined;
      deps.onAsked?.(accountId);
      const bySmtp = (): Way | undefined => {
        const way = smtp.of(accountId);
        return way && graph.guarded(way, [accountId, ...others], sender);
      };
      switch (account.transport) {
        case 'smtp':
          return bySmtp();
        case 'graph':
          return graph.of(accountId);
        case 'smtp_then_graph': {
          const first = bySmtp();
          const second = graph.of(accountId);
          return first && second && createFallback(account, first, second);
        }
        default:
          return account.transport satisfies never;
      }
    },
    prepare,
    async warmUp(accountIds) {
      const bySmtp = accountIds.filter((id) => accounts.get(id)?.transport !== 'graph');
      const { warm, cold } = await upstreams.warmUp(bySmtp);
      return { warm: warm + accountIds.length - bySmtp.length, cold };
    },
    status(accountId) {
      const account = accounts.get(accountId);
      if (account === undefined) return undefined;
      const byGraph = graph.stateOf(accountId) ?? { status: 'ready' };
      if (account.transport === 'graph') return { way: 'graph', counts: NO_CONNECTIONS, state: byGraph };
      const status = upstreams.status(accountId);
      if (status === undefined) return undefined;
      const off = account.transport === 'smtp_then_graph' ? switchedOff(accountId) : undefined;
      if (off === undefined) return { way: 'smtp', counts: status.counts, state: status.state };
      return { way: 'graph', counts: status.counts, state: byGraph.status === 'ready' ? off : byGraph };
    },
    live: (accountId) => upstreams.peek(accountId)?.live ?? 0,
    capabilities: (accountId) =>
      accounts.get(accountId)?.transport === 'graph'
        ? graph.of(accountId)?.facts.capabilities
        : upstreams.capabilities(accountId),
    async retryNow(accountIds = [...accounts.keys()]) {
      const byGraph = accountIds.filter((id) => graph.retryNow(id));
      return [...new Set([...(await upstreams.retryNow(accountIds)), ...byGraph])];
    },
    breakers: () => [...upstreams.breakers(), ...graph.breakers()],
    async close() {
      await Promise.all([upstreams.close(), graph.close()]);
    },
  };
}
