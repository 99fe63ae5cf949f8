/**
 * The upstream connections of one account. In: a way to open one. Out: leases of warm connections.
 * Owns its part of the mailbox's number (connecting + busy + idle + saying goodbye of all pools never exceed the
 * account's limit, also where the limit or the account changes), their recycling before the provider cuts them, and
 * the order of those who wait: first come, first served, each with a limit of his own.
 */
import type { AccountLimits } from '../accounts/account.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { UpstreamConnection, Usable } from './connection.ts';
import { closedBehindLogin, notServed, UpstreamError } from './failure.ts';
import { createMailboxConnections, type MailboxConnections, type Sharer } from './mailbox-connections.ts';
import { createPlaces, type PoolPlace } from './places.ts';
import { Uses } from './uses.ts';

export interface Lease {
  readonly connection: UpstreamConnection;
  /** Gives the connection back, or closes it where it can no longer be used. `unused`: a message that is about to come counts on it. Idempotent. */
  release(as?: 'unused'): void;
}

type Place = PoolPlace<UpstreamConnection>;

export interface PoolCounts {
  /** Connecting + busy + idle. */
  readonly size: number;
  readonly idle: number;
  readonly busy: number;
  readonly max: number;
}

export interface ConnectionPool {
  /** A usable connection, for somebody who waits since then (monotonic, default now). Rejects with the `UpstreamError` of opening one, `acquire_timeout` where none came free, or `not_served`. */
  acquire(since?: number): Promise<Lease>;
  /** Opens what is missing to `count` connections, in the background; resolves when done, never rejects. */
  warm(count: number): Promise<void>;
  /** Closes what is past its time and opens replacements; called regularly, and when limits changed. */
  maintain(): void;
  readonly counts: PoolCounts;
  /** Connections open now, busy or idle. */
  readonly live: number;
  /** It has none and opens none, and others have all the mailbox's. */
  readonly isCrowdedOut: boolean;
  /** No connection, not even one that says goodbye, and nobody waits for one. */
  readonly isEmpty: boolean;
  /** Takes no more; whoever waits hears `not_served`. Resolves when busy ones are back and all are closed. */
  close(): Promise<void>;
  /** Cuts busy connections, and those that say goodbye: what is under way on them is lost. */
  cut(): void;
}

export interface PoolOptions {
  /** May change at any time. */
  readonly limits: () => AccountLimits;
  /** Longest wait for a connection, ms. */
  readonly acquireTimeoutMs: number;
  /** Messages at once, now. */
  readonly concurrency: () => number;
  /** Whether this idle connection is kept; false closes it. */
  readonly isKept: (connection: UpstreamConnection) => boolean;
  /** Whether a connection may be opened in the background now. */
  readonly mayOpen: () => boolean;
  /** Runs what opens a connection that no mail waits for, when it is its turn, or never. Never rejects. Default: at once. */
  readonly inBackground?: (task: () => Promise<void>) => Promise<void>;
  /** Whether connections that end are replaced before anybody asks. Default: always. */
  readonly isKeptWarm?: () => boolean;
  /** Whether the account is served; else it only finishes what is under way. Default: always. */
  readonly isServed?: () => boolean;
  /** Of the mailbox; default: the pool is its only one. */
  readonly mailbox?: MailboxConnections;
  readonly clock?: Clock;
}

/** A connection that lived this long did not end because of how it was opened. */
const SETTLED_MS = 10_000;
/** After a failed attempt, while others are open: those who wait get one of these, and another is tried after this. */
const TRY_AGAIN_MS = 1_000;
/** So long, and the time between two logins, after its last use a connection is not given up to another account, ms: the next message may be about to come, and each change takes a login. */
const KEPT_MS = 1_000;

interface Waiter {
  /** Monotonic ms. */
  readonly since: number;
  readonly resolve: (lease: Lease) => void;
  readonly reject: (error: unknown) => void;
  readonly stop: () => void;
}

/** `open`: undefined where the connection fits no more when its turn comes, for limits have changed. */
export function createConnectionPool(
  open: (fits: () => boolean) => Promise<UpstreamConnection | undefined>,
  options: PoolOptions,
): ConnectionPool {
  const { clock = systemClock, limits, mailbox = createMailboxConnections(clock) } = options;
  const { inBackground = (task) => task() } = options;
  let closing = false;
  const uses = new Uses<UpstreamConnection>();
  /** Places being lent: taken from generic-pool, not yet with the borrower. */
  let handing = 0;
  const opening = new Set<Promise<void>>();
  let stopKeeping = (): void => {};
  /** Said QUIT to, not closed yet; when they are. */
  const leaving = new Map<UpstreamConnection, Promise<void>>();
  const waiters: Waiter[] = [];
  /** The first of them has no place: the mailbox has none free. */
  let lacksRoom = false;
  let openAgainAt = 0;
  let lastFailure: { readonly at: number; readonly error: unknown } | undefined;
  let whenEmpty = (): void => {};

  const isUsable = (connection: UpstreamConnection, usable: Usable = 'now'): boolean =>
    options.isKept(connection) && connection.isUsable(limits(), usable);

  const places = createPlaces<UpstreamConnection>({
    close(connection) {
      uses.set(connection, undefined);
      connection.onDead = undefined;
      if (connection.dead) return;
      const gone = connection.quit().finally(() => {
        leaving.delete(connection);
        serve();
      });
      leaving.set(connection, gone);
    },
    sorted: () => serve(),
  });

  /** Messages that may go out beside those under way. */
  const free = (): number => Math.max(0, options.concurrency() - uses.busy - handing);

  /** Hands out what is idle, and opens what is missing for those who wait. */
  function serve(): void {
    if (closing && uses.busy + handing + opening.size === 0) whenEmpty();
    // Afterwards it is called.
    if (places.isSorting) return;
    while (waiters.length > 0 && places.idle > 0 && free() > 0) {
      const waiter = waiters.shift();
      if (waiter !== undefined) void handTo(waiter);
    }
    let wanted = Math.min(waiters.length, free()) - opening.size;
    if (uses.busy + uses.idle > 0 && clock.monotonic() < openAgainAt) wanted = 0;
    for (; wanted > 0 && makeRoom(); wanted--) void openOne();
    lacksRoom = wanted > 0;
    if (lacksRoom) mailbox.askForIdle(sharer);
    mailbox.pass(sharer);
  }

  const sharer: Sharer = {
    get open() {
      return places.size + leaving.size;
    },
    most: () => limits().maxConnections,
    loginIntervalMs: () => limits().loginIntervalMs,
    isServed: options.isServed ?? (() => true),
    get waitsSince() {
      return lacksRoom ? waiters[0]?.since : undefined;
    },
    cutLeaving() {
      const [connection] = leaving.keys();
      if (connection === undefined) return false;
      leaving.delete(connection);
      connection.destroy();
      return true;
    },
    giveUpIdle() {
      if (closing) return false;
      if (places.isSorting) return true;
      if (places.idle <= Math.min(waiters.length, free())) return false;
      const keptMs = KEPT_MS + limits().loginIntervalMs;
      const restMs = keptMs - Math.max(...uses.all('idle').map(({ idleMs }) => idleMs));
      if (restMs > 0) {
        stopKeeping();
        stopKeeping = clock.after(restMs, serve);
        return false;
      }
      // The one used longest ago.
      let given = 0;
      void places.sweep(() => given++ > 0);
      return true;
    },
    serve,
  };
  mailbox.join(sharer);

  const isOver = (): boolean => sharer.open > mailbox.roomFor(sharer);
  /** Whether one more fits; those that only say goodbye give way. */
  const makeRoom = (): boolean => mailbox.makeRoom(sharer);

  async function handTo(waiter: Waiter): Promise<void> {
    const lease = await takeIdle();
    if (lease !== undefined) {
      waiter.stop();
      waiter.resolve(lease);
      return;
    }
    waiters.unshift(waiter);
    serve();
  }

  /** The idle connection used last; undefined where it turned out unusable. */
  async function takeIdle(): Promise<Lease | undefined> {
    handing++;
    const place = await places.take();
    handing--;
    const { connection } = place;
    if (connection !== undefined && isUsable(connection)) return lend(place, connection);
    places.drop(place);
    return undefined;
  }

  function lend(place: Place, connection: UpstreamConnection): Lease {
    uses.set(connection, 'busy');
    return {
      connection,
      release(as) {
        if (uses.of(connection) !== 'busy') return;
        keep(place, connection, as !== 'unused');
        serve();
      },
    };
  }

  /** `mayYield`: to another pool that has waited too long. No login is for nothing: what was opened for a message serves it first. Those that say goodbye give way to what is kept. */
  function keep(place: Place, connection: UpstreamConnection, mayYield: boolean): void {
    const isTooMany = places.size > mailbox.roomFor(sharer);
    if (closing || isTooMany || !isUsable(connection) || (mayYield && mailbox.isDueElsewhere(sharer))) {
      uses.set(connection, undefined);
      places.drop(place);
      return;
    }
    uses.set(connection, 'idle');
    places.giveBack(place);
  }

  /** Opens one more. Resolves when it is idle, or has failed and somebody knows. */
  function openOne(): Promise<void> {
    const done = openInto(places.takeEmpty()).finally(() => {
      opening.delete(done);
      serve();
    });
    opening.add(done);
    return done;
  }

  async function openInto(taking: Promise<Place>): Promise<void> {
    const place = await taking;
    try {
      const connection = await open(() => !isOver());
      if (connection === undefined) return places.drop(place);
      place.connection = connection;
      connection.onDead = () => {
        // Replaced at once, unless the upstream closes what was just opened: then at the next round.
        if (uses.of(connection) === 'idle') sweepSoon(connection.ageMs > SETTLED_MS);
      };
      // For a message that waits another would be opened, and another.
      if (waiters.length > 0 && !connection.isUsable(limits())) throw closedBehindLogin();
      if (waiters.length > 0 && !options.isKept(connection) && !options.mayOpen())
        throw new UpstreamError({ kind: 'local', cause: 'draining' });
      keep(place, connection, waiters.length === 0);
    } catch (failure) {
      places.drop(place);
      lastFailure = { at: clock.monotonic(), error: failure };
      if (uses.busy + uses.idle > 0) {
        openAgainAt = clock.monotonic() + TRY_AGAIN_MS;
        clock.after(TRY_AGAIN_MS, serve);
        return;
      }
      const first = waiters.shift();
      first?.stop();
      first?.reject(failure);
    }
  }

  function wait(since: number): Promise<Lease> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        since,
        resolve,
        reject,
        stop: clock.after(since + options.acquireTimeoutMs - clock.monotonic(), () => {
          const at = waiters.indexOf(waiter);
          if (at >= 0) waiters.splice(at, 1);
          // Not merely busy: another connection was tried for, and why there is none is the better answer.
          const known = lastFailure !== undefined && lastFailure.at >= since ? lastFailure.error : undefined;
          reject(known ?? new UpstreamError({ kind: 'local', cause: 'acquire_timeout' }));
        }),
      };
      waiters.push(waiter);
      serve();
    });
  }

  async function acquire(since = clock.monotonic()): Promise<Lease> {
    if (closing) throw notServed();
    const isFree = waiters.length === 0 && free() > 0;
    if (isFree && !places.isSorting && places.idle > 0) {
      const lease = await takeIdle();
      if (lease !== undefined) return lease;
    }
    return wait(since);
  }

  let sweepScheduled = false;
  function sweepSoon(replace: boolean): void {
    if (sweepScheduled || closing) return;
    sweepScheduled = true;
    // After whoever waits has been served.
    queueMicrotask(() => {
      sweepScheduled = false;
      if (!closing) void sweep().then(() => (replace ? topUp() : undefined));
    });
  }

  async function sweep(usable: Usable = 'now'): Promise<void> {
    let room = mailbox.roomFor(sharer) - uses.busy - handing - opening.size;
    await places.sweep((connection) => isUsable(connection, usable) && room-- > 0);
  }

  /** Connections that will still be usable in a while, with those being opened. */
  function promising(): number {
    const good = uses.all('idle').filter((connection) => isUsable(connection, 'in a while'));
    return opening.size + good.length + uses.busy + handing;
  }

  /** Opens what is missing, one a turn. Until its turn comes it has nothing that a message could use. */
  async function fill(count: () => number): Promise<void> {
    const missing = (): number =>
      closing || !options.mayOpen() ? 0 : Math.min(count(), limits().maxConnections) - promising();
    for (let left = missing(); left > 0; left--)
      await inBackground(async () => {
        if (missing() <= 0) return;
        // Where the limit leaves no room for a replacement beside it, the old one goes first.
        if (places.size >= mailbox.roomFor(sharer)) await sweep('in a while');
        if (makeRoom()) await openOne();
      });
  }

  let toppingUp: Promise<void> | undefined;
  function topUp(): Promise<void> {
    toppingUp ??= fill(() => (options.isKeptWarm?.() === false ? 0 : limits().minConnections)).finally(() => {
      toppingUp = undefined;
    });
    return toppingUp;
  }

  return {
    acquire,

    async warm(count) {
      await fill(() => count);
      await Promise.all(opening);
    },

    maintain() {
      if (closing) return;
      serve();
      const isStale = uses.all('idle').some((connection) => !isUsable(connection));
      void (isStale || isOver() ? sweep() : Promise.resolve()).then(topUp);
    },

    get counts() {
      const { busy, idle } = uses;
      return { size: places.size, idle, busy: busy + handing, max: limits().maxConnections };
    },

    get live() {
      return uses.idle + uses.busy;
    },

    get isCrowdedOut() {
      return places.size === 0 && mailbox.roomFor(sharer) <= 0;
    },

    get isEmpty() {
      return places.size + handing + opening.size + leaving.size + waiters.length === 0;
    },

    async close() {
      if (!closing) {
        closing = true;
        stopKeeping();
        for (const waiter of waiters.splice(0)) {
          waiter.stop();
          waiter.reject(notServed());
        }
        await new Promise<void>((resolve) => {
          whenEmpty = resolve;
          serve();
        });
      }
      await places.close();
      serve();
      await Promise.all(leaving.values());
      mailbox.leave(sharer);
    },

    cut() {
      for (const connection of [...uses.all('busy'), ...leaving.keys()]) connection.destroy();
    },
  };
}
