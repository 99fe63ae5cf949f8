/**
 * One log line every quarter of an hour with the figures of the time since the last one.
 * In: finished transactions. Out: a line at level info, `event: "summary"`. Owns its timer.
 */
import type { Log } from '../log.ts';
import { needsPerson, noOutcomes } from '../protocol/vocabulary.ts';
import type { TransactionRecord } from '../relay/record.ts';
import { createSlices } from '../slices.ts';
import type { AdminBackend } from './backend.ts';
import { createSample } from './sample.ts';
import type { TokenTotals } from './shapes.ts';

export interface Summary {
  record(record: TransactionRecord): void;
  /** Ends the timer. */
  close(): void;
}

/** Latencies kept between two lines. */
const SAMPLES = 4096;
/** Accounts named in the line; the rest are counted. */
const MAX_NAMED = 20;

/** A share to four digits, null of nothing. */
export const rate = (part: number, whole: number): number | null =>
  whole === 0 ? null : Math.round((part / whole) * 10_000) / 10_000;

/** `everyMs` 0 switches the line off. */
export function createSummary(
  deps: { readonly backend: Pick<AdminBackend, 'rows' | 'tokenTotals'>; readonly log: Log },
  options: { readonly everyMs: number },
): Summary {
  const sample = createSample(SAMPLES);
  let counts = noOutcomes();
  let bytes = 0;
  let before: TokenTotals = deps.backend.tokenTotals();

  const write = async (): Promise<void> => {
    const totals = deps.backend.tokenTotals();
    const hits = totals.cache_hits - before.cache_hits;
    const misses = totals.cache_misses - before.cache_misses;
    const attempts = totals.refresh_attempts - before.refresh_attempts;
    const success = totals.refresh_success - before.refresh_success;
    before = totals;
    const figures = { ...counts, bytes };
    const [p50 = null, p95 = null, p99 = null] = sample.quantiles([0.5, 0.95, 0.99]);
    sample.clear();
    bytes = 0;
    counts = noOutcomes();
    const slices = createSlices();
    const attention: string[] = [];
    let accounts = 0;
    for (const row of deps.backend.rows()) {
      accounts++;
      if (needsPerson(row.status)) attention.push(row.id);
      if (slices.isOver) await slices.rest();
    }
    deps.log.info(
      {
        event: 'summary',
        period_s: options.everyMs / 1000,
        ...figures,
        p50_ms: p50,
        p95_ms: p95,
        p99_ms: p99,
        cache_hit_rate: rate(hits, hits + misses),
        refresh_success_rate: rate(success, attempts),
        accounts,
        needing_attention: attention.length,
        attention: attention.slice(0, MAX_NAMED),
      },
      `summary: ${figures.relayed} relayed, ${figures.deferred} deferred, ${figures.rejected} rejected, ${attention.length} of ${accounts} accounts need attention`,
    );
  };

  const timer = options.everyMs > 0 ? setInterval(() => void write(), options.everyMs).unref() : undefined;
  return {
    record: (r) => {
      counts[r.outcome]++;
      bytes += r.bytes;
      sample.add(r.totalMs);
    },
    close: () => clearInterval(timer),
  };
}
