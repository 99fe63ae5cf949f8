/**
 * Growing delay for those who guess passwords. In: who failed and when. Out: until when they are not
 * listened to. Pure but for its table; time is an argument.
 */

/** Wrong passwords that cost nothing: a person mistyping. */
const FREE_FAILURES = 3;
/** The first delay; each further failure doubles it. */
const FIRST_DELAY_MS = 1_000;
/** Long enough to make guessing hopeless (96 a day), short enough to wait out after a mended setting. */
const MAX_DELAY_MS = 900_000;
/** Without a failure for so long, all is forgotten. */
const FORGET_MS = 3_600_000;
/** Rows kept; beyond it the oldest goes. */
const MAX_ROWS = 10_000;

export interface Lockout {
  /** End of the delay for `key`, ms since the epoch; undefined where there is none. */
  lockedUntil(key: string, now: number): number | undefined;
  failed(key: string, now: number): void;
  succeeded(key: string): void;
}

export function createLockout(): Lockout {
  const rows = new Map<string, { failures: number; until: number; last: number }>();
  return {
    lockedUntil(key, now) {
      const row = rows.get(key);
      return row !== undefined && row.until > now ? row.until : undefined;
    },
    failed(key, now) {
      const known = rows.get(key);
      const failures = known !== undefined && now - known.last < FORGET_MS ? known.failures + 1 : 1;
      const delay = failures <= FREE_FAILURES ? 0 : FIRST_DELAY_MS * 2 ** (failures - FREE_FAILURES - 1);
      // Set again so that the map's order is the order of last failure.
      rows.delete(key);
      rows.set(key, { failures, until: now + Math.min(delay, MAX_DELAY_MS), last: now });
      if (rows.size > MAX_ROWS) {
        const oldest = rows.keys().next();
        if (!oldest.done) rows.delete(oldest.value);
      }
    },
    succeeded(key) {
      rows.delete(key);
    },
  };
}

/** One row per IPv4 address or IPv6 /64: a customer of IPv6 has 2^64 addresses to guess from. */
export function lockoutKey(address: string): string {
  if (!address.includes(':')) return address;
  const [head = '', tail] = address.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups =
    tail === undefined
      ? left
      : [...left, ...Array(Math.max(0, 8 - left.length - right.length)).fill('0'), ...right];
  return `${groups.slice(0, 4).join(':')}::/64`;
}
