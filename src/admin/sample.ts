/** A bounded random sample of numbers, for percentiles of any stream in constant memory. */

export interface Sample {
  add(value: number): void;
  /** Nearest-rank quantiles, `q` from 0 to 1; null where nothing was added. */
  quantiles(qs: readonly number[]): (number | null)[];
  /** Values added, kept or not. */
  readonly count: number;
  clear(): void;
}

/** Reservoir sampling: every value has the same chance to be among the `limit` kept. */
export function createSample(limit: number, random: () => number = Math.random): Sample {
  let kept: number[] = [];
  let count = 0;
  return {
    add: (value) => {
      count++;
      if (kept.length < limit) kept.push(value);
      else {
        const at = Math.floor(random() * count);
        if (at < limit) kept[at] = value;
      }
    },
    quantiles: (qs) => {
      const sorted = kept.toSorted((a, b) => a - b);
      return qs.map((q) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? null);
    },
    get count() {
      return count;
    },
    clear: () => {
      kept = [];
      count = 0;
    },
  };
}
