/**
 * Keeps listeners of the event stream up to date. In: transactions, and once a second a look at the
 * backend while somebody listens. Out: events `transaction`, `account`, `account_removed`, `breakers`,
 * `rate`, `reload` on the hub. Owns the hub and its timer; without listeners it does nothing.
 */
import type { TransactionRecord } from '../relay/record.ts';
import type { AccountRow, AdminBackend, ReloadResult } from './backend.ts';
import { createEventHub, type EventHub } from './event-hub.ts';
import type { Series } from './series.ts';
import type { Shape } from './shapes.ts';
import type { TransactionLog } from './transaction-log.ts';

/** First event of a stream: all there is to show. */
export type Snapshot = Shape<'Snapshot'>;

export interface Live {
  readonly hub: Pick<EventHub, 'subscribe'>;
  transaction(record: TransactionRecord): void;
  reloaded(result: ReloadResult): void;
  /** Looks at the backend at once instead of at the next tick; many calls in a row are one look. */
  lookSoon(): void;
  snapshot(): Snapshot;
  close(): void;
}

const TICK_MS = 1000;
const SOON_MS = 50;
/** Transactions sent one by one in a tick; the rest only count in `rate.skipped`: nobody reads 1,000 lines a second. */
const TRANSACTIONS_PER_TICK = 100;
const TRANSACTIONS_IN_SNAPSHOT = 200;

/** What of a row makes it different for a reader: not the seconds that pass by themselves. */
const fingerprint = (row: AccountRow): string =>
  JSON.stringify({ ...row, token: { ...row.token, expires_in_s: null, age_s: null } });

/** Starts looking with the first listener. */
export function createLive(
  deps: { readonly backend: AdminBackend; readonly transactions: TransactionLog; readonly series: Series },
  options: { readonly version: string },
): Live {
  const { backend, series } = deps;
  const seen = new Map<string, string>();
  let breakers = '';
  let sent = 0;
  let skipped = 0;
  let timer: NodeJS.Timeout | undefined;
  let soon: NodeJS.Timeout | undefined;

  const remember = (): void => {
    seen.clear();
    for (const row of backend.accounts()) seen.set(row.id, fingerprint(row));
    breakers = JSON.stringify(backend.breakers());
  };
  const hub = createEventHub((listeners) => {
    if (listeners > 0 && timer === undefined) {
      remember();
      timer = setInterval(tick, TICK_MS).unref();
    } else if (listeners === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  });

  const look = (): void => {
    const present = new Set<string>();
    for (const row of backend.accounts()) {
      present.add(row.id);
      const print = fingerprint(row);
      if (seen.get(row.id) === print) continue;
      seen.set(row.id, print);
      hub.publish('account', row);
    }
    for (const id of seen.keys()) {
      if (present.has(id)) continue;
      seen.delete(id);
      hub.publish('account_removed', { id });
    }
    const rows = backend.breakers();
    const print = JSON.stringify(rows);
    if (print !== breakers) {
      breakers = print;
      hub.publish('breakers', { breakers: rows });
    }
  };

  const lookSoon = (): void => {
    if (hub.listeners === 0 || soon !== undefined) return;
    soon = setTimeout(() => {
      soon = undefined;
      look();
    }, SOON_MS);
  };

  const isReady = (): boolean => {
    const r = backend.readiness();
    return r.warmed_up && r.usable > 0;
  };

  const tick = (): void => {
    look();
    hub.publish('rate', {
      ...series.lastSecond(),
      skipped,
      ready: isReady(),
      now: new Date().toISOString(),
      tokens: backend.tokenTotals(),
    } satisfies Shape<'Rate'>);
    sent = 0;
    skipped = 0;
  };

  return {
    hub,
    transaction: (record) => {
      if (hub.listeners === 0) return;
      if (sent >= TRANSACTIONS_PER_TICK) skipped++;
      else {
        sent++;
        hub.publish('transaction', deps.transactions.toRow(record));
      }
    },
    reloaded: (result) => {
      hub.publish('reload', result);
      lookSoon();
    },
    lookSoon,
    snapshot: () => ({
      version: options.version,
      now: new Date().toISOString(),
      ready: isReady(),
      accounts: backend.accounts(),
      breakers: backend.breakers(),
      tokens: backend.tokenTotals(),
      series: series.points(),
      transactions: deps.transactions.latest({ limit: TRANSACTIONS_IN_SNAPSHOT }),
    }),
    close: () => {
      clearInterval(timer);
      clearTimeout(soon);
    },
  };
}
