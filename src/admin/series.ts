/**
 * Messages per second by outcome and latency percentiles for the last minutes, second by second.
 * In: finished transactions. Out: points for the charts. Owns a ring of seconds; no timer.
 */
import { noOutcomes, type Outcome } from '../protocol/vocabulary.ts';
import { createSample, type Sample } from './sample.ts';
import type { SeriesPoint } from './shapes.ts';

export interface Series {
  add(outcome: Outcome, totalMs: number): void;
  /** The second before the one running now. */
  lastSecond(): SeriesPoint;
  /** All complete seconds kept, oldest first, gaps filled with zeros. */
  points(): readonly SeriesPoint[];
}

/** Latencies kept per second: more would not change a chart. */
const SAMPLES_PER_SECOND = 512;

const empty = (at: number): SeriesPoint => ({
  at_s: at,
  ...noOutcomes(),
  p50_ms: null,
  p95_ms: null,
  p99_ms: null,
});

/** Keeps `seconds` points; `now` in ms since the epoch. */
export function createSeries(seconds: number, now: () => number = Date.now): Series {
  const done = new Map<number, SeriesPoint>();
  const startedAt = Math.floor(now() / 1000);
  const sample: Sample = createSample(SAMPLES_PER_SECOND);
  let counts: Record<Outcome, number> | undefined;
  let second = startedAt;

  /** Closes the running second if the clock has left it. */
  const roll = (): number => {
    const current = Math.floor(now() / 1000);
    if (current === second) return current;
    if (counts !== undefined) {
      const [p50 = null, p95 = null, p99 = null] = sample.quantiles([0.5, 0.95, 0.99]);
      done.set(second, { ...empty(second), ...counts, p50_ms: p50, p95_ms: p95, p99_ms: p99 });
      counts = undefined;
      sample.clear();
    }
    for (const at of done.keys()) {
      if (at >= current - seconds) break;
      done.delete(at);
    }
    second = current;
    return current;
  };

  return {
    add: (outcome, totalMs) => {
      roll();
      counts ??= noOutcomes();
      counts[outcome]++;
      sample.add(totalMs);
    },
    lastSecond: () => {
      const at = roll() - 1;
      return done.get(at) ?? empty(at);
    },
    points: () => {
      const current = roll();
      const points: SeriesPoint[] = [];
      for (let at = Math.max(startedAt, current - seconds); at < current; at++) {
        points.push(done.get(at) ?? empty(at));
      }
      return points;
    },
  };
}
