/**
 * Metrics by account, and their totals. In: finished transactions, waits, rows. Out: samples, a few at a time.
 * Owns the counters of accounts; those of one that has left are dropped.
 */
import { orMake } from '../or-make.ts';
import type { TransactionRecord } from '../relay/record.ts';
import type { AccountGauges, LimitObservation } from './backend.ts';
import { head, label, sample } from './exposition.ts';

/** Of which accounts there are series of their own. */
export type MetricsAccounts = 'all' | 'busy' | 'none';

export interface AccountMetrics {
  recordTransaction(record: TransactionRecord, replyClass: string): void;
  observeLimit(observation: LimitObservation): void;
  observePassedOver(account: string, result: 'other' | 'none'): void;
  forget(account: string): void;
  /** The exposition, small part by small part; `rows` is gone through once. */
  parts(rows: Iterable<AccountGauges>): Iterable<string>;
}

/** Of every name. */
export const PREFIX = 'xoauth2_relay_';
/** Each by account, and in all under a name of its own; the labels a total leaves out are the account's. */
const COUNTERS = {
  transactions: {
    own: [
      'transactions_total',
      'Finished transactions by account, outcome and class of the last reply to the client',
    ],
    total: ['provider_transactions_total', 'Finished transactions, all accounts together'],
  },
  bytes: {
    own: ['message_bytes_total', 'Body octets of relayed messages'],
    total: ['provider_message_bytes_total', 'Body octets of relayed messages, all accounts together'],
  },
  limitEvents: {
    own: ['limiter_events_total', 'Transactions or logins held up by a limit of the relay'],
    total: ['limits_events_total', 'Transactions or logins held up by a limit, all accounts together'],
  },
  limitSeconds: {
    own: ['limiter_wait_seconds_total', 'Time spent waiting for a limit of the relay'],
    total: ['limits_wait_seconds_total', 'Time spent waiting for a limit, all accounts together'],
  },
  passedOver: {
    own: ['accounts_passed_over_total', 'Messages an account could not take although it matched the sender'],
    total: ['passed_over_total', 'Messages an account could not take, all accounts together'],
  },
  chosen: {
    own: [
      'accounts_chosen_total',
      'Messages of senders that several accounts match, by the account that took it and why',
    ],
    total: ['chosen_total', 'Messages of senders that several accounts match, by why one took it'],
  },
} as const;
type CounterName = keyof typeof COUNTERS;
const COUNTER_NAMES = Object.keys(COUNTERS) as CounterName[];

/** By the labels after the account's. */
type Counters = Readonly<Record<CounterName, Map<string, number>>>;
const emptyCounters = (): Counters =>
  Object.fromEntries(COUNTER_NAMES.map((name) => [name, new Map()])) as Counters;

const GAUGES = {
  status: ['account_status', '1 for the status the account is in'],
  drained: ['account_drained', '1 while an operator has drained the account'],
  expiry: ['token_expiry_seconds', 'Life left in the cached access token; absent without one'],
  connections: ['pool_connections', 'Upstream connections by state'],
  max: ['pool_max_connections', 'Most upstream connections the account may have'],
} as const;
type GaugeName = keyof typeof GAUGES;

const add = (counter: Map<string, number>, labels: string, by: number): void =>
  void counter.set(labels, (counter.get(labels) ?? 0) + by);

/**
 * Text gathered until its turn comes, as octets: text put together from small parts is kept as those parts, which take
 * several times its size, and the garbage collector copies each.
 */
function createSheet(): { add(text: string): void; pieces(): Generator<string> } {
  const octets: Buffer[] = [];
  let last = '';
  return {
    add(text) {
      last += text;
      if (last.length < 4_096) return;
      octets.push(Buffer.from(last));
      last = '';
    },
    *pieces() {
      for (const piece of octets) yield piece.toString();
      yield last;
    },
  };
}

export function createAccountMetrics(shown: MetricsAccounts): AccountMetrics {
  const byAccount = new Map<string, Counters>();
  const totals = emptyCounters();
  /** Labels of a reply, so that none is written twice. */
  const labels = new Map<string, string>();

  function count(account: string, name: CounterName, of: string, by: number): void {
    add(totals[name], of, by);
    if (shown !== 'none') add(orMake(byAccount, account, emptyCounters)[name], of, by);
  }

  const transactionLabels = (provider: string, outcome: string, replyClass: string): string =>
    orMake(labels, `${provider}\n${outcome}\n${replyClass}`, () =>
      [label('provider', provider), label('outcome', outcome), label('reply_class', replyClass)].join(),
    );

  const isShown = (row: AccountGauges): boolean =>
    shown === 'all' ||
    (shown === 'busy' &&
      (byAccount.has(row.id) ||
        row.pool.size > 0 ||
        row.drained ||
        (row.status !== 'ready' && row.status !== 'refreshing')));

  function* counterParts(): Generator<string> {
    for (const key of COUNTER_NAMES) {
      const { own, total } = COUNTERS[key];
      if (shown !== 'none') {
        const full = PREFIX + own[0];
        yield head(full, 'counter', own[1]);
        for (const [account, counters] of byAccount) {
          const of = label('account', account);
          for (const [more, value] of counters[key]) yield sample(full, `${of},${more}`, value);
        }
        yield '\n';
      }
      const full = PREFIX + total[0];
      yield head(full, 'counter', total[1]);
      for (const [of, value] of totals[key]) yield sample(full, of, value);
      yield '\n';
    }
  }

  /** The gauges of a row go to their sheets: samples of one name stand together. */
  function* gaugeParts(rows: Iterable<AccountGauges>): Generator<string> {
    const sheets = Object.fromEntries(Object.keys(GAUGES).map((name) => [name, createSheet()])) as Record<
      GaugeName,
      ReturnType<typeof createSheet>
    >;
    const put = (gauge: GaugeName, of: string, value: number): void =>
      sheets[gauge].add(sample(PREFIX + GAUGES[gauge][0], of, value));
    const statuses = new Map<string, number>();
    const connections = new Map<string, number>();
    let drained = 0;
    for (const row of rows) {
      const { pool, token } = row;
      const provider = label('provider', row.provider);
      const states: readonly (readonly [string, number])[] = [
        ['idle', pool.idle],
        ['busy', pool.busy],
        ['connecting', Math.max(0, pool.size - pool.idle - pool.busy)],
      ];
      add(statuses, `${provider},${label('status', row.status)}`, 1);
      for (const [state, n] of states) add(connections, `${provider},${label('state', state)}`, n);
      if (row.drained) drained++;
      if (isShown(row)) {
        const own = label('account', row.id);
        put('status', `${own},${provider},${label('status', row.status)}`, 1);
        put('drained', own, row.drained ? 1 : 0);
        if (token.cached && token.expires_in_s !== null)
          put('expiry', `${own},${provider}`, token.expires_in_s);
        for (const [state, n] of states) put('connections', `${own},${label('state', state)}`, n);
        put('max', own, pool.max);
      }
      // Nothing to write yet, but a moment to rest.
      yield '';
    }
    if (shown !== 'none')
      for (const gauge of Object.keys(GAUGES) as GaugeName[]) {
        yield head(PREFIX + GAUGES[gauge][0], 'gauge', GAUGES[gauge][1]);
        yield* sheets[gauge].pieces();
        yield '\n';
      }
    yield head(`${PREFIX}accounts`, 'gauge', 'Accounts by status');
    for (const [of, n] of statuses) yield sample(`${PREFIX}accounts`, of, n);
    yield `\n${head(`${PREFIX}accounts_drained`, 'gauge', 'Accounts an operator has drained')}`;
    yield `${PREFIX}accounts_drained ${drained}\n\n`;
    yield head(`${PREFIX}connections`, 'gauge', 'Upstream connections by state, all accounts together');
    for (const [of, n] of connections) yield sample(`${PREFIX}connections`, of, n);
    yield '\n';
  }

  return {
    recordTransaction({ account, provider, outcome, bytes, chosenBy }, replyClass) {
      count(account, 'transactions', transactionLabels(provider, outcome, replyClass), 1);
      if (outcome === 'relayed') count(account, 'bytes', label('provider', provider), bytes);
      if (chosenBy !== undefined) count(account, 'chosen', label('chosen_by', chosenBy), 1);
    },
    observeLimit({ account, limit, waitedMs, refused }) {
      const of = label('limit', limit);
      count(account, 'limitEvents', `${of},${label('result', refused ? 'refused' : 'waited')}`, 1);
      count(account, 'limitSeconds', of, waitedMs / 1000);
    },
    observePassedOver: (account, result) => count(account, 'passedOver', label('result', result), 1),
    forget: (account) => void byAccount.delete(account),
    *parts(rows) {
      yield* counterParts();
      yield* gaugeParts(rows);
    },
  };
}
