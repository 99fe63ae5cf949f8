/**
 * Places for the connections of one account: generic-pool lends them, newest first. The one file that
 * knows generic-pool, by its documented methods only. A place is made at once and never fails, so a
 * borrower is never left waiting: whoever gets an empty one opens a connection into it (generic-pool
 * would try a failed `create` again for ever, and tells nobody who waits).
 *
 * What breaks if generic-pool changes (places.test.ts fails then): `size` and `available` must change
 * within the call of `acquire` and `release`; without `acquireTimeoutMillis` and eviction it must not
 * look at a clock.
 */
import { createPool, type Pool } from 'generic-pool';

/** Room for one connection; empty until one is opened into it. */
export interface PoolPlace<T> {
  connection: T | undefined;
}

export interface Places<T> {
  /** Connecting + busy + idle. */
  readonly size: number;
  readonly idle: number;
  /** The place used last, or an empty one where none is idle. */
  take(): Promise<PoolPlace<T>>;
  /** A place without a connection; idle ones stay. */
  takeEmpty(): Promise<PoolPlace<T>>;
  /** The connection is idle from now on; while places are sorted, at the end of that. */
  giveBack(place: PoolPlace<T>): void;
  /** Gives up the place; a connection in it is closed. */
  drop(place: PoolPlace<T>): void;
  /** Closes idle connections that are not to be kept. */
  sweep(isKept: (connection: T) => boolean): Promise<void>;
  /** True while places are sorted: `idle` says nothing then. */
  readonly isSorting: boolean;
  /** Closes idle ones and lends no more. */
  close(): Promise<void>;
}

export interface PlacesDeps<T> {
  /** Called once for each connection whose place is given up. */
  close(connection: T): void;
  /** Places were sorted: what is idle can be lent again. */
  sorted(): void;
}

/** The account's own limit is checked before a place is taken: it can change, generic-pool's cannot. */
const MOST = 1_000;

export function createPlaces<T>(deps: PlacesDeps<T>): Places<T> {
  let sorting = 0;
  /** To be given back when nothing is sorted: what asks generic-pool for an empty place would get it, and the empty one be idle. */
  const held: PoolPlace<T>[] = [];
  const pool: Pool<PoolPlace<T>> = createPool<PoolPlace<T>>(
    {
      create: async () => ({ connection: undefined }),
      async destroy(place) {
        if (place.connection !== undefined) deps.close(place.connection);
        place.connection = undefined;
      },
    },
    // The connection used last is used next; the others can run out and be recycled.
    { min: 0, max: MOST, fifo: false, autostart: false, evictionRunIntervalMillis: 0 },
  );

  const giveBack = (place: PoolPlace<T>): void => void (sorting > 0 ? held.push(place) : pool.release(place));
  const drop = (place: PoolPlace<T>): void => void pool.destroy(place);

  async function whileSorting<R>(work: () => Promise<R>): Promise<R> {
    sorting++;
    try {
      return await work();
    } finally {
      if (--sorting === 0) {
        for (const place of held.splice(0)) giveBack(place);
        deps.sorted();
      }
    }
  }

  /** Takes all idle places and `more` empty ones; gives back or drops what nobody asked for. */
  async function sort(more: 0 | 1, isKept: (connection: T) => boolean): Promise<PoolPlace<T> | undefined> {
    const taken = await Promise.all(Array.from({ length: pool.available + more }, () => pool.acquire()));
    let empty: PoolPlace<T> | undefined;
    // The newest came first, so it goes back last.
    for (const place of taken.reverse()) {
      if (place.connection !== undefined && isKept(place.connection)) giveBack(place);
      else if (place.connection === undefined && more > 0 && empty === undefined) empty = place;
      else drop(place);
    }
    return empty;
  }

  return {
    get size() {
      return pool.size;
    },
    get idle() {
      return pool.available;
    },
    take: () => pool.acquire(),
    takeEmpty: () =>
      whileSorting(async () => {
        for (;;) {
          const empty = await sort(1, () => true);
          if (empty !== undefined) return empty;
        }
      }),
    giveBack,
    drop,
    sweep: (isKept) => whileSorting(() => sort(0, isKept)).then(() => undefined),
    get isSorting() {
      return sorting > 0;
    },
    async close() {
      await pool.drain();
      await pool.clear();
    },
  };
}
