/** What an operator sees of the token room: a row per account and the totals. Pure. */
import type { AccountState } from '../accounts/account.ts';
import type { TokenErrorCode } from './access-token.ts';
import { stateOf, type TokenEntry, type TokenOrigin, usableUntil } from './token-entry.ts';
import type { RefreshCounts } from './token-refresher.ts';

/** Everything an operator may know about one account's token. Times in ms since the epoch. */
export interface TokenStatus {
  readonly accountId: string;
  readonly state: AccountState;
  /** A token that can be used is in the cache. */
  readonly cached: boolean;
  readonly obtainedAt: number | undefined;
  readonly expiresAt: number | undefined;
  readonly origin: TokenOrigin | undefined;
  readonly refreshing: boolean;
  readonly nextRefreshAt: number | undefined;
  readonly uses: number;
  readonly lastUsedAt: number | undefined;
  /** Last failure since the last success. */
  readonly lastError:
    | {
        readonly code: TokenErrorCode;
        readonly message: string;
        readonly cure: string | undefined;
        readonly at: number;
      }
    | undefined;
  /** When the provider gave the refresh token in use; undefined: it is the operator's own. */
  readonly refreshTokenObtainedAt: number | undefined;
}

/** Spelled as in the admin API. */
export interface TokenTotals {
  readonly cache_hits: number;
  readonly cache_misses: number;
  readonly refresh_attempts: number;
  readonly refresh_success: number;
  readonly refresh_failures: number;
  /** 0 to 1; 0 before the first question. */
  readonly cache_hit_rate: number;
  readonly refresh_success_rate: number;
}

export function describeEntry(entry: TokenEntry, now: number): TokenStatus {
  const { token, failure } = entry;
  return {
    accountId: entry.account.id,
    state: stateOf(entry, now),
    cached: token !== undefined && now < usableUntil(token),
    obtainedAt: token?.obtainedAt,
    expiresAt: token?.expiresAt,
    origin: entry.origin,
    refreshing: entry.flight !== undefined,
    nextRefreshAt: entry.nextRefreshAt,
    uses: entry.uses,
    lastUsedAt: entry.lastUsedAt,
    lastError:
      failure === undefined
        ? undefined
        : { code: failure.code, message: failure.message, cure: failure.cure, at: entry.failedAt },
    refreshTokenObtainedAt: entry.refreshTokenObtainedAt,
  };
}

export function countTotals(
  counts: RefreshCounts & { readonly hits: number; readonly misses: number },
): TokenTotals {
  const { hits, misses, attempts, success, failures } = counts;
  const rate = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole);
  return {
    cache_hits: hits,
    cache_misses: misses,
    refresh_attempts: attempts,
    refresh_success: success,
    refresh_failures: failures,
    cache_hit_rate: rate(hits, hits + misses),
    refresh_success_rate: rate(success, success + failures),
  };
}
