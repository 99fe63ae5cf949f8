/**
 * Growing delay for those who guess passwords. In: who tries and what came of it. Out: go on, wait for the
 * checks under way, or until when they are not listened to. A check counts from its start: what many try
 * at once is judged as if they tried one after the other. Pure but for its table; time is an argument.
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

/** Monotonic times, ms. */
export interface Lockout {
  /**
   * Begins a check for `key`: `go` (call `end` when it is decided), `wait` (ask again after the promise),
   * or `until` the end of a delay.
   */
  begin(
    key: string,
    now: number,
  ): { readonly go: true } | { readonly wait: Promise<void> } | { readonly until: number };
  /** `forgives`: a success clears what was wrong before, because the row is one account's. */
  end(key: string, now: number, isRight: boolean, forgives: boolean): void;
}

interface Row {
  failures: number;
  until: number;
  last: number;
  pending: number;
  waiting: (() => void)[];
}

export function createLockout(): Lockout {
  const rows = new Map<string, Row>();

  function rowOf(key: string, now: number): Row {
    const known = rows.get(key);
    if (known !== undefined) {
      if (now - known.last >= FORGET_MS) known.failures = 0;
      return known;
    }
    const fresh: Row = { failures: 0, until: 0, last: now, pending: 0, waiting: [] };
    rows.set(key, fresh);
    if (rows.size > MAX_ROWS) {
      for (const [oldest, { pending }] of rows) {
        if (pending > 0 || oldest === key) continue;
        rows.delete(oldest);
        break;
      }
    }
    return fresh;
  }

  return {
    begin(key, now) {
      const row = rowOf(key, now);
      if (row.until > now) return { until: row.until };
      if (row.pending > 0 && row.failures + row.pending >= FREE_FAILURES) {
        return { wait: new Promise((resolve) => row.waiting.push(resolve)) };
      }
      row.pending += 1;
      return { go: true };
    },
    end(key, now, isRight, forgives) {
      const row = rows.get(key);
      if (row === undefined) return;
      row.pending -= 1;
      if (!isRight) {
        row.failures += 1;
        row.last = now;
        const beyond = row.failures - FREE_FAILURES;
        if (beyond > 0) row.until = now + Math.min(FIRST_DELAY_MS * 2 ** (beyond - 1), MAX_DELAY_MS);
        // Set again so that the map's order is the order of last failure.
        rows.delete(key);
        rows.set(key, row);
      } else if (forgives) row.failures = 0;
      if (row.failures === 0 && row.pending === 0 && row.waiting.length === 0) rows.delete(key);
      for (const wake of row.waiting.splice(0)) wake();
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
