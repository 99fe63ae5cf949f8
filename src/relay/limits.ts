/**
 * How much a mailbox may send: a sliding minute and a sliding day of messages, and a day of recipients. In:
 * a request for a place. Out: the place, or when to ask again. No reload forgets what was sent, whatever the mailbox's
 * accounts are called. This is the limiter of one relay alone; several that share a mailbox have
 * one of the same shape (src/fleet).
 */

import { type Clock, pause, systemClock } from '../clock.ts';
import { orMake } from '../or-make.ts';
import { isRecord } from '../protocol/json-object.ts';
import { type CountsSnapshot, isCount, isDay, MailboxCounts, type MailboxLimits } from './mailbox-counts.ts';

/** A message's place in the limits; ends once. */
export interface Place {
  /** Wait this long before sending, ms. */
  readonly waitMs: number;
  /** Now it begins upstream. A promise where its place has been given to others meanwhile, or does not stand for now: what became of it within `maxWaitMs`. */
  claim?(maxWaitMs: number): Promise<Claimed> | undefined;
  /** `recipients`: accepted by the provider. `unsent`: nothing went upstream, so it counts nothing. Idempotent. */
  end(result: { readonly unsent: boolean; readonly recipients: number }): void;
}

export interface NoPlace {
  readonly granted: false;
  /** `busy`: too many at once. `away`: what the relays share is gone and this one's part is used up. */
  readonly limit: 'minute' | 'day' | 'busy' | 'away';
  readonly retryAfterMs: number;
}

export type Claimed = { readonly granted: true } | NoPlace;

export type Reservation = { readonly granted: true; readonly place: Place } | NoPlace;

export interface Limiter {
  /** A place now or at most `maxWaitMs` later, in order of asking; `limits`: as they are by then. Who is `withdrawn` waits no more, and gives back what comes all the same. Never rejects. */
  reserve(
    mailbox: string,
    limits: () => MailboxLimits,
    maxWaitMs: number,
    withdrawn?: AbortSignal,
  ): Reservation | Promise<Reservation>;
  /** What is left of minute and day, from 0 to 1, where that is known without asking others. */
  room?(mailbox: string, limits: MailboxLimits): number;
  /** Forgets mailboxes that are gone. */
  keepOnly(wanted: Pick<ReadonlySet<string>, 'has'>): void;
}

/** What each mailbox has used, to be kept over a restart. */
export type LimitsSnapshot = Readonly<Record<string, CountsSnapshot>>;

export interface LocalLimiter extends Limiter {
  snapshot(): LimitsSnapshot;
  /** Adds what an earlier process has used; before the first message. Throws where it is no snapshot. */
  restore(snapshot: unknown): void;
}

const NO_PLACE: Place = { waitMs: 0, end: () => {} };

const isLimited = (limits: MailboxLimits): boolean =>
  limits.perMinute !== undefined || limits.perDay !== undefined || limits.recipientsPerDay !== undefined;

export function createLimiter(clock: Clock = systemClock): LocalLimiter {
  const mailboxes = new Map<string, MailboxCounts>();
  let places = 0;

  const countsOf = (mailbox: string): MailboxCounts => orMake(mailboxes, mailbox, () => new MailboxCounts());

  /** Waits for a minute with room for a message whose client took its time between MAIL and the rest. */
  async function begin(
    counts: MailboxCounts,
    id: string,
    most: number,
    first: number,
    maxWaitMs: number,
  ): Promise<Claimed> {
    const until = clock.monotonic() + maxWaitMs;
    for (let waitMs = first; waitMs > 0; waitMs = counts.start(id, most, clock.monotonic())) {
      if (clock.monotonic() + waitMs > until)
        return { granted: false, limit: 'minute', retryAfterMs: waitMs };
      await pause(clock, waitMs);
    }
    return { granted: true };
  }

  return {
    room: (mailbox, limits) => mailboxes.get(mailbox)?.room(limits, clock.monotonic(), clock.now()) ?? 1,
    reserve(mailbox, limitsNow, maxWaitMs) {
      const limits = limitsNow();
      if (!isLimited(limits)) return { granted: true, place: NO_PLACE };
      const counts = countsOf(mailbox);
      const now = clock.monotonic();
      const wall = clock.now();
      const fullDay = counts.fullDay(limits, wall);
      if (fullDay !== undefined) return { granted: false, limit: 'day', retryAfterMs: fullDay };
      const waitMs = limits.perMinute === undefined ? 0 : counts.minuteWait(limits.perMinute, now);
      if (waitMs > maxWaitMs) return { granted: false, limit: 'minute', retryAfterMs: waitMs };
      const id = `${places++}`;
      const { perMinute } = limits;
      counts.begin(id, limits, now + waitMs, wall);
      let isBegun = perMinute === undefined;
      return {
        granted: true,
        place: {
          waitMs,
          claim(maxWaitMs) {
            if (isBegun || perMinute === undefined) return undefined;
            const first = counts.start(id, perMinute, clock.monotonic());
            isBegun = first === 0;
            if (isBegun) return undefined;
            return begin(counts, id, perMinute, first, maxWaitMs).then((claimed) => {
              isBegun = claimed.granted;
              return claimed;
            });
          },
          end: (result) => counts.end(id, limits, clock.monotonic(), clock.now(), result),
        },
      };
    },
    keepOnly(wanted) {
      // Taken out and put back, a mailbox has sent what it has sent.
      for (const [mailbox, counts] of mailboxes)
        if (!wanted.has(mailbox) && counts.isEmpty(clock.monotonic(), clock.now())) mailboxes.delete(mailbox);
    },
    snapshot() {
      const all: Record<string, CountsSnapshot> = {};
      for (const [mailbox, counts] of mailboxes) {
        const taken = counts.snapshot(clock.monotonic(), clock.now());
        if (taken !== undefined) all[mailbox] = taken;
      }
      return all;
    },
    restore(snapshot) {
      for (const [mailbox, taken] of Object.entries(parseSnapshot(snapshot)))
        countsOf(mailbox).restore(taken, clock.monotonic(), clock.now());
    },
  };
}

function isSnapshot(value: unknown): value is CountsSnapshot {
  if (!isRecord(value)) return false;
  const { at, sent, day } = value;
  // An age below 0: it waited for its place.
  return isCount(at) && Array.isArray(sent) && sent.every((age) => typeof age === 'number') && isDay(day);
}

function parseSnapshot(value: unknown): LimitsSnapshot {
  if (!isRecord(value) || !Object.values(value).every(isSnapshot)) throw new Error('no counts');
  return value as LimitsSnapshot;
}
