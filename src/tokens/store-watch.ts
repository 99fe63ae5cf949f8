/** Whether the token store can be relied on just now. In: how what was asked of it ended. Out: one log line an outage. */
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { codeOf } from './state-files.ts';
import type { TokenStore } from './token-store.ts';

export interface StoreWatch {
  failed(error: unknown, what: 'read' | 'write' | 'lock'): void;
  answered(what: 'read' | 'write'): void;
  /** It is only just back, or has lost what others may not have given it again yet. */
  isToBeCompleted(): void;
  /** The last thing asked of it failed, or it may not be complete yet. */
  readonly isAway: boolean;
}

/** A store that was away or has lost its data has had it again from all relays after this, ms. */
const COMPLETE_AGAIN_MS = 10_000;

export function createStoreWatch(deps: {
  readonly kind: TokenStore['kind'];
  readonly clock: Clock;
  readonly log: Log;
}): StoreWatch {
  const { kind, clock, log } = deps;
  let isFailing = false;
  /** As the log has it. */
  let told: 'reading' | 'writing' | undefined;
  let completeAgainAt = 0;
  const isToBeCompleted = (): void => {
    completeAgainAt = clock.monotonic() + COMPLETE_AGAIN_MS;
  };
  return {
    failed(error, what) {
      const fields = { event: 'token_store_failed', store: kind, what, reason: reasonOf(error) };
      if (told !== undefined) log.debug(fields, 'token store failed');
      else log.error(fields, 'token store failed: carrying on with what is in memory');
      told = what === 'read' ? (told ?? 'reading') : 'writing';
      isFailing = true;
    },
    answered(what) {
      // It may have come back empty, and this process know nothing of what it had.
      if (isFailing) isToBeCompleted();
      isFailing = false;
      // What can be read may still take nothing: a full disk, a replica.
      if (told === undefined || (told === 'writing' && what === 'read')) return;
      told = undefined;
      log.info({ event: 'token_store_back', store: kind }, 'token store answers again');
    },
    isToBeCompleted,
    get isAway() {
      return isFailing || clock.monotonic() < completeAgainAt;
    },
  };
}

/** The system's or library's code, never its text: a text may quote what it failed on. */
export const reasonOf = (error: unknown): string =>
  codeOf(error) ?? (error instanceof Error ? error.name : 'unknown');
