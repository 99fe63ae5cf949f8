/**
 * The upstream connections of one account. In: a way to open one. Out: leases of warm connections.
 * Owns their number (connecting + busy + idle never exceed the account's limit), their recycling
 * before the provider cuts them, and the order of those who wait (first come, first served).
 * The one file that knows generic-pool.
 */
import { createPool, type Pool } from 'generic-pool';
import type { Account } from '../accounts/account.ts';
import type { UpstreamConnection } from './connection.ts';
import { UpstreamError } from './failure.ts';

export interface Lease {
  readonly connection: UpstreamConnection;
  /** Gives the connection back, or closes it where it can no longer be used. Idempotent. */
  release(): void;
}

export interface PoolCounts {
  /** Connecting + busy + idle. */
  readonly size: number;
  readonly idle: number;
  readonly busy: number;
  readonly max: number;
  readonly waiting: number;
}

export interface ConnectionPool {
  /** A usable connection. Rejects with the `UpstreamError` of opening one, or `acquire_timeout`. */
  acquire(): Promise<Lease>;
  /** Opens what is missing to `count` connections, in the background of nobody; resolves when done, never rejects. */
  warm(count: number): Promise<void>;
  /** Resolves when one of the connections being opened is there, or all have failed; at once where none is. */
  opened(): Promise<void>;
  /** Closes what is past its time and opens replacements; called regularly. */
  maintain(): void;
  readonly counts: PoolCounts;
  /** Connections open now, busy or idle. */
  readonly live: number;
  /** No new leases; resolves when busy ones are back and all are closed. */
  close(): Promise<void>;
}

export interface PoolOptions {
  /** Longest wait for a connection, ms. */
  readonly acquireTimeoutMs: number;
  /** Messages at once, now. */
  readonly concurrency: () => number;
  /** Whether idle connections are kept; false closes them as they fall idle. */
  readonly keepIdle: () => boolean;
  /** Whether a connection may be opened in the background now. */
  readonly mayOpen: () => boolean;
}

/** A connection with this little time left, or this share of its idle time, is replaced before it is closed. */
const REPLACE_AHEAD_MS = 15_000;
const REPLACE_AHEAD_SHARE = 1 / 4;

/** A connection that lived this long did not end because of how it was opened. */
const SETTLED_MS = 10_000;

/** generic-pool would retry a failed `create` for ever, so a failure is an entry too and is handed to whoever waits. */
type Entry =
  | { readonly connection: UpstreamConnection; readonly failure?: undefined }
  | { readonly connection?: undefined; readonly failure: unknown };

export function createConnectionPool(
  account: Account,
  open: () => Promise<UpstreamConnection>,
  options: PoolOptions,
): ConnectionPool {
  const { limits } = account;
  let closing = false;
  let leased = 0;
  let sweeping = false;
  /** Those held back because the account is slowed down below its number of connections. */
  const heldBack: { go: () => void; timer: NodeJS.Timeout }[] = [];

  const isUsable = (entry: Entry, ahead = 0): boolean =>
    options.keepIdle() && (entry.connection?.isUsable(limits, ahead) ?? false);

  const idle = new Set<Entry>();
  const opening = new Set<Promise<unknown>>();
  const pool: Pool<Entry> = createPool<Entry>(
    {
      async create() {
        try {
          const promise = open();
          opening.add(promise);
          const connection = await promise.finally(() => opening.delete(promise));
          const entry: Entry = { connection };
          connection.onDead = () => {
            if (!idle.has(entry)) return;
            // Replaced at once, unless the upstream closes what was just opened: then at the next round.
            sweepSoon(connection.ageMs > SETTLED_MS);
          };
          idle.add(entry);
          return entry;
        } catch (failure) {
          sweepSoon(false);
          return { failure };
        }
      },
      async destroy(entry) {
        idle.delete(entry);
        if (entry.connection === undefined) return;
        entry.connection.onDead = undefined;
        await entry.connection.quit();
      },
      // A failure passes: it is the answer for the one who waits. sweep() takes whatever there is.
      validate: async (entry) => sweeping || entry.failure !== undefined || isUsable(entry),
    },
    {
      min: 0,
      max: limits.maxConnections,
      acquireTimeoutMillis: options.acquireTimeoutMs,
      testOnBorrow: true,
      // The connection used last is used next; the others can run out and be recycled.
      fifo: false,
      autostart: false,
      evictionRunIntervalMillis: 0,
    },
  );

  let sweepScheduled = false;
  function sweepSoon(replace: boolean): void {
    if (sweepScheduled || closing) return;
    sweepScheduled = true;
    // After whoever waits has been served.
    setImmediate(() => {
      sweepScheduled = false;
      if (closing) return;
      sweep();
      if (replace) topUp();
    });
  }

  /** Takes every idle entry out, gives back the usable ones and drops the rest. Nobody waits while entries are idle. */
  function sweep(): void {
    for (let i = pool.available; i > 0; i--) {
      sweeping = true;
      const taken = pool.acquire();
      sweeping = false;
      taken.then(
        (entry) => void (isUsable(entry) ? pool.release(entry) : pool.destroy(entry)),
        () => {},
      );
    }
  }

  /** Opens what is missing of the connections to be kept warm. */
  function topUp(): void {
    const missing = limits.minConnections - promising();
    if (missing <= 0 || !options.mayOpen()) return;
    // Where the limit leaves no room for a replacement beside it, the old one goes first.
    if (pool.size >= limits.maxConnections) sweep();
    void openMore(missing);
  }

  /** Connections that will still be usable in a while, with those being opened. */
  function promising(): number {
    const ahead = Math.min(REPLACE_AHEAD_MS, limits.idleMs * REPLACE_AHEAD_SHARE);
    let good = 0;
    for (const entry of idle) if (isUsable(entry, ahead)) good++;
    return opening.size + good + leased;
  }

  /** Opens `missing` connections beside those there are: a request for each idle one and each missing one. */
  async function openMore(missing: number): Promise<void> {
    const room = Math.min(missing, limits.maxConnections - pool.size);
    if (room <= 0) return;
    const requests = Array.from({ length: pool.available + room }, () =>
      pool.acquire().then(
        (entry) => {
          // An entry that cannot be used has done its duty: it made place.
          void (isUsable(entry) ? pool.release(entry) : pool.destroy(entry));
        },
        () => {},
      ),
    );
    await Promise.all(requests);
    // The first one opened may have answered all requests; the others are still on their way.
    await Promise.allSettled(opening);
  }

  async function turn(): Promise<void> {
    if (options.concurrency() >= limits.maxConnections) return;
    await new Promise<void>((resolve, reject) => {
      const waiter = {
        go: () => {
          clearTimeout(waiter.timer);
          resolve();
        },
        timer: setTimeout(() => {
          heldBack.splice(heldBack.indexOf(waiter), 1);
          reject(new UpstreamError({ kind: 'local', cause: 'acquire_timeout' }));
        }, options.acquireTimeoutMs),
      };
      heldBack.push(waiter);
    });
  }

  function nextTurn(): void {
    while (heldBack.length > 0 && leased < options.concurrency()) {
      heldBack.shift()?.go();
      if (options.concurrency() < limits.maxConnections) break;
    }
  }

  async function borrow(): Promise<Entry> {
    try {
      return await pool.acquire();
    } catch (error) {
      throw new UpstreamError({ kind: 'local', cause: closing ? 'draining' : 'acquire_timeout' }, error);
    }
  }

  return {
    async acquire() {
      if (closing) throw new UpstreamError({ kind: 'local', cause: 'draining' });
      if (leased >= options.concurrency()) await turn();
      const entry = await borrow();
      if (entry.connection === undefined) {
        void pool.destroy(entry);
        throw entry.failure;
      }
      idle.delete(entry);
      leased++;
      let returned = false;
      return {
        connection: entry.connection,
        release() {
          if (returned) return;
          returned = true;
          leased--;
          if (isUsable(entry) && !closing) {
            idle.add(entry);
            void pool.release(entry);
          } else {
            void pool.destroy(entry);
          }
          nextTurn();
        },
      };
    },

    async warm(count) {
      if (closing || !options.mayOpen()) return;
      await openMore(Math.min(count, limits.maxConnections) - promising());
    },

    async opened() {
      // Any: the first success ends the wait, failures only when they are all.
      if (opening.size > 0) await Promise.any(opening).catch(() => {});
    },

    maintain() {
      if (closing) return;
      nextTurn();
      topUp();
      for (const entry of idle) {
        if (isUsable(entry)) continue;
        sweep();
        break;
      }
    },

    get counts() {
      return {
        size: pool.size,
        idle: idle.size,
        busy: leased,
        max: limits.maxConnections,
        waiting: pool.pending + heldBack.length,
      };
    },

    get live() {
      return idle.size + leased;
    },

    async close() {
      closing = true;
      for (const waiter of heldBack.splice(0)) waiter.go();
      await pool.drain();
      await pool.clear();
    },
  };
}
