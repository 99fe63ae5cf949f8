/** What an operator sees of the token room: a row per account and the totals. Pure. */
import { type AccountState, worstState } from '../accounts/account.ts';
import type { TokenResource } from '../accounts/credential.ts';
import type { TokenErrorCode } from './access-token.ts';
import type { Grant } from './grant.ts';
import type { ServedAccount } from './served-account.ts';
import type { RefreshCounts } from './token-refresher.ts';
import type { Slot, TokenOrigin } from './token-slot.ts';

/** What an operator may know about one token. Times in ms since the epoch. */
export interface ResourceStatus {
  readonly resource: TokenResource;
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
}

/** Everything an operator may know about one account's tokens: the first one's row, all of them, and the grant. */
export interface TokenStatus extends ResourceStatus {
  readonly accountId: string;
  /** Worst first among those fetched ahead. */
  readonly state: AccountState;
  readonly resources: readonly ResourceStatus[];
  /** When the provider gave the refresh token in use; undefined: it is the operator's own. */
  readonly refreshTokenObtainedAt: number | undefined;
  /** The newest refresh token is only in this process's memory: it is lost if the process ends now. */
  readonly unsaved: boolean;
}

/** Spelled as in the admin API. */
export interface TokenFigures {
  readonly cache_hits: number;
  readonly cache_misses: number;
  readonly refresh_attempts: number;
  readonly refresh_success: number;
  readonly refresh_failures: number;
}

/** What an operator does about a refresh token that cannot be saved. */
const UNSAVED_CURE =
  'free space on the disk of the state directory, or bring Redis back; do not stop the relay before';

function describeSlot(slot: Slot, nextRefreshAt: number | undefined): ResourceStatus {
  const { token, trouble, state } = slot;
  const held = state.name === 'empty' || state.name === 'retired' ? undefined : state.held;
  return {
    resource: slot.resource,
    state: slot.describe(),
    cached: slot.isUsable(),
    obtainedAt: token?.obtainedAt,
    expiresAt: token?.expiresAt,
    origin: held?.origin,
    refreshing: state.name === 'asking',
    nextRefreshAt,
    uses: slot.uses,
    lastUsedAt: slot.lastUsedAt,
    lastError:
      trouble === undefined
        ? undefined
        : {
            code: trouble.error.code,
            message: trouble.error.message,
            cure: trouble.error.cure,
            at: trouble.at,
          },
  };
}

/** Those the account has used so far, the ones fetched ahead first. */
export function slotsInOrder(account: ServedAccount): readonly Slot[] {
  const { ahead } = account;
  const all = account.slots();
  return all.length === ahead.length ? ahead : [...ahead, ...all.filter((slot) => !ahead.includes(slot))];
}

export function describeAccount(
  accountId: string,
  account: ServedAccount,
  plannedAt: (slot: Slot) => number | undefined,
): TokenStatus | undefined {
  const { grant } = account;
  const resources = slotsInOrder(account).map((slot) => describeSlot(slot, plannedAt(slot)));
  const [first] = resources;
  if (first === undefined) return undefined;
  return {
    accountId,
    resources,
    refreshTokenObtainedAt: grant.obtainedAt,
    unsaved: grant.failedSaves > 0,
    // Behind what it has not: properties added behind a spread cost 25 times as much (V8 11).
    ...first,
    state: stateOfAccount(account),
  };
}

/** What an operator sees of an account: the worst of its slots, of those fetched ahead where there are any, and whether its grant is kept. */
export function stateOfAccount(account: ServedAccount): AccountState {
  const slots = account.ahead.length > 0 ? account.ahead : account.slots();
  return worstState(...slots.map((slot) => slot.describe()), ...unsavedState(account.grant));
}

/** Once may be a moment's trouble of the store; what is offered in vain again needs somebody. */
const unsavedState = ({ failedSaves, isHere }: Grant): readonly AccountState[] =>
  failedSaves < 2 || isHere
    ? []
    : [
        {
          status: 'misconfigured',
          reason: 'its newest refresh token cannot be saved and is in the memory of the relay only',
          cure: UNSAVED_CURE,
        },
      ];

export function countTotals(
  counts: RefreshCounts & { readonly hits: number; readonly misses: number },
): TokenFigures {
  const { hits, misses, attempts, success, failures } = counts;
  return {
    cache_hits: hits,
    cache_misses: misses,
    refresh_attempts: attempts,
    refresh_success: success,
    refresh_failures: failures,
  };
}
