/**
 * Keeps listeners of the event stream up to date. In: transactions, accounts that changed, and a look at all
 * of them from time to time while somebody listens. Out: events `transaction`, `account`, `account_removed`,
 * `breakers`, `rate`, `reload` on the hub. Owns the hub and its timers; without listeners it does nothing.
 */
import type { TransactionRecord } from '../relay/record.ts';
import { createSlices } from '../slices.ts';
import type { AdminBackend } from './backend.ts';
import { createEventHub, type EventHub } from './event-hub.ts';
import { listJson } from './pieces.ts';
import type { Series } from './series.ts';
import type { AccountRow, ReloadResult, Shape } from './shapes.ts';
import type { TransactionLog } from './transaction-log.ts';

/** First event of a stream: all there is to show. */
export type Snapshot = Shape<'Snapshot'>;

export interface Live {
  readonly hub: Pick<EventHub, 'subscribe'>;
  transaction(record: TransactionRecord): void;
  reloaded(result: ReloadResult): void;
  /** The account may look different now. */
  changed(id: string): void;
  /** The account is no longer served. */
  removed(id: string): void;
  /** Looks at everything soon; many calls in a row are one look. */
  lookSoon(): void;
  /** JSON of the `Snapshot`, small part by small part. */
  snapshot(): Iterable<string>;
  close(): void;
}

const TICK_MS = 1000;
const SOON_MS = 50;
/** Between two looks at all accounts, as a multiple of what one takes: thousands are looked at less often. */
const LOOK_REST = 20;
/** Transactions sent one by one in a tick; the rest only count in `rate.skipped`: nobody reads 1,000 lines a second. */
const TRANSACTIONS_PER_TICK = 100;
const TRANSACTIONS_IN_SNAPSHOT = 200;

const timeless = <T extends AccountRow['token']>(token: T): T => ({
  ...token,
  expires_in_s: null,
  age_s: null,
});

/** What of a row makes it different for a reader: not the seconds that pass by themselves. FNV-1a of its text. */
function fingerprint(row: AccountRow): number {
  const text = JSON.stringify({ ...row, token: timeless(row.token), tokens: row.tokens.map(timeless) });
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash;
}

/** Starts looking with the first listener. */
export function createLive(
  deps: { readonly backend: AdminBackend; readonly transactions: TransactionLog; readonly series: Series },
  options: { readonly version: string },
): Live {
  const { backend, series } = deps;
  /** What listeners have been told of each account. */
  const told = new Map<string, number>();
  const dirty = new Set<string>();
  let breakers = '';
  let sent = 0;
  let skipped = 0;
  let ticking: NodeJS.Timeout | undefined;
  let soon: NodeJS.Timeout | undefined;
  let next: NodeJS.Timeout | undefined;
  /** Being made now. */
  let snapshots = 0;
  let isLooking = false;
  let looksAsked = 0;
  let lookingAtDirty = false;

  const hub = createEventHub((listeners) => {
    if (listeners > 0 && ticking === undefined) {
      breakers = JSON.stringify(backend.breakers());
      ticking = setInterval(tick, TICK_MS).unref();
      next = setTimeout(() => void look(), TICK_MS).unref();
    } else if (listeners === 0) {
      stop();
      told.clear();
      dirty.clear();
    }
  });

  function stop(): void {
    clearInterval(ticking);
    clearTimeout(next);
    ticking = undefined;
  }

  function tell(row: AccountRow): void {
    const before = told.get(row.id);
    const print = fingerprint(row);
    if (before === print) return;
    told.set(row.id, print);
    hub.publish('account', row);
  }

  function removed(id: string): void {
    dirty.delete(id);
    if (told.delete(id)) hub.publish('account_removed', { id });
  }

  /** A reload, or a token endpoint that fails, changes thousands at once. */
  async function lookAtDirty(): Promise<void> {
    if (lookingAtDirty) return;
    lookingAtDirty = true;
    const slices = createSlices();
    const ids = [...dirty];
    dirty.clear();
    try {
      for (const id of ids) {
        const row = hub.listeners > 0 ? backend.row(id) : undefined;
        if (row !== undefined) tell(row);
        if (slices.isOver) await slices.rest();
      }
    } finally {
      lookingAtDirty = false;
    }
  }

  function lookAtBreakers(): void {
    const rows = backend.breakers();
    const print = JSON.stringify(rows);
    if (print === breakers) return;
    breakers = print;
    hub.publish('breakers', { breakers: rows });
  }

  /** Goes through all accounts; one such look at a time. */
  async function look(): Promise<void> {
    clearTimeout(next);
    looksAsked++;
    if (isLooking) return;
    isLooking = true;
    const asked = looksAsked;
    const startedAt = performance.now();
    const slices = createSlices();
    const gone = new Set(told.keys());
    for (const row of backend.rows()) {
      gone.delete(row.id);
      // A snapshot that is being made will have it; of what is new its other readers hear by `changed`.
      if (told.has(row.id) || snapshots === 0) tell(row);
      if (slices.isOver) await slices.rest();
      if (hub.listeners === 0) break;
    }
    isLooking = false;
    if (hub.listeners === 0) return;
    for (const id of gone) removed(id);
    lookAtBreakers();
    if (looksAsked > asked) return void look();
    const took = performance.now() - startedAt;
    clearTimeout(next);
    next = setTimeout(() => void look(), Math.max(TICK_MS, LOOK_REST * took)).unref();
  }

  function lookSoon(): void {
    if (hub.listeners === 0 || soon !== undefined) return;
    soon = setTimeout(() => {
      soon = undefined;
      if (hub.listeners > 0) void look();
    }, SOON_MS);
  }

  function tick(): void {
    void lookAtDirty();
    hub.publish('rate', {
      ...series.lastSecond(),
      skipped,
      ready: backend.isReady(),
      now: new Date().toISOString(),
      tokens: backend.tokenTotals(),
    } satisfies Shape<'Rate'>);
    sent = 0;
    skipped = 0;
  }

  function* rowsToShow(): Generator<AccountRow> {
    snapshots++;
    try {
      for (const row of backend.rows()) {
        // Whoever listens already hears of a change by a look.
        if (!told.has(row.id)) told.set(row.id, fingerprint(row));
        yield row;
      }
    } finally {
      snapshots--;
    }
  }

  return {
    hub,
    transaction: (record) => {
      if (hub.listeners === 0) return;
      dirty.add(record.account);
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
    changed: (id) => {
      if (hub.listeners > 0) dirty.add(id);
    },
    removed,
    lookSoon,
    snapshot: () => {
      const facts: Omit<Snapshot, 'accounts'> = {
        version: options.version,
        now: new Date().toISOString(),
        ready: backend.isReady(),
        breakers: backend.breakers(),
        tokens: backend.tokenTotals(),
        series: [...series.points()],
        transactions: [...deps.transactions.latest({ limit: TRANSACTIONS_IN_SNAPSHOT })],
      };
      return listJson(facts, 'accounts', rowsToShow());
    },
    close: () => {
      stop();
      clearTimeout(soon);
    },
  };
}
