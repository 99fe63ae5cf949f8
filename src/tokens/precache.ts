/**
 * One round of fetching many tokens: bounded, pausing where the provider asks for it. In: entries
 * without a token. Out: counts; never a rejection. What is left over is the background refresh's.
 */

import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { TokenEntry } from './token-entry.ts';

export interface PrecacheResult {
  readonly accounts: number;
  /** Had a token already, in memory or in the store. */
  readonly cached: number;
  readonly fetched: number;
  readonly failed: number;
  readonly ms: number;
}

export interface PrecacheDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Fetches; never rejects. */
  readonly fetch: (entry: TokenEntry) => Promise<void>;
  readonly hasToken: (entry: TokenEntry) => boolean;
  /** No background request for the account before this, ms since the epoch. */
  readonly pausedUntil: (entry: TokenEntry) => number;
  readonly random: () => number;
}

/** Longest time a round waits for a provider that answers 429; the background goes on from there. */
const MAX_WAIT_MS = 60_000;
const PROGRESS_INTERVAL_MS = 1000;
/** After a pause the requests are spread over this part of it. */
const SPREAD = 0.1;

export async function runPrecache(
  deps: PrecacheDeps,
  entries: readonly TokenEntry[],
  bound: number,
): Promise<PrecacheResult> {
  const { clock, log } = deps;
  const begun = performance.now();
  const deadline = clock.now() + MAX_WAIT_MS;
  const queue = entries.filter((e) => !deps.hasToken(e));
  let cached = entries.length - queue.length;
  let fetched = 0;
  let failed = 0;
  let lastProgress = performance.now();
  let next = 0;

  function progress(): void {
    const now = performance.now();
    if (now - lastProgress < PROGRESS_INTERVAL_MS) return;
    lastProgress = now;
    const done = cached + fetched + failed;
    log.info({ event: 'precache_progress', done, failed, accounts: entries.length }, 'fetching tokens');
  }

  async function one(entry: TokenEntry): Promise<void> {
    for (;;) {
      const wait = deps.pausedUntil(entry) - clock.now();
      if (wait > 0) {
        if (clock.now() + wait > deadline) break;
        await new Promise<void>((resume) => clock.after(wait * (1 + SPREAD * deps.random()), resume));
        continue;
      }
      await deps.fetch(entry);
      if (deps.hasToken(entry)) {
        if (entry.origin === 'store') cached += 1;
        else fetched += 1;
        return;
      }
      if (entry.failure?.code !== 'throttled') break;
    }
    failed += 1;
  }

  async function worker(): Promise<void> {
    for (;;) {
      const entry = queue[next++];
      if (entry === undefined) return;
      await one(entry);
      progress();
    }
  }

  await Promise.all(Array.from({ length: Math.min(bound, queue.length) }, worker));
  return { accounts: entries.length, cached, fetched, failed, ms: Math.round(performance.now() - begun) };
}
