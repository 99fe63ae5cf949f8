/** A longer Retry-After is a mistake or an attack: nobody could mend it by waiting. */
const MAX_RETRY_AFTER_MS = 60 * 60_000;

/** `Retry-After` in ms, 0 to an hour; undefined where absent or nonsense (RFC 9110 §10.2.3). `now` (wall) is for a date. */
export function parseRetryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  const text = value.trim();
  const ms = /^\d{1,10}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  if (Number.isNaN(ms)) return undefined;
  return Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS);
}
