/**
 * The relay's state as the page knows it. In: the event stream. Out: `changed` at most once a frame.
 * Owns the connection; after a break the browser connects again and a new snapshot replaces all.
 */
import type { AccountRow, BreakerRow, ReloadResult, TokenTotals } from '../backend.ts';
import type { Snapshot } from '../live.ts';
import type { SeriesPoint } from '../series.ts';
import type { TransactionRow } from '../transaction-log.ts';

/** An account with the instants of its token in this browser's clock. */
export interface ShownAccount extends AccountRow {
  /** Lower-cased text the search looks in. */
  readonly haystack: string;
  readonly tokenFrom: number | undefined;
  readonly tokenUntil: number | undefined;
}

export interface PageState {
  version: string;
  ready: boolean;
  connected: boolean;
  /** Server clock minus ours, ms. */
  skewMs: number;
  readonly accounts: Map<string, ShownAccount>;
  breakers: readonly BreakerRow[];
  tokens: TokenTotals | undefined;
  series: SeriesPoint[];
  /** Newest first. */
  transactions: TransactionRow[];
  /** Transactions that came faster than they are listed. */
  skipped: number;
}

/** What has changed since the last call. */
export interface Changes {
  accounts: boolean;
  transactions: boolean;
  series: boolean;
  breakers: boolean;
  connection: boolean;
}

interface RateEvent extends SeriesPoint {
  readonly skipped: number;
  readonly ready: boolean;
  readonly now: string;
  readonly tokens: TokenTotals;
}

const SERIES_KEPT = 900;
const TRANSACTIONS_KEPT = 1000;

export interface Stream {
  readonly state: PageState;
  close(): void;
}

/** Connects and keeps connected. `statusChanged` hears of an account in another status, `reloaded` of a reload. */
export function connect(on: {
  readonly changed: (changes: Changes) => void;
  readonly statusChanged: (row: AccountRow, before: AccountRow) => void;
  readonly reloaded: (result: ReloadResult) => void;
}): Stream {
  const state: PageState = {
    version: '',
    ready: false,
    connected: false,
    skewMs: 0,
    accounts: new Map(),
    breakers: [],
    tokens: undefined,
    series: [],
    transactions: [],
    skipped: 0,
  };
  const none = (): Changes => ({
    accounts: false,
    transactions: false,
    series: false,
    breakers: false,
    connection: false,
  });
  let pending = none();
  let scheduled = false;
  const changed = (what: Partial<Changes>): void => {
    Object.assign(pending, what);
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      const changes = pending;
      pending = none();
      on.changed(changes);
    });
  };

  const show = (row: AccountRow): ShownAccount => {
    const now = Date.now();
    const { expires_in_s: left, age_s: age } = row.token;
    return {
      ...row,
      haystack:
        `${row.email} ${row.id} ${row.provider} ${row.last_error ?? ''} ${row.reason ?? ''}`.toLowerCase(),
      tokenUntil: left === null ? undefined : now + left * 1000,
      tokenFrom: age === null ? undefined : now - age * 1000,
    };
  };

  const source = new EventSource('/admin/events');
  const hear = <T>(name: string, take: (body: T) => void): void => {
    source.addEventListener(name, (event) => take(JSON.parse((event as MessageEvent<string>).data) as T));
  };

  source.onerror = () => {
    state.connected = false;
    changed({ connection: true });
  };
  hear<Snapshot>('snapshot', (s) => {
    state.version = s.version;
    state.ready = s.ready;
    state.connected = true;
    state.skewMs = Date.parse(s.now) - Date.now();
    state.accounts.clear();
    for (const row of s.accounts) state.accounts.set(row.id, show(row));
    state.breakers = s.breakers;
    state.tokens = s.tokens;
    state.series = [...s.series];
    state.transactions = [...s.transactions];
    changed({ accounts: true, transactions: true, series: true, breakers: true, connection: true });
  });
  hear<AccountRow>('account', (row) => {
    const before = state.accounts.get(row.id);
    state.accounts.set(row.id, show(row));
    changed({ accounts: true });
    if (before !== undefined && before.status !== row.status) on.statusChanged(row, before);
  });
  hear<{ id: string }>('account_removed', ({ id }) => {
    state.accounts.delete(id);
    changed({ accounts: true });
  });
  hear<{ breakers: readonly BreakerRow[] }>('breakers', ({ breakers }) => {
    state.breakers = breakers;
    changed({ breakers: true });
  });
  hear<TransactionRow>('transaction', (row) => {
    state.transactions.unshift(row);
    if (state.transactions.length > TRANSACTIONS_KEPT) state.transactions.length = TRANSACTIONS_KEPT;
    changed({ transactions: true });
  });
  hear<RateEvent>('rate', ({ skipped, ready, now, tokens, ...point }) => {
    if (state.series.at(-1)?.at_s !== point.at_s) state.series.push(point);
    if (state.series.length > SERIES_KEPT) state.series.splice(0, state.series.length - SERIES_KEPT);
    state.tokens = tokens;
    state.skewMs = Date.parse(now) - Date.now();
    const connection = state.ready !== ready || !state.connected;
    state.ready = ready;
    state.connected = true;
    state.skipped += skipped;
    changed(connection ? { series: true, connection } : { series: true });
  });
  hear<ReloadResult>('reload', on.reloaded);

  return { state, close: () => source.close() };
}
