/**
 * Times as text, where one is written for every message. In: ms since the epoch. Out: text, of which the part that
 * stays the same for a while is made once.
 */

/** `make` of the start of the `unit` (ms) in which a time lies, made once while times lie in the same. */
export function onceIn<T>(unit: number, make: (start: number) => T): (at: number) => T {
  let last = Number.NaN;
  let made: T | undefined;
  return (at) => {
    const start = Math.floor(at / unit) * unit;
    if (start === last && made !== undefined) return made;
    made = make(start);
    last = start;
    return made;
  };
}

const isoToTheSecond = onceIn(1_000, (at) => new Date(at).toISOString().slice(0, -'000Z'.length));

/** ISO 8601 in UTC, to the ms: `2026-11-27T10:01:44.123Z`. Throws for no whole number, or beyond what a date can be. */
export const isoTime = (at: number): string =>
  `${isoToTheSecond(at)}${String(1_000 + (at - Math.floor(at / 1_000) * 1_000)).slice(1)}Z`;
