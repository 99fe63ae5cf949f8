/**
 * Prometheus metrics: the one file that knows prom-client. In: finished transactions, token fetches,
 * waits. At each scrape the gauges are read from the backend. Out: the exposition, piece by piece.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { orMake } from '../or-make.ts';
import type { Outcome, TransactionRecord } from '../relay/record.ts';
import { createAccountMetrics, type MetricsAccounts, PREFIX } from './account-metrics.ts';
import type { AdminBackend, GraphCallObservation, LimitObservation, RefreshObservation } from './backend.ts';
import { label } from './exposition.ts';
import { createHistogram } from './histograms.ts';
import { inChunks } from './pieces.ts';
import type { BreakerRow, TokenTotals } from './shapes.ts';

/** What the metrics read when they are scraped. */
export type ScrapeSource = Pick<
  AdminBackend,
  'gauges' | 'tokenTotals' | 'breakers' | 'isReady' | 'listener' | 'logDropped' | 'logWaiting' | 'fleet'
>;

export interface Metrics {
  readonly contentType: string;
  recordTransaction(record: TransactionRecord): void;
  observeRefresh(observation: RefreshObservation): void;
  observeLimit(observation: LimitObservation): void;
  /** A message that `account` could not take; another did (`other`), or nobody (`none`). */
  observePassedOver(account: string, result: 'other' | 'none'): void;
  observeGraphCall(observation: GraphCallObservation): void;
  /** An account has come to need a person. */
  countAttention(status: string, provider: string): void;
  countUnclear(): void;
  /** The account is no longer served. */
  forget(account: string): void;
  /** The exposition, made as it is read, in slices. */
  render(): AsyncGenerator<string>;
}

/** From a warm single flight in one data centre (5 ms) to the longest wait an MTA allows (RFC 5321 §4.5.3.2.6: 600 s). */
const DURATION_BUCKETS_S = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600];
const FLIGHT_BUCKETS = [1, 2, 3, 4, 6, 8, 12, 20];
const BREAKER_VALUE: Readonly<Record<BreakerRow['state'], number>> = { closed: 0, half_open: 1, open: 2 };

const replyClass = (record: TransactionRecord): string =>
  record.reply === undefined ? 'none' : `${Math.floor(record.reply.code / 100)}xx`;

/** What a transaction took, by provider. */
function createTransactionTimes(): { record(record: TransactionRecord): void; parts(): Iterable<string> } {
  const inSeconds = (name: string, help: string) =>
    createHistogram(`${PREFIX}${name}_seconds`, help, DURATION_BUCKETS_S);
  const total = inSeconds('transaction_duration', 'Whole time of a transaction, MAIL to final reply');
  const gate = inSeconds('account_gate', 'Time at MAIL for token, breaker and limits');
  const wait = inSeconds('connection_wait', 'Wait for an upstream connection');
  const upstream = inSeconds('upstream_duration', 'From the first octet to the provider to its final reply');
  const flights = createHistogram(
    `${PREFIX}transaction_flights`,
    'Upstream round trips of a transaction',
    FLIGHT_BUCKETS,
  );
  const of = (provider: string) => {
    const labels = label('provider', provider);
    return {
      total: new Map<Outcome, (seconds: number) => void>(),
      totalOf: (outcome: Outcome) => total.of(`${labels},${label('outcome', outcome)}`),
      gate: gate.of(labels),
      wait: wait.of(labels),
      upstream: upstream.of(labels),
      flights: flights.of(labels),
    };
  };
  const byProvider = new Map<string, ReturnType<typeof of>>();
  return {
    record({ provider, outcome, totalMs, gateMs, acquireMs, upstreamMs, flights }) {
      const observe = orMake(byProvider, provider, () => of(provider));
      orMake(observe.total, outcome, () => observe.totalOf(outcome))(totalMs / 1000);
      observe.gate(gateMs / 1000);
      // Without a flight nothing was sent: neither a wait nor an upstream time to count.
      if (flights === 0) return;
      observe.wait(acquireMs / 1000);
      observe.upstream(upstreamMs / 1000);
      observe.flights(flights);
    },
    *parts() {
      for (const histogram of [total, gate, wait, upstream, flights]) yield* histogram.parts();
    },
  };
}

/** Metrics of one relay in a registry of their own. */
export function createMetrics(
  source: ScrapeSource,
  build: { readonly version: string; readonly accounts?: MetricsAccounts | undefined },
): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const accounts = createAccountMetrics(build.accounts ?? 'all');
  const times = createTransactionTimes();

  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> =>
    new Counter({ name: PREFIX + name, help, labelNames: [...labelNames], registers });
  const histogram = <L extends string>(name: string, help: string, labelNames: readonly L[]): Histogram<L> =>
    new Histogram({
      name: PREFIX + name,
      help,
      labelNames: [...labelNames],
      buckets: [...DURATION_BUCKETS_S],
      registers,
    });
  const gauge = <L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    set: (self: Gauge<L>) => void,
  ): void => {
    new Gauge({
      name: PREFIX + name,
      help,
      labelNames: [...labelNames],
      registers,
      collect() {
        // Reset first: an account that is gone, or a status it left, must not linger.
        this.reset();
        set(this);
      },
    });
  };
  /** A counter kept elsewhere, shown as it stands there. */
  const mirrored = (name: string, help: string, read: () => number): void => {
    new Counter({
      name: PREFIX + name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  };

  const replays = counter(
    'transactions_replayed_total',
    'Transactions replayed once on a fresh connection because the provider had closed the warm one',
    ['provider'],
  );
  const refreshes = counter('token_refreshes_total', 'Finished token fetches by result', [
    'provider',
    'result',
  ]);
  const refreshDuration = histogram('token_refresh_duration_seconds', 'Time of a token fetch', ['provider']);
  const byWay = counter('messages_by_way_total', 'Finished transactions by the way they took', [
    'way',
    'outcome',
  ]);
  const graphRequests = counter('graph_requests_total', 'Requests to Microsoft Graph', ['call', 'outcome']);
  const graphDuration = histogram('graph_request_duration_seconds', 'Time of a request to Microsoft Graph', [
    'call',
  ]);
  const attention = counter('attention_total', 'Times an account came to need a person', [
    'status',
    'provider',
  ]);

  const unclear = counter(
    'unclear_messages_total',
    'Messages that came to wait for a person, because nobody knows whether Graph sent them',
    [],
  );

  gauge('build_info', 'Always 1; the labels say what runs', ['version', 'node'], (g) =>
    g.set({ version: build.version, node: process.versions.node }, 1),
  );
  gauge('fleet_relays', 'Relays that share these accounts, this one included', [], (g) =>
    g.set(Math.max(1, source.fleet().relays.length)),
  );
  gauge('shared_limits_apart', '1 while limits are not shared because Redis is away', [], (g) => {
    const { shared, apart } = source.fleet();
    g.set(shared && apart ? 1 : 0);
  });
  gauge('ready', '1 when /readyz answers 200', [], (g) => g.set(source.isReady() ? 1 : 0));
  gauge('breaker_state', '0 closed, 1 half open, 2 open', ['name', 'kind'], (g) => {
    for (const b of source.breakers()) g.set({ name: b.name, kind: b.kind }, BREAKER_VALUE[b.state]);
  });
  gauge('listener_sessions', 'Client sessions open now', [], (g) => g.set(source.listener().sessions));
  mirrored('listener_sessions_total', 'Client sessions since start', () => source.listener().sessions_total);
  mirrored(
    'listener_sessions_refused_total',
    'Client sessions refused at the door',
    () => source.listener().refused_total,
  );
  mirrored(
    'listener_auth_failures_total',
    'AUTH with an unknown user or wrong password',
    () => source.listener().auth_failures_total,
  );
  gauge('listener_held_bytes', 'Body octets reserved in memory now', [], (g) =>
    g.set(source.listener().held_bytes),
  );
  new Counter({
    name: `${PREFIX}listener_limit_hits_total`,
    help: 'Times a limit of the listener was hit',
    labelNames: ['limit'],
    registers,
    collect() {
      this.reset();
      for (const [limit, hits] of Object.entries(source.listener().limit_hits)) this.inc({ limit }, hits);
    },
  });
  mirrored(
    'log_lines_dropped_total',
    'Log lines thrown away because the destination took none',
    source.logDropped,
  );
  gauge(
    'log_lines_waiting',
    'Log lines the destination has not taken yet; at 4 MiB the oldest are thrown away',
    [],
    (g) => g.set(source.logWaiting()),
  );
  const totals = (key: keyof TokenTotals) => (): number => source.tokenTotals()[key];
  mirrored('token_cache_hits_total', 'Tokens handed out from the cache', totals('cache_hits'));
  mirrored(
    'token_cache_misses_total',
    'Tokens that had to be fetched while somebody waited',
    totals('cache_misses'),
  );
  mirrored('token_refresh_attempts_total', 'Token fetches started', totals('refresh_attempts'));
  mirrored('token_refresh_failures_total', 'Token fetches that failed', totals('refresh_failures'));

  return {
    contentType: registry.contentType,
    recordTransaction: (r) => {
      const { provider, outcome } = r;
      accounts.recordTransaction(r, replyClass(r));
      times.record(r);
      byWay.inc({ way: r.way, outcome });
      if (r.replayed) replays.inc({ provider });
    },
    observeRefresh: ({ provider, result, durationMs }) => {
      refreshes.inc({ provider, result });
      refreshDuration.observe({ provider }, durationMs / 1000);
    },
    observeGraphCall: ({ call, outcome, ms }) => {
      graphRequests.inc({ call, outcome });
      graphDuration.observe({ call }, ms / 1000);
    },
    observeLimit: accounts.observeLimit,
    observePassedOver: accounts.observePassedOver,
    countAttention: (status, provider) => attention.inc({ status, provider }),
    countUnclear: () => unclear.inc(),
    forget: accounts.forget,
    async *render() {
      yield `${await registry.metrics()}\n`;
      yield* inChunks(times.parts());
      yield* inChunks(accounts.parts(source.gauges()));
    },
  };
}
