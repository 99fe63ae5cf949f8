/**
 * A relay's share of a mailbox's limits while Redis is away, such that all shares together never exceed the
 * limit: not later, and not in the first moments either, when the others may still send what they were
 * granted before. Pure: times are arguments.
 */

import { MISSING_AFTER_MS } from '../protocol/vocabulary.ts';
import type { Reservation } from '../relay/limits.ts';
import { type MailboxCounts, type MailboxLimits, WINDOW_MS } from '../relay/mailbox-counts.ts';

/** What a relay that was killed held is free after this, ms. */
export const LEASE_MS = 12_000;
/** Who waits for a place asks again after this, where nobody woke him, ms. */
export const ASK_AGAIN_MS = 100;
/** So long after Redis was lost a minute may hold what went before by others, ms; as long as a lease some of it was under way. */
export const BEFORE_MS = WINDOW_MS + LEASE_MS;
const AWAY: Refused = { granted: false, limit: 'away', retryAfterMs: 30_000 };
const DAY_FULL: Refused = { granted: false, limit: 'day', retryAfterMs: 15 * 60_000 };
export const BUSY: Refused = { granted: false, limit: 'busy', retryAfterMs: ASK_AGAIN_MS };

export type Refused = Extract<Reservation, { granted: false }>;

export interface Apart {
  /** Monotonic ms. */
  readonly now: number;
  /** ms since the epoch. */
  readonly wall: number;
  /** When Redis was lost, monotonic ms. */
  readonly lostAt: number;
  /** Relays seen last, at least 1. */
  readonly relays: number;
  readonly share: (limit: number) => number;
}

/** One relay's part of `limit`: rounded down, at least one, except where that adds up to more; then only the first have one. */
export function shareOf(limit: number, relays: number, rank: number): number {
  const part = Math.floor(limit / relays);
  return part > 0 ? part : rank < limit ? 1 : 0;
}

/** The wait for a place within the share, ms, or why there is none. */
export function withinShare(
  counts: MailboxCounts,
  limits: MailboxLimits,
  maxWaitMs: number,
  apart: Apart,
): number | Refused {
  const { now, wall, lostAt, relays, share } = apart;
  const isAlone = relays === 1;
  const seen = counts.lastSeen;
  const part = share(limits.atOnce);
  if (part === 0) return AWAY;
  /** What is left of a day for this relay. */
  const isLeft = (kind: 'm' | 'r', most: number | undefined, used: number | undefined): boolean => {
    if (most === undefined) return true;
    if (used === undefined || isAlone) return counts.ofDay(kind, wall) < share(most);
    return counts.daySinceLoss(kind) < Math.floor((most - used) / relays);
  };
  if (!isLeft('m', limits.perDay, seen?.day) || !isLeft('r', limits.recipientsPerDay, seen?.recipients))
    return DAY_FULL;
  // The others may still hold what they held when Redis went away.
  const most = isAlone || now - lostAt >= LEASE_MS ? part : Math.min(part, counts.heldAtLoss);
  if (counts.held.size >= most) return BUSY;
  if (limits.perMinute === undefined) return 0;
  return minuteWithinShare(limits.perMinute, maxWaitMs, apart, {
    atLoss: counts.minuteAtLoss,
    waitFor: (most) => counts.minuteWait(most, now),
  });
}

/** What this relay did of a minute. */
export interface OwnMinute {
  /** Messages when Redis was lost. */
  readonly atLoss: number;
  /** How long one more must wait so that there are no more than `most`, ms. */
  readonly waitFor: (most: number) => number;
}

/**
 * The wait for a place in the minute alone, ms, or why there is none. Until none of the others' messages that went
 * before the loss counts any more, a message may only follow one of this relay that does not: of all relays together
 * no minute then holds more than the last before the loss did.
 */
export function minuteWithinShare(
  perMinute: number,
  maxWaitMs: number,
  { now, lostAt, relays, share }: Pick<Apart, 'now' | 'lostAt' | 'relays' | 'share'>,
  own: OwnMinute,
): number | Refused {
  const most = share(perMinute);
  if (most === 0) return AWAY;
  let waitMs = own.waitFor(most);
  if (relays > 1 && now - lostAt < BEFORE_MS) {
    const following = Math.min(most, own.atLoss);
    const untilSure = lostAt + MISSING_AFTER_MS - now;
    const untilFree = following === 0 ? BEFORE_MS : Math.max(own.waitFor(following), untilSure);
    waitMs = Math.max(waitMs, Math.min(untilFree, lostAt + BEFORE_MS - now));
  }
  return waitMs > maxWaitMs ? { granted: false, limit: 'minute', retryAfterMs: waitMs } : waitMs;
}
