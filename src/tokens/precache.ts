/**
 * One round of fetching many tokens: bounded, pausing where the provider asks for it. In: slots
 * without a token. Out: counts; never a rejection. What is left over is the background refresh's.
 */

import { type Clock, pause } from '../clock.ts';
import { eventLoop } from '../event-loop.ts';
import type { Log } from '../log.ts';
import { eachAtOnce } from '../semaphore.ts';
import type { Slot } from './token-slot.ts';

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
  readonly fetch: (slot: Slot) => Promise<void>;
  readonly hasToken: (slot: Slot) => boolean;
  /** No background request for the account before this, monotonic ms. */
  readonly pausedUntil: (slot: Slot) => number;
  readonly random: () => number;
}

/** Longest time a round waits for a provider that answers 429; the background goes on from there. */
const MAX_WAIT_MS = 60_000;
const PROGRESS_INTERVAL_MS = 1000;
/** After a pause the requests are spread over this part of it. */
const SPREAD = 0.1;

export async function runPrecache(
  deps: PrecacheDeps,
  slots: readonly Slot[],
  bound: number,
): Promise<PrecacheResult> {
  const { clock, log } = deps;
  const begun = clock.monotonic();
  const deadline = clock.monotonic() + MAX_WAIT_MS;
  const queue = slots.filter((e) => !deps.hasToken(e));
  let cached = slots.length - queue.length;
  let fetched = 0;
  let failed = 0;
  let lastProgress = clock.monotonic();

  function progress(): void {
    const now = clock.monotonic();
    if (now - lastProgress < PROGRESS_INTERVAL_MS) return;
    lastProgress = now;
    const done = cached + fetched + failed;
    log.info({ event: 'precache_progress', done, failed, accounts: slots.length }, 'fetching tokens');
  }

  async function one(slot: Slot): Promise<void> {
    for (;;) {
      const wait = deps.pausedUntil(slot) - clock.monotonic();
      if (wait > 0) {
        if (clock.monotonic() + wait > deadline) break;
        await pause(clock, wait * (1 + SPREAD * deps.random()));
        continue;
      }
      await deps.fetch(slot);
      if (deps.hasToken(slot)) {
        if (originOf(slot) === 'store') cached += 1;
        else fetched += 1;
        return;
      }
      if (slot.trouble?.error.code !== 'throttled') break;
    }
    failed += 1;
  }

  await eachAtOnce(bound, queue, async (slot) => {
    // Answers come as requests went out: not all in one turn.
    await eventLoop.turn();
    await one(slot);
    progress();
  });
  return { accounts: slots.length, cached, fetched, failed, ms: Math.round(clock.monotonic() - begun) };
}

const originOf = ({ state }: Slot): string | undefined =>
  state.name === 'holding' || state.name === 'failing' ? state.held?.origin : undefined;
