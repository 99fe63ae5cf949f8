/**
 * A relay's share of a mailbox's limits while Redis is away, such that all shares together never exceed the
 * limit: not later, and not in the first moments either, when the others may still send what they were
 * granted before. Pure: times are arguments.
 */

import type { Reservation } from '../relay/limits.ts';
import type { MailboxCounts, MailboxLimits } from '../relay/mailbox-counts.ts';

/** What a relay that was killed held is free after this, ms. */
export const LEASE_MS = 12_000;
/** Who waits for a place asks again after this, where nobody woke him, ms. */
export const ASK_AGAIN_MS = 100;
/** A sum of all relays older than this says nothing about now, ms. */
const FRESH_MS = 2_000;
const MINUTE_MS = 60_000;
const AWAY: Refused = { granted: false, limit: 'away', retryAfterMs: 30_000 };
const DAY_FULL: Refused = { granted: false, limit: 'day', retryAfterMs: 15 * MINUTE_MS };
const BUSY: Refused = { granted: false, limit: 'busy', retryAfterMs: ASK_AGAIN_MS };

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
  return limits.perMinute === undefined ? 0 : minuteWithinShare(counts, limits.perMinute, maxWaitMs, apart);
}

/** The wait for a place in the minute alone, ms, or why there is none. */
export function minuteWithinShare(
  counts: MailboxCounts,
  perMinute: number,
  maxWaitMs: number,
  { now, lostAt, relays, share }: Apart,
): number | Refused {
  const seen = counts.lastSeen;
  const mostAMinute = share(perMinute);
  if (mostAMinute === 0) return AWAY;
  let waitMs = counts.minuteWait(mostAMinute, now);
  if (relays > 1 && now - lostAt < MINUTE_MS) {
    const isKnown = seen !== undefined && lostAt - seen.at < FRESH_MS;
    const free = isKnown ? Math.floor((perMinute - seen.minute) / relays) : 0;
    if (counts.sentSinceLoss - counts.expiredSinceLoss(now) >= free)
      waitMs = Math.max(waitMs, Math.min(lostAt + MINUTE_MS, counts.leavesAt(0)) - now);
  }
  return waitMs > maxWaitMs ? { granted: false, limit: 'minute', retryAfterMs: waitMs } : waitMs;
}
