/**
 * The limits of a mailbox, held over all relays that share a Redis. In: a request for a place. Out: the
 * place, or when to ask again. One script a message; giving back waits for nobody. While Redis is away each
 * relay keeps to its share, measured against what it knows the others may have sent; when Redis is back it
 * registers what it did before anything new is admitted. Owns what was counted and who waits.
 */

import { type Clock, systemClock } from '../clock.ts';
import type { KeptPart } from '../kept-state.ts';
import type { Log } from '../log.ts';
import { orMake } from '../or-make.ts';
import { MISSING_AFTER_MS } from '../protocol/vocabulary.ts';
import type { RedisConnection } from '../redis.ts';
import type { Limiter, Place, Reservation } from '../relay/limits.ts';
import type { MailboxLimits } from '../relay/mailbox-counts.ts';
import { type AccountBook, call, createAccountBook, doze, inTurn } from './account-book.ts';
import { createContact, type WithoutRedis } from './contact.ts';
import { createKeptCounts } from './kept-counts.ts';
import { createLateStart } from './late-start.ts';
import { createLeases } from './leases.ts';
import type { Membership } from './membership.ts';
import { createRedisLimits, type Held, type PlaceEnd } from './redis-limits.ts';
import { type Apart, ASK_AGAIN_MS, BUSY, LEASE_MS, shareOf, withinShare } from './share.ts';
import { createSharedPlace } from './shared-place.ts';

/** Who stands in the queue asks again after this without being called, ms. */
const CALLED_LATE_MS = 400;
const NO_LIMITS = { perMinute: undefined, perDay: undefined, recipientsPerDay: undefined };

/** Mailboxes that are told to Redis at once when it is back. */
const TOLD_AT_ONCE = 50;

export interface SharedLimits extends Limiter {
  /** A place now or at most `maxWaitMs` later, first come first served within a relay and nearly so among them. Never rejects. */
  reserve(...asked: Parameters<Limiter['reserve']>): Promise<Reservation>;
  /** How long a login must wait to keep its distance, ms; undefined where longer than `maxWaitMs`. Never rejects. */
  login(mailboxId: string, intervalMs: number, maxWaitMs: number): Promise<number | undefined>;
  /** Redis does not decide now. */
  readonly isApart: boolean;
  /** What was counted, for the time in which Redis may be away when the relay starts again. */
  readonly kept: KeptPart;
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
  const earlier = createKeptCounts({ teller: redis.instance, clock });
  const books = new Map<string, AccountBook>();
  let nextId = 0;
  let isClosed = false;
  const contact = createContact({
    redis,
    membership,
    log,
    clock,
    withoutRedis,
    tell: tellAll,
    onLost(at) {
      for (const book of books.values()) {
        book.counts.lost(at, at + MISSING_AFTER_MS);
        book.stands = false;
      }
    },
    onShared() {
      for (const book of books.values()) book.wake?.();
    },
  });

  const bookOf = (id: string): AccountBook =>
    orMake(books, id, () => {
      const book = createAccountBook(id);
      book.counts.lost(clock.monotonic(), clock.monotonic() + MISSING_AFTER_MS);
      return book;
    });

  function forget(id: string): void {
    books.delete(id);
    store.forget(id);
  }

  /** What is under way and of this minute first: the others wait for it. Rejects. */
  async function tellAll(isAll: boolean): Promise<void> {
    const recent = [...books.values()].filter(({ counts }) => counts.isRecent(clock.monotonic()));
    const first = new Set(recent);
    const others = [...books.values()].filter((book) => !first.has(book) && (isAll || book.isUntold));
    const tasks = [...recent, ...others].map((book) => () => register(book));
    if (isAll)
      for (const [teller, id, told] of earlier.all())
        tasks.push(() => store.register(id, told, clock.now(), teller));
    for (let i = 0; i < tasks.length; i += TOLD_AT_ONCE)
      await Promise.all(tasks.slice(i, i + TOLD_AT_ONCE).map((task) => task()));
  }

  async function register(book: AccountBook): Promise<void> {
    book.isUntold = false;
    try {
      await store.register(book.id, book.counts.told(clock.monotonic(), clock.now()), clock.now());
    } catch (error) {
      book.isUntold = true;
      throw error;
    }
  }

  store.onFreed((mailboxId) => {
    const book = books.get(mailboxId);
    if (book !== undefined) call(book);
  });
  store.onUntold((mailboxId) => {
    const book = books.get(mailboxId);
    if (book !== undefined) book.isUntold = true;
  });

  const share = (limit: number): number =>
    withoutRedis === 'defer' ? 0 : shareOf(limit, membership.relays, membership.rank);

  const apart = (): Apart => ({
    now: clock.monotonic(),
    wall: clock.now(),
    lostAt: contact.lostAt,
    relays: membership.relays,
    share,
  });

  function askLocally(book: AccountBook, limitsNow: () => MailboxLimits, maxWaitMs: number): Reservation {
    const limits = limitsNow();
    const waitMs = withinShare(book.counts, limits, maxWaitMs, apart());
    if (typeof waitMs !== 'number') return waitMs;
    const id = `${redis.instance}:${nextId++}`;
    book.isUntold = true;
    book.counts.begin(id, limits, clock.monotonic() + waitMs, clock.now());
    return { granted: true, place: placeOf(book, { limits, limitsNow }, id, undefined, waitMs) };
  }

  /** Whether Redis does now what it refused. Rejects. */
  async function tryAgain(book: AccountBook, limits: MailboxLimits): Promise<void> {
    const id = `${redis.instance}:${nextId++}`;
    const request = { id, maxWaitMs: 0, epoch: contact.epoch, queues: 'never' } as const;
    const [what] = await store.reserve(book.id, limits, request);
    if (what === 'granted') store.giveBack(book.id, id, 'unsent', 0, false);
  }

  async function askRedis(
    book: AccountBook,
    limitsNow: () => MailboxLimits,
    maxWaitMs: number,
  ): Promise<Reservation | 'again'> {
    const limits = limitsNow();
    const id = `${redis.instance}:${nextId++}`;
    const sentAt = clock.monotonic();
    const queues = book.turns.length > 0 ? 'more' : maxWaitMs > 0 || book.stands ? 'busy' : 'never';
    book.isCalled = false;
    const [what, ms, , minute, day, , stands, recipients] = await store.reserve(book.id, limits, {
      id,
      maxWaitMs,
      epoch: contact.epoch,
      queues,
    });
    book.stands = stands === 1;
    if (what === 'epoch') {
      contact.lose();
      membership.beat();
      return 'again';
    }
    const isGranted = what === 'granted';
    book.counts.lastSeen = {
      at: sentAt,
      minute: minute + (isGranted ? 1 : 0),
      day: day + (isGranted ? 1 : 0),
      recipients,
    };
    if (what === 'busy') return BUSY;
    if (!isGranted) return { granted: false, limit: what, retryAfterMs: ms };
    book.counts.begin(id, limits, clock.monotonic() + ms, clock.now());
    return { granted: true, place: placeOf(book, { limits, limitsNow }, id, sentAt, ms) };
  }

  function placeOf(
    book: AccountBook,
    { limits, limitsNow }: { readonly limits: MailboxLimits; readonly limitsNow: () => MailboxLimits },
    id: string,
    askedAt: number | undefined,
    waitMs: number,
  ): Place {
    const { perMinute } = limits;
    leases.granted(book.id, id, askedAt, waitMs);
    return createSharedPlace(
      {
        clock,
        keepLease: () => leases.claim(id),
        takeBack: (maxWaitMs) =>
          reserve(book.id, () => ({ ...NO_LIMITS, atOnce: limitsNow().atOnce }), maxWaitMs),
        countsAnew: () => perMinute !== undefined,
        startLate: (maxWaitMs) => startLate(book, id, perMinute ?? 0, maxWaitMs),
        onBegin: () => book.counts.started(id),
        onEnd(result) {
          const { unsent, recipients } = result;
          leases.end(id);
          book.counts.end(id, limits, clock.monotonic(), clock.now(), result);
          if (contact.mode === 'away') book.isUntold = true;
          // Who waits here asks with what is given back.
          giveBack(
            book,
            id,
            unsent ? 'unsent' : 'over',
            limits.recipientsPerDay === undefined ? 0 : recipients,
          );
          book.wake?.();
        },
      },
      waitMs,
    );
  }

  function giveBack(book: AccountBook, id: string, as: PlaceEnd, recipients: number): void {
    if (contact.mode !== 'away') store.giveBack(book.id, id, as, recipients, book.wake !== undefined);
    // Later there is nothing that Redis has not ended by itself.
    else if (clock.monotonic() - contact.lostAt < LEASE_MS) store.giveBackLater(book.id, id, as);
  }

  const startLate = createLateStart({ clock, store, contact, apart });

  const leases = createLeases({
    clock,
    held(isWaiting) {
      if (contact.mode === 'away') return undefined;
      const held: Held[] = [];
      for (const { id: mailboxId, counts, asking } of books.values()) {
        for (const id of counts.held) held.push({ mailboxId, id, as: isWaiting(id) ? 'waiting' : 'begun' });
        for (const id of counts.parkedUnderWay()) held.push({ mailboxId, id, as: 'counted' });
        if (counts.isEmpty(clock.monotonic(), clock.now()) && !asking) forget(mailboxId);
      }
      return held;
    },
    extend: (held) =>
      store.extend(held).catch((error: unknown) => {
        contact.failed(error, () => store.extend(held.map((each) => ({ ...each, as: 'waiting' }))));
        return undefined;
      }),
    lend(mailboxId, id) {
      const book = bookOf(mailboxId);
      book.counts.park(id);
      giveBack(book, id, 'lent', 0);
      book.wake?.();
    },
  });

  /** Whoever stands in the queue is woken; the call may be lost, or a place come free without one. */
  const again = (): number =>
    (contact.mode === 'shared' ? CALLED_LATE_MS : ASK_AGAIN_MS) * (0.5 + random() / 2);

  async function ask(
    book: AccountBook,
    limitsNow: () => MailboxLimits,
    deadline: number,
    withdrawn: AbortSignal | undefined,
  ): Promise<Reservation> {
    for (;;) {
      let left = Math.max(0, deadline - clock.monotonic());
      if (contact.mode === 'shared' && book.stands && !book.isCalled && left > 0) {
        await doze(clock, book, Math.min(left, again()), withdrawn);
        left = Math.max(0, deadline - clock.monotonic());
      }
      if (withdrawn?.aborted === true) return BUSY;
      let result: Reservation | 'again';
      // Just back, Redis may not know yet what the others do: both must grant.
      const share = contact.mode === 'settling' ? withinShare(book.counts, limitsNow(), left, apart()) : 0;
      if (typeof share !== 'number') result = share;
      else if (share > 0) result = { granted: false, limit: 'minute', retryAfterMs: share };
      else if (contact.mode !== 'away') {
        result = await askRedis(book, limitsNow, left).catch((error: unknown) => {
          contact.failed(error, () => tryAgain(book, limitsNow()));
          return 'again' as const;
        });
      } else result = askLocally(book, limitsNow, left);
      if (result === 'again') continue;
      // Apart from the others a place may come free earlier than it seems: Redis may be back.
      if (result.granted) return result;
      // Redis decides alone in a moment, or may do.
      const isBrief =
        contact.mode === 'away'
          ? clock.monotonic() - contact.lostAt < MISSING_AFTER_MS
          : share !== 0 && contact.mode === 'settling';
      const isWorthWaiting =
        result.limit === 'busy' ||
        isBrief ||
        (result.limit === 'minute' && contact.mode !== 'shared' && result.retryAfterMs <= left);
      if (!isWorthWaiting || left === 0 || isClosed) return result;
      // Who stands in the queue waits at the beginning of the next round.
      if (contact.mode === 'shared' && book.stands) continue;
      await doze(clock, book, Math.min(left, result.limit === 'busy' ? again() : 1_000), withdrawn);
    }
  }

  const reserve: SharedLimits['reserve'] = async (mailboxId, limits, maxWaitMs, withdrawn) => {
    const book = bookOf(mailboxId);
    const deadline = clock.monotonic() + maxWaitMs;
    const result = await inTurn(
      clock,
      book,
      deadline,
      withdrawn,
      () => ask(book, limits, deadline, withdrawn),
      () => {
        if (book.stands && contact.mode !== 'away') store.leaveQueue(book.id);
        book.stands = false;
      },
    );
    return result ?? BUSY;
  };

  return {
    reserve,
    room(mailboxId, limits) {
      const counts = books.get(mailboxId)?.counts;
      // What was seen of the others is of all relays; apart there is only a share of each limit.
      const part = contact.mode === 'shared' ? 1 : 1 / Math.max(1, membership.relays);
      return counts?.room(limits, clock.monotonic(), clock.now(), part) ?? 1;
    },
    async login(mailboxId, intervalMs, maxWaitMs) {
      const book = bookOf(mailboxId);
      const now = clock.monotonic();
      // Without Redis the relays' logins interleave: each keeps a distance that is longer by their number.
      const locally = (interval: number): number | undefined => {
        const at = Math.max(now, book.nextLogin);
        if (at - now > maxWaitMs) return undefined;
        book.nextLogin = at + interval;
        return at - now;
      };
      if (contact.mode !== 'shared') return locally(intervalMs * membership.relays);
      try {
        const wait = await store.login(mailboxId, intervalMs, maxWaitMs);
        if (wait < 0) return undefined;
        book.nextLogin = clock.monotonic() + wait + intervalMs;
        return wait;
      } catch (error) {
        contact.failed(error, () => store.login(mailboxId, 1, 0));
        return locally(intervalMs * membership.relays);
      }
    },
    // Taken out and put back, a mailbox has sent what it has sent; what is empty goes by itself.
    keepOnly: () => undefined,
    get isApart() {
      return contact.mode !== 'shared';
    },
    kept: {
      snapshot() {
        const told = [...books.values()].map(
          ({ id, counts }) => [id, counts.told(clock.monotonic(), clock.now())] as const,
        );
        return earlier.snapshot(
          Object.fromEntries(
            told.filter(([, { sent, day }]) => sent.length > 0 || Object.keys(day).length > 0),
          ),
        );
      },
      restore(kept) {
        for (const [id, told] of earlier.restore(kept)) {
          const { counts } = bookOf(id);
          const sent = told.sent.map(([, ageMs]) => ageMs);
          counts.restore({ ...told, sent }, clock.monotonic(), clock.now());
          counts.lost(clock.monotonic(), clock.monotonic() + MISSING_AFTER_MS);
        }
      },
    },
    async close() {
      isClosed = true;
      leases.close();
      contact.close();
      for (const book of books.values()) book.wake?.();
      await store.close();
    },
  };
}
