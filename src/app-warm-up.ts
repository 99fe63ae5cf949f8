/**
 * Accounts made ready ahead of their mail: at the start, after a reload. In: ids of accounts. Out: their tokens
 * fetched and connections opened, in the background, bounded; what was not ready is tried again.
 */
import type { Log } from './log.ts';
import { eachAtOnce } from './semaphore.ts';
import { createSlices } from './slices.ts';
import type { TokenService } from './tokens/token-service.ts';
import type { AccountWays, WayStatus } from './upstream/ways.ts';

/** After an outage thousands are tried again: neither the provider nor the loop gets them all at once. */
const RETRIES_AT_ONCE = 50;
/** Accounts that a line of the log names. */
const NAMED = 100;

export interface AppWarmUpDeps {
  readonly tokens: TokenService;
  readonly ways: AccountWays;
  readonly log: Log;
  readonly backend: {
    /** Tries an account again; never rejects. */
    retry(accountId: string): Promise<void>;
    /** `usable`: accounts that can send now. */
    readiness(): Promise<{ readonly usable: number }>;
  };
  readonly isStopping: () => boolean;
  /** The account may look different now. */
  readonly changed: (accountId: string) => void;
}

export interface AppWarmUp {
  /** The first round has ended. */
  readonly isOver: boolean;
  /** Never rejects. */
  firstRound(ids: readonly string[]): Promise<void>;
  /** Says of each that it may look different now; in slices. */
  tell(ids: readonly string[]): Promise<void>;
  /** After a reload: what is new is warmed, and what was not ready before it tried again, changed or not. */
  reloaded(what: {
    readonly added: readonly string[];
    readonly changed: readonly string[];
    readonly untouched: readonly string[];
  }): void;
}

/** `precache`: false leaves tokens and connections to the first message. */
export function createAppWarmUp(
  { tokens, ways, log, backend, isStopping, changed }: AppWarmUpDeps,
  { precache }: { readonly precache: boolean },
): AppWarmUp {
  let isOver = false;

  /** Tokens, then connections; each in parallel, bounded. Never rejects. */
  async function warm(ids: readonly string[]) {
    const fetched = await tokens.precache(ids);
    const connected = await ways.warmUp(ids);
    return { fetched: fetched.fetched + fetched.cached, failed: fetched.failed, ...connected };
  }

  /** Those that are not ready. Never rejects. */
  async function illOf(ids: readonly string[]): Promise<readonly string[]> {
    const slices = createSlices();
    const ill: string[] = [];
    for (const id of ids) {
      if (isIll(ways.status(id)?.state) || isIll(tokens.stateOf(id))) ill.push(id);
      if (slices.isOver) await slices.rest();
    }
    return ill;
  }

  /** The operator may have cured it, and a reload says so. Never rejects. */
  async function retryIll(ids: readonly string[]): Promise<void> {
    const ill = await illOf(ids);
    const slices = createSlices();
    await eachAtOnce(RETRIES_AT_ONCE, ill, async (id) => {
      if (isStopping()) return;
      await backend.retry(id);
      if (slices.isOver) await slices.rest();
    });
    if (ill.length > 0)
      log.info(
        { event: 'retried', accounts: ill.slice(0, NAMED), more: Math.max(0, ill.length - NAMED) },
        'accounts that were not ready were tried again',
      );
  }

  /** A pause belongs to the account's id: a changed entry does not end it by itself. Never rejects. */
  async function renew(added: readonly string[], changed: readonly string[]): Promise<void> {
    // Of before the warm-up: what fails now is not tried twice.
    const ill = await illOf(changed);
    if (precache && added.length + changed.length > 0) {
      const counts = await warm([...added, ...changed]);
      log.info({ event: 'reload_ready', ...counts }, 'changed accounts are warm');
    }
    await retryIll(ill);
  }

  async function tell(ids: readonly string[]): Promise<void> {
    const slices = createSlices();
    for (const id of ids) {
      if (isStopping()) return;
      changed(id);
      if (slices.isOver) await slices.rest();
    }
  }

  return {
    tell,
    get isOver() {
      return isOver;
    },
    async firstRound(ids) {
      const startedAt = performance.now();
      const counts = precache ? await warm(ids) : { fetched: 0, failed: 0, warm: 0, cold: ids.length };
      isOver = true;
      tokens.resetCacheCounts();
      const { usable } = await backend.readiness();
      if (isStopping()) return;
      log.info(
        {
          event: 'ready',
          accounts: ids.length,
          usable,
          tokens: counts.fetched,
          tokens_failed: counts.failed,
          warm: counts.warm,
          cold: counts.cold,
          ms: Math.round(performance.now() - startedAt),
        },
        counts.failed === 0 ? 'ready' : 'ready; some accounts have no token yet',
      );
      await tell(ids);
    },
    reloaded({ added, changed, untouched }) {
      void renew(added, changed);
      void retryIll(untouched);
    },
  };
}

/** Nobody has asked yet, or asks now: that is no trouble. */
const isIll = (state: WayStatus['state'] | undefined): boolean =>
  state?.status !== 'ready' && state?.status !== 'refreshing';
