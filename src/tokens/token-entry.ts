/**
 * One account as the token room knows it, and the rules of a token's life: how long it is handed
 * out, when it is refreshed ahead, what an operator sees. No I/O; time is an argument.
 */
import type { Account, AccountState, AccountStatus } from '../accounts/account.ts';
import { type Credential, Secret } from '../accounts/credential.ts';
import { AccessToken, type TokenError, type TokenErrorCode } from './access-token.ts';
import { credentialFingerprint, grantFingerprint, tokenFingerprint } from './grant-form.ts';
import type { StoredGrant } from './token-store.ts';

/** What made a token come. */
export type TokenOrigin =
  | 'pre-cache'
  | 'refresh-ahead'
  | 'on-demand'
  | 'renewal'
  | 'operator'
  | 'store'
  | 'accounts-file';

/** Mutable; owned by the token service. */
export interface TokenEntry {
  account: Account;
  readonly credential: Credential;
  readonly fingerprint: string;
  readonly grantFingerprint: string;
  readonly tokenFingerprint: string;
  token: AccessToken | undefined;
  origin: TokenOrigin | undefined;
  /** The token may be handed out before this, ms since the epoch; 0 without one. */
  freshUntil: number;
  /** What the upstream refused last: not to be had from the store again. */
  rejected: AccessToken | undefined;
  /** Newest refresh token the provider gave; undefined: the operator's own. */
  refreshToken: Secret | undefined;
  refreshTokenObtainedAt: number | undefined;
  loaded: boolean;
  flight: Promise<AccessToken> | undefined;
  /** Number of the newest flight; the answer of an older one never replaces a token. */
  flights: number;
  failure: TokenError | undefined;
  failedAt: number;
  failures: number;
  /** The operator has been told that the token ends soon and none comes. */
  warned: boolean;
  /** No request before this, ms since the epoch. */
  blockedUntil: number;
  /** Removed or replaced: answers that come late are for nobody. */
  retired: boolean;
  /** What replaced it, where the operator's consent is still the same: it inherits rotated refresh tokens. */
  successor: TokenEntry | undefined;
  uses: number;
  lastUsedAt: number | undefined;
  cancelTimer: (() => void) | undefined;
  nextRefreshAt: number | undefined;
  announced: AccountStatus | undefined;
}

export function createEntry(account: Account, credential: Credential): TokenEntry {
  return {
    account,
    credential,
    fingerprint: credentialFingerprint(credential),
    grantFingerprint: grantFingerprint(credential),
    tokenFingerprint: tokenFingerprint(credential),
    token: undefined,
    origin: undefined,
    freshUntil: 0,
    rejected: undefined,
    refreshToken: undefined,
    refreshTokenObtainedAt: undefined,
    loaded: false,
    flight: undefined,
    flights: 0,
    failure: undefined,
    failedAt: 0,
    failures: 0,
    warned: false,
    blockedUntil: 0,
    retired: false,
    successor: undefined,
    uses: 0,
    lastUsedAt: undefined,
    cancelTimer: undefined,
    nextRefreshAt: undefined,
    announced: undefined,
  };
}

/** Refresh ahead at this part of a token's life, less the jitter. */
const REFRESH_AT = 0.8;
/** Jitter as a part of the time until the refresh: tokens fetched together are not refreshed together. */
const JITTER = 0.1;
/** Tokens that live for seconds are fetched when mail comes, not over and over in the background. */
const MIN_AHEAD_MS = 10_000;
/** A token that lives less than two buffers keeps this part of its life as buffer. */
const SHORT_LIFE_BUFFER = 0.2;
/** With less life than this left a token may end between here and the provider's check. */
const LAST_MOMENT_MS = 5000;

/** How much life a token must have left to be handed out, ms. */
export function bufferFor(lifetimeMs: number, safetyBufferMs: number): number {
  return lifetimeMs < 2 * safetyBufferMs ? lifetimeMs * SHORT_LIFE_BUFFER : safetyBufferMs;
}

/** When a token is refreshed ahead, ms since the epoch; `random` is 0 to 1. */
export function refreshAheadAt(token: AccessToken, safetyBufferMs: number, random: number): number {
  const life = token.expiresAt - token.obtainedAt;
  const latest = Math.min(life * REFRESH_AT, life - bufferFor(life, safetyBufferMs));
  return token.obtainedAt + Math.max(latest * (1 - JITTER * random), MIN_AHEAD_MS);
}

/** Until when a token is handed out while all is well, ms since the epoch. */
export function freshUntil(token: AccessToken, safetyBufferMs: number): number {
  return token.expiresAt - bufferFor(token.expiresAt - token.obtainedAt, safetyBufferMs);
}

/** Until when a token is handed out while no new one can be had. */
export function usableUntil(token: AccessToken): number {
  const life = token.expiresAt - token.obtainedAt;
  return token.expiresAt - Math.min(LAST_MOMENT_MS, life * SHORT_LIFE_BUFFER);
}

export function takeToken(entry: TokenEntry, token: AccessToken, origin: TokenOrigin): void {
  entry.token = token;
  entry.origin = origin;
  entry.freshUntil = freshUntil(token, entry.credential.safetyBufferMs);
}

export function dropToken(entry: TokenEntry): void {
  entry.token = undefined;
  entry.origin = undefined;
  entry.freshUntil = 0;
}

/** The token the operator brought along, while it lives. */
export function takeInitialToken(entry: TokenEntry, now: number): void {
  const { initial } = entry.credential;
  if (initial === undefined || initial.expiresAt <= now) return;
  takeToken(entry, new AccessToken(initial.accessToken.reveal(), initial.expiresAt, now), 'accounts-file');
}

/** Takes from a stored record what belongs to this credential and is newer; true where the token came from it. */
export function takeStored(entry: TokenEntry, stored: StoredGrant | undefined, now: number): boolean {
  if (stored === undefined || stored.grantFingerprint !== entry.grantFingerprint) return false;
  const { refreshToken, refreshTokenObtainedAt = 0, accessToken, expiresAt = 0, obtainedAt = now } = stored;
  if (refreshToken !== undefined && refreshTokenObtainedAt > (entry.refreshTokenObtainedAt ?? -1)) {
    entry.refreshToken = new Secret(refreshToken);
    entry.refreshTokenObtainedAt = refreshTokenObtainedAt;
  }
  if (stored.tokenFingerprint !== entry.tokenFingerprint || accessToken === undefined) return false;
  if (accessToken === entry.rejected?.reveal() || expiresAt <= Math.max(now, entry.token?.expiresAt ?? 0))
    return false;
  takeToken(entry, new AccessToken(accessToken, expiresAt, obtainedAt), 'store');
  return true;
}

export function storedFrom(entry: TokenEntry, token: AccessToken | undefined): StoredGrant {
  const { refreshToken, refreshTokenObtainedAt } = entry;
  return {
    grantFingerprint: entry.grantFingerprint,
    ...(refreshToken === undefined
      ? {}
      : { refreshToken: refreshToken.reveal(), refreshTokenObtainedAt: refreshTokenObtainedAt ?? 0 }),
    ...(token === undefined
      ? {}
      : {
          tokenFingerprint: entry.tokenFingerprint,
          accessToken: token.reveal(),
          expiresAt: token.expiresAt,
          obtainedAt: token.obtainedAt,
        }),
  };
}

const STATUS: Readonly<Record<TokenErrorCode, AccountStatus>> = {
  provider_fault: 'unreachable',
  throttled: 'throttled',
  needs_consent: 'needs_consent',
  app_misconfigured: 'misconfigured',
  clock_skew: 'misconfigured',
  bad_request: 'misconfigured',
  unknown_account: 'misconfigured',
};
/** Passing trouble is no news to an operator while mail still flows. */
const PASSING: ReadonlySet<TokenErrorCode> = new Set(['provider_fault', 'throttled']);

export function stateOf(entry: TokenEntry, now: number): AccountState {
  const { failure, token } = entry;
  const usable = token !== undefined && usableUntil(token) > now;
  if (failure === undefined || (usable && PASSING.has(failure.code))) {
    return { status: usable ? 'ready' : 'refreshing' };
  }
  return {
    status: STATUS[failure.code],
    reason: failure.message,
    ...(failure.causeId === undefined ? {} : { cause: failure.causeId }),
    ...(failure.cure === undefined ? {} : { cure: failure.cure }),
    ...(entry.blockedUntil > now ? { until: entry.blockedUntil } : {}),
  };
}
