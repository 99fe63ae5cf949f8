/**
 * Histograms of what every message brings, five values each: a library that finds the labels anew at each value, and
 * each bucket by the text of its bound, costs as much as the message's log line. In: values. Out: samples.
 */
import { orMake } from '../or-make.ts';
import { head, sample } from './exposition.ts';

export interface Histogram {
  /** `labels` as `label` writes them, joined by commas. The observer is kept by whoever has values for it. */
  of(labels: string): (value: number) => void;
  parts(): Iterable<string>;
}

/** `bounds`: greatest value of each bucket, ascending, without the infinite one. */
export function createHistogram(name: string, help: string, bounds: readonly number[]): Histogram {
  const series = new Map<string, { sum: number; readonly counts: number[] }>();
  const les = [...bounds, '+Inf'].map((bound) => `le="${bound}",`);
  return {
    of(labels) {
      const one = orMake(series, labels, () => ({ sum: 0, counts: les.map(() => 0) }));
      return (value) => {
        let bucket = 0;
        while (bucket < bounds.length && value > (bounds[bucket] as number)) bucket++;
        one.counts[bucket] = (one.counts[bucket] as number) + 1;
        one.sum += value;
      };
    },
    *parts() {
      yield head(name, 'histogram', help);
      for (const [labels, { sum, counts }] of series) {
        let upTo = 0;
        for (const [i, le] of les.entries()) {
          upTo += counts[i] as number;
          yield sample(`${name}_bucket`, le + labels, upTo);
        }
        yield sample(`${name}_sum`, labels, sum) + sample(`${name}_count`, labels, upTo);
      }
      yield '\n';
    },
  };
}
