/**
 * The limits of a mailbox, held over all relays that share a Redis. In: a request for a place. Out: the
 * place, or when to ask again. One script a message; giving back waits for nobody. While Redis is away each
 * relay keeps to its share, measured against what it knows the others may have sent; when Redis is back it
 * registers what it did before anything new is admitted. Owns what was counted and who waits.
 */
import { type Clock, pause, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { type RedisConnection, RedisUnavailable } from '../redis.ts';
import type { Claimed, Limiter, Place, Reservation } from '../relay/limits.ts';
import type { MailboxLimits } from '../relay/mailbox-counts.ts';
import { type AccountBook, call, createAccountBook, doze, inTurn } from './account-book.ts';
import { type Membership, SETTLE_MS } from './membership.ts';
import { createRedisLimits } from './redis-limits.ts';
import { ASK_AGAIN_MS, type Refused, shareOf, withinShare } from './share.ts';
import { createSharedPlace } from './shared-place.ts';

const EXTEND_EVERY_MS = 4_000;
/** Who stands in the queue asks again after this without being called, ms. */
const CALLED_LATE_MS = 400;
/** A client that dawdles between MAIL and the end of its message keeps no place at once longer than about this, ms. */
const PARK_AFTER_MS = 3_000;
const NO_LIMITS = { perMinute: undefined, perDay: undefined, recipientsPerDay: undefined };

/** What happens to mail while Redis is away: `share` of the limit, or `defer`. */
export type WithoutRedis = 'share' | 'defer';

export interface SharedLimits extends Limiter {
  /** A place now or at most `maxWaitMs` later, first come first served within a relay and nearly so among them. Never rejects. */
  reserve(accountId: string, limits: MailboxLimits, maxWaitMs: number): Promise<Reservation>;
  /** How long a login must wait to keep its distance, ms; undefined where longer than `maxWaitMs`. Never rejects. */
  login(accountId: string, intervalMs: number, maxWaitMs: number): Promise<number | undefined>;
  /** Redis does not decide now. */
  readonly isApart: boolean;
  /** This relay's part of a limit now. */
  share(limit: number): number;
  close(): Promise<void>;
}

export interface SharedLimitsDeps {
  readonly redis: RedisConnection;
  readonly membership: Membership;
  readonly log: Log;
  readonly clock?: Clock;
  readonly random?: () => number;
}

export interface SharedLimitsOptions {
  /** First part of every key. Default `xoauth2-relay`. */
  readonly prefix?: string;
  readonly withoutRedis?: WithoutRedis;
}

export function createSharedLimits(deps: SharedLimitsDeps, options: SharedLimitsOptions = {}): SharedLimits {
  const { redis, membership, log, clock = systemClock, random = Math.random } = deps;
  const store = createRedisLimits({ redis, clock }, options);
  const withoutRedis = options.withoutRedis ?? 'share';
  const books = new Map<string, AccountBook>();
  /** `shared`: Redis decides. `away`: the share decides. `settling`: both must grant. */
  let mode: 'shared' | 'away' | 'settling' = 'away';
  let lostAt = clock.monotonic();
  let epoch: string | undefined;
  /** Granted, and nothing has begun upstream yet: monotonic ms. */
  const unclaimed = new Map<string, { readonly book: AccountBook; readonly since: number }>();
  let nextId = 0;
  let cancelSettling: (() => void) | undefined;
  let isClosed = false;

  function bookOf(id: string): AccountBook {
    let book = books.get(id);
    if (book === undefined) {
      book = createAccountBook(id);
      book.counts.lost(clock.monotonic());
      books.set(id, book);
    }
    return book;
  }

  function forget(id: string): void {
    books.delete(id);
    store.forget(id);
  }

  function lose(): void {
    cancelSettling?.();
    cancelSettling = undefined;
    if (mode === 'shared') {
      lostAt = clock.monotonic();
      for (const book of books.values()) {
        book.counts.lost(lostAt);
        book.stands = false;
      }
      log.warn(
        { event: 'shared_limits_away', relays: membership.relays, policy: withoutRedis },
        withoutRedis === 'share'
          ? 'Redis is away: this relay keeps to its share of every limit'
          : 'Redis is away: mail is deferred until it is back',
      );
    }
    mode = 'away';
  }

  /** Redis answers: it hears what was done without it, and decides again once everybody had time to say so. */
  async function find(of: string): Promise<void> {
    if (isClosed || (mode !== 'away' && of === epoch)) return;
    lose();
    epoch = of;
    mode = 'settling';
    await registerAll();
    if (mode !== 'settling') return;
    cancelSettling?.();
    // Alone, nobody else's places need to be waited for.
    cancelSettling = clock.after(membership.relays > 1 || membership.justJoined ? SETTLE_MS : 0, () => {
      if (mode !== 'settling') return;
      mode = 'shared';
      log.info({ event: 'shared_limits', relays: membership.relays }, 'limits are shared through Redis');
      for (const book of books.values()) book.wake?.();
    });
  }

  async function registerAll(): Promise<void> {
    for (const book of books.values()) await register(book);
  }

  async function register(book: AccountBook): Promise<void> {
    if (epoch === undefined) return;
    const args = book.counts.takeUnknown(clock.monotonic(), clock.now(), epoch);
    if (args === undefined) return;
    await store.register(book.id, args).catch(() => lose());
  }

  membership.onEpoch((now) => void find(now));
  redis.onAway((away) => {
    if (away) lose();
  });
  store.onFreed((accountId) => {
    const book = books.get(accountId);
    if (book !== undefined) call(book);
  });

  const share = (limit: number): number =>
    withoutRedis === 'defer' ? 0 : shareOf(limit, membership.relays, membership.rank);

  const shareWait = (book: AccountBook, limits: MailboxLimits, maxWaitMs: number): number | Refused =>
    withinShare(book.counts, limits, maxWaitMs, {
      now: clock.monotonic(),
      wall: clock.now(),
      lostAt,
      relays: membership.relays,
      share,
    });

  function askLocally(book: AccountBook, limits: MailboxLimits, maxWaitMs: number): Reservation {
    const waitMs = shareWait(book, limits, maxWaitMs);
    if (typeof waitMs !== 'number') return waitMs;
    const id = `${redis.instance}:${nextId++}`;
    book.counts.begin(id, limits, clock.monotonic() + waitMs, clock.now(), undefined);
    return { granted: true, place: placeOf(book, limits, id, waitMs) };
  }

  async function askRedis(
    book: AccountBook,
    limits: MailboxLimits,
    maxWaitMs: number,
  ): Promise<Reservation | 'again'> {
    const of = epoch ?? '';
    const id = `${redis.instance}:${nextId++}`;
    const sentAt = clock.monotonic();
    const queues = book.turns.length > 0 ? 'more' : maxWaitMs > 0 || book.stands ? 'busy' : 'never';
    book.isCalled = false;
    const [what, ms, , minute, day, , stands] = await store.reserve(book.id, limits, {
      id,
      maxWaitMs,
      epoch: of,
      queues,
    });
    book.stands = stands === 1;
    if (what === 'epoch') {
      lose();
      membership.beat();
      return 'again';
    }
    const isGranted = what === 'granted';
    book.counts.lastSeen = {
      at: sentAt,
      minute: minute + (isGranted ? 1 : 0),
      day: day + (isGranted ? 1 : 0),
    };
    if (!isGranted) return { granted: false, limit: what, retryAfterMs: what === 'busy' ? ASK_AGAIN_MS : ms };
    book.counts.begin(id, limits, clock.monotonic() + ms, clock.now(), of);
    return { granted: true, place: placeOf(book, limits, id, ms) };
  }

  function placeOf(book: AccountBook, limits: MailboxLimits, id: string, waitMs: number): Place {
    const { perMinute } = limits;
    unclaimed.set(id, { book, since: clock.monotonic() + waitMs });
    return createSharedPlace(
      {
        clock,
        keepLease: () => unclaimed.delete(id),
        takeBack: (maxWaitMs) => reserve(book.id, { ...NO_LIMITS, atOnce: limits.atOnce }, maxWaitMs),
        countsAnew: () => perMinute !== undefined && mode === 'shared',
        startLate: (maxWaitMs) => startLate(book, id, perMinute ?? 0, maxWaitMs),
        onEnd({ unsent, recipients }) {
          unclaimed.delete(id);
          const isTold = mode !== 'away';
          book.counts.end(id, limits, clock.now(), unsent, recipients, isTold ? epoch : undefined);
          // Who waits here asks with what is given back.
          if (isTold) giveBack(book, id, unsent, limits.recipientsPerDay === undefined ? 0 : recipients);
          book.wake?.();
        },
      },
      waitMs,
    );
  }

  const giveBack = (book: AccountBook, id: string, unsent: boolean, recipients: number): void =>
    store.giveBack(book.id, id, unsent, recipients, book.wake !== undefined);

  async function startLate(
    book: AccountBook,
    id: string,
    perMinute: number,
    maxWaitMs: number,
  ): Promise<Claimed> {
    try {
      const { granted, ms } = await store.startLate(book.id, id, perMinute, maxWaitMs);
      if (!granted) return { granted: false, limit: 'minute', retryAfterMs: ms };
      book.counts.move(id, clock.monotonic() + ms, epoch);
      if (ms > 0) await pause(clock, ms);
    } catch {
      // It stays where it was counted.
      lose();
    }
    return { granted: true };
  }

  /** Frees the place at once of clients that let it wait; the message takes another when it comes. */
  function park(): void {
    const now = clock.monotonic();
    for (const [id, { book, since }] of unclaimed) {
      if (now - since < PARK_AFTER_MS) continue;
      unclaimed.delete(id);
      book.counts.park(id);
      if (mode !== 'away') giveBack(book, id, false, 0);
      book.wake?.();
    }
  }

  /** Whoever stands in the queue is woken; the call may be lost, or a place come free without one. */
  const again = (): number => (mode === 'shared' ? CALLED_LATE_MS : ASK_AGAIN_MS) * (0.5 + random() / 2);

  async function ask(book: AccountBook, limits: MailboxLimits, deadline: number): Promise<Reservation> {
    for (;;) {
      let left = Math.max(0, deadline - clock.monotonic());
      if (mode === 'shared' && book.stands && !book.isCalled && left > 0) {
        await doze(clock, book, Math.min(left, again()));
        left = Math.max(0, deadline - clock.monotonic());
      }
      let result: Reservation | 'again';
      // Just back, Redis may not know yet what the others do: both must grant.
      const share = mode === 'settling' ? shareWait(book, limits, left) : 0;
      if (typeof share !== 'number') result = share;
      else if (share > 0) result = { granted: false, limit: 'minute', retryAfterMs: share };
      else if (mode !== 'away') {
        result = await askRedis(book, limits, left).catch((error: unknown) => {
          if (!(error instanceof RedisUnavailable))
            log.error({ err: error, account: book.id }, 'a shared limit could not be asked for');
          lose();
          return 'again' as const;
        });
      } else result = askLocally(book, limits, left);
      if (result === 'again') continue;
      // Apart from the others a place may come free earlier than it seems: Redis may be back.
      if (result.granted) return result;
      const isWorthWaiting =
        result.limit === 'busy' ||
        (result.limit === 'minute' && mode !== 'shared' && result.retryAfterMs <= left) ||
        (result.limit === 'away' && mode === 'settling');
      if (!isWorthWaiting || left === 0 || isClosed) return result;
      // Who stands in the queue waits at the beginning of the next round.
      if (mode === 'shared' && book.stands) continue;
      await doze(clock, book, Math.min(left, result.limit === 'busy' ? again() : 1_000));
    }
  }

  const extending = every(clock, EXTEND_EVERY_MS, async () => {
    park();
    if (mode === 'away') return;
    const held: [string, string][] = [];
    for (const book of books.values()) {
      for (const id of book.counts.held) held.push([book.id, id]);
      if (book.counts.isEmpty(clock.monotonic(), clock.now()) && !book.asking) forget(book.id);
    }
    await store.extend(held);
  });

  async function reserve(accountId: string, limits: MailboxLimits, maxWaitMs: number): Promise<Reservation> {
    const book = bookOf(accountId);
    const deadline = clock.monotonic() + maxWaitMs;
    const result = await inTurn(
      clock,
      book,
      deadline,
      () => ask(book, limits, deadline),
      () => {
        if (book.stands && mode !== 'away') store.leaveQueue(book.id);
        book.stands = false;
      },
    );
    return result ?? { granted: false, limit: 'busy', retryAfterMs: ASK_AGAIN_MS };
  }

  return {
    reserve,
    room(accountId, limits) {
      const counts = books.get(accountId)?.counts;
      // What was seen of the others is of all relays; apart there is only a share of each limit.
      const part = mode === 'shared' ? 1 : 1 / Math.max(1, membership.relays);
      return counts?.room(limits, clock.monotonic(), clock.now(), part) ?? 1;
    },
    async login(accountId, intervalMs, maxWaitMs) {
      const book = bookOf(accountId);
      const now = clock.monotonic();
      // Without Redis the relays' logins interleave: each keeps a distance that is longer by their number.
      const locally = (interval: number): number | undefined => {
        const at = Math.max(now, book.nextLogin);
        if (at - now > maxWaitMs) return undefined;
        book.nextLogin = at + interval;
        return at - now;
      };
      if (mode !== 'shared') return locally(intervalMs * membership.relays);
      try {
        const wait = await store.login(accountId, intervalMs, maxWaitMs);
        if (wait < 0) return undefined;
        book.nextLogin = clock.monotonic() + wait + intervalMs;
        return wait;
      } catch {
        lose();
        return locally(intervalMs * membership.relays);
      }
    },
    keepOnly(accountIds) {
      for (const [id, book] of books)
        if (!accountIds.has(id) && book.counts.held.size === 0 && !book.asking) forget(id);
    },
    get isApart() {
      return mode !== 'shared';
    },
    share: (limit) => (mode === 'shared' ? limit : share(limit)),
    async close() {
      isClosed = true;
      extending();
      cancelSettling?.();
      for (const book of books.values()) book.wake?.();
      await store.close();
    },
  };
}

/** Runs `task` every `ms`, never two at once; the result ends it. */
function every(clock: Clock, ms: number, task: () => Promise<void>): () => void {
  let cancel = clock.after(ms, tick);
  let isOver = false;
  function tick(): void {
    void task().finally(() => {
      if (!isOver) cancel = clock.after(ms, tick);
    });
  }
  return () => {
    isOver = true;
    cancel();
  };
}
