/**
 * The admin room's front door: HTTP API, metrics, dashboard, alerts, summary line.
 * In: the backend, and what happens (transactions, token fetches, waits, changed accounts, reloads).
 * Out: a listening server and log lines. Owns the port, the last transactions, the timers.
 */
import type { Log } from '../log.ts';
import type { UnclearNews } from '../protocol/unclear-news.ts';
import type { TransactionRecord } from '../relay/record.ts';
import { createSlices } from '../slices.ts';
import type { MetricsAccounts } from './account-metrics.ts';
import { type AttentionOptions, createAttention } from './attention.ts';
import type { AdminBackend, GraphCallObservation, LimitObservation, RefreshObservation } from './backend.ts';
import { SERIES_SECONDS, TRANSACTIONS_KEPT } from './dashboard/kept.ts';
import type { Revealable } from './guard.ts';
import { createLive } from './live.ts';
import { createMetrics } from './metrics.ts';
import { createSeries } from './series.ts';
import { createAdminServer } from './server.ts';
import type { ReloadResult } from './shapes.ts';
import { createSummary } from './summary.ts';
import { createTransactionLog } from './transaction-log.ts';

export interface AdminOptions {
  /** Address to bind; anything but loopback needs a token. */
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly version: string;
  /** Path of the accounts file, absolute. */
  readonly accountsFile: string;
  /** Whoever has it may read. */
  readonly tokenRead?: Revealable | undefined;
  /** Whoever has it may read and act. Where a token is set it is asked for on loopback too. */
  readonly tokenWrite?: Revealable | undefined;
  /** Further names accepted in Host on loopback, such as a reverse proxy's. */
  readonly allowedHosts?: readonly string[] | undefined;
  /** Whole addresses in the transaction list; by default only their domains. */
  readonly logAddresses?: boolean | undefined;
  readonly attention?: AttentionOptions | undefined;
  /** Which accounts have series of their own in the metrics. Default `all`. */
  readonly metricsAccounts?: MetricsAccounts | undefined;
  /** 0: no summary line. */
  readonly summaryEveryMs: number;
}

export interface Admin {
  recordTransaction(record: TransactionRecord): void;
  observeRefresh(observation: RefreshObservation): void;
  observeLimit(observation: LimitObservation): void;
  /** A message that `account` could not take; another did, or nobody. */
  observePassedOver(account: string, result: 'other' | 'none'): void;
  observeGraphCall(observation: GraphCallObservation): void;
  /** Nobody knows whether a message was sent, and no retry will clear it. */
  messageUnclear(news: UnclearNews): void;
  /** The account's status, token or drain state is another one now, or it was added. */
  accountChanged(id: string): void;
  /** The account is no longer served. */
  accountRemoved(id: string): void;
  /** A reload has ended, by signal or by request. */
  reloaded(result: ReloadResult): void;
  /** Rejects where the port cannot be had. */
  listen(): Promise<{ readonly host: string; readonly port: number }>;
  close(): Promise<void>;
}

/** Accounts whose change nobody announced are looked at this often. */
const SWEEP_MS = 15_000;

/** Builds the room; throws where the options are unsafe. */
export function createAdmin(
  deps: { readonly backend: AdminBackend; readonly log: Log },
  options: AdminOptions,
): Admin {
  const { backend, log } = deps;
  const { version } = options;
  const metrics = createMetrics(backend, { version, accounts: options.metricsAccounts });
  const transactions = createTransactionLog(TRANSACTIONS_KEPT, {
    showAddresses: options.logAddresses ?? false,
  });
  const series = createSeries(SERIES_SECONDS);
  const live = createLive({ backend, transactions, series }, { version });
  const server = createAdminServer({ backend, metrics, transactions, series, live, log }, options);
  const attention = createAttention({ log, count: metrics.countAttention }, options.attention);
  const summary = createSummary({ backend, log }, { everyMs: options.summaryEveryMs });
  const sweep = setInterval(() => void considerAll(), SWEEP_MS).unref();

  async function considerAll(): Promise<void> {
    const slices = createSlices();
    for (const row of backend.rows()) {
      attention.consider(row);
      if (slices.isOver) await slices.rest();
    }
  }

  return {
    recordTransaction: (record) => {
      transactions.add(record);
      series.add(record.outcome, record.totalMs);
      metrics.recordTransaction(record);
      summary.record(record);
      live.transaction(record);
    },
    observeRefresh: (observation) => {
      metrics.observeRefresh(observation);
      live.changed(observation.account);
    },
    observeLimit: metrics.observeLimit,
    observePassedOver: metrics.observePassedOver,
    observeGraphCall: metrics.observeGraphCall,
    messageUnclear: (news) => {
      metrics.countUnclear();
      attention.unclear(news, news.account === undefined ? undefined : backend.row(news.account));
    },
    accountChanged: (id) => {
      const row = attention.concerns(id, backend.status(id)) ? backend.row(id) : undefined;
      if (row !== undefined) attention.consider(row);
      live.changed(id);
    },
    accountRemoved: (id) => {
      attention.forget(id);
      metrics.forget(id);
      live.removed(id);
    },
    reloaded: live.reloaded,
    listen: server.listen,
    close: async () => {
      clearInterval(sweep);
      summary.close();
      await attention.close();
      live.close();
      await server.close();
    },
  };
}
