/**
 * The relay's state as the page knows it. In: the event stream. Out: `changed` at most once a frame.
 * Owns the connection; after a break the browser connects again and a new snapshot replaces all.
 */
import type {
  AccountRow,
  BreakerRow,
  ReloadResult,
  SeriesPoint,
  Shape,
  TokenTotals,
  TransactionRow,
} from '../shapes.ts';
import { SERIES_SECONDS, TRANSACTIONS_KEPT } from './kept.ts';

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
}

/** What of the state can have changed. */
export type Part = 'accounts' | 'transactions' | 'series' | 'breakers' | 'connection';

/** Connects and keeps connected. `statusChanged` hears of an account in another status, `reloaded` of a reload. */
export function connect(on: {
  readonly changed: (parts: ReadonlySet<Part>) => void;
  readonly statusChanged: (row: AccountRow) => void;
  readonly reloaded: (result: ReloadResult) => void;
}): { readonly state: PageState } {
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
  };
  let pending = new Set<Part>();
  const changed = (...parts: readonly Part[]): void => {
    if (pending.size === 0)
      requestAnimationFrame(() => {
        const all = pending;
        pending = new Set();
        on.changed(all);
      });
    for (const part of parts) pending.add(part);
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
    changed('connection');
  };
  hear<Shape<'Snapshot'>>('snapshot', (s) => {
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
    changed('accounts', 'transactions', 'series', 'breakers', 'connection');
  });
  hear<AccountRow>('account', (row) => {
    const before = state.accounts.get(row.id);
    state.accounts.set(row.id, show(row));
    changed('accounts');
    if (before !== undefined && before.status !== row.status) on.statusChanged(row);
  });
  hear<{ id: string }>('account_removed', ({ id }) => {
    state.accounts.delete(id);
    changed('accounts');
  });
  hear<{ breakers: readonly BreakerRow[] }>('breakers', ({ breakers }) => {
    state.breakers = breakers;
    changed('breakers');
  });
  hear<TransactionRow>('transaction', (row) => {
    state.transactions.unshift(row);
    if (state.transactions.length > TRANSACTIONS_KEPT) state.transactions.length = TRANSACTIONS_KEPT;
    changed('transactions');
  });
  hear<Shape<'Rate'>>('rate', ({ ready, now, tokens, ...point }) => {
    if (state.series.at(-1)?.at_s !== point.at_s) state.series.push(point);
    if (state.series.length > SERIES_SECONDS) state.series.splice(0, state.series.length - SERIES_SECONDS);
    state.tokens = tokens;
    state.skewMs = Date.parse(now) - Date.now();
    if (state.ready !== ready || !state.connected) changed('connection');
    state.ready = ready;
    state.connected = true;
    changed('series');
  });
  hear<ReloadResult>('reload', on.reloaded);

  return { state };
}
