/**
 * What follows from a failure: how long nothing is asked, when the background tries again, and what
 * the log says, once. In: classified failures. Out: troubles and times. Owns the pauses and alerts per
 * OAuth client.
 */
import { causeFacts } from '../accounts/account.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { cureOf, findTokenCauseInText } from '../protocol/causes/book.ts';
import type { TokenFailure } from '../protocol/token-failure.ts';
import { TokenError } from './access-token.ts';
import { type FailedAttempts, type Slot, usableUntil } from './token-slot.ts';
import { isStoreAway } from './unlocked.ts';

export interface FailureBook {
  /** The trouble a failure makes. Logs one line unless the slot has moved on (`current` false). */
  record(
    slot: Slot,
    failure: TokenFailure,
    facts: { readonly sent: boolean; readonly probeAt: number | undefined; readonly current: boolean },
  ): FailedAttempts;
  /** What was wrong is over: says so. */
  recovered(slot: Slot): void;
  /** No background request before this, monotonic ms; 0 where there is no reason to wait. */
  pausedUntil(slot: Slot): number;
  /** When the background tries a failed account again, monotonic ms. */
  nextTry(slot: Slot, trouble: FailedAttempts): number;
  /** Forgets OAuth clients that no account uses any more. */
  keepOnly(clients: ReadonlySet<string>): void;
}

/** Microsoft and Google count requests with a dead refresh token against the app: one probe an hour. */
const CONSENT_PROBE_MS = 60 * 60_000;
/** A broken app or request is mended by a person at the provider; we notice within this time. */
const CONFIGURATION_PROBE_MS = 10 * 60_000;
const CLOCK_PROBE_MS = 60_000;
/** Background retries of a failing endpoint: 5 s, doubling up to a minute. */
const FIRST_RETRY_MS = 5000;
const MAX_RETRY_MS = 60_000;

export function createFailureBook(deps: {
  readonly log: Log;
  readonly clock: Clock;
  readonly random: () => number;
}): FailureBook {
  const { log, clock, random } = deps;
  /** By OAuth client: no background requests before, monotonic ms. */
  const pauses = new Map<string, number>();
  /** OAuth clients whose trouble has been reported. */
  const alerted = new Set<string>();

  function report(slot: Slot, error: TokenError, failure: TokenFailure): void {
    const { account, token, credential } = slot;
    const lifeLeftMs = token === undefined ? 0 : usableUntil(token) - clock.now();
    const fields = {
      event: 'token_refresh_failed',
      account: account.id,
      ...(slot.resource === 'smtp' ? {} : { resource: slot.resource }),
      class: error.code,
      reason: error.message,
      ...(error.cure === undefined ? {} : { cure: error.cure }),
      ...(error.retryAt === undefined ? {} : { retry_at: new Date(error.retryAt).toISOString() }),
      ...(lifeLeftMs > 0 ? { expires_in_s: Math.round(lifeLeftMs / 1000) } : {}),
    };
    if (failure.scope === 'app' && failure.kind === 'app_misconfigured') {
      const client = clientOf(slot);
      const fresh = !alerted.has(client);
      alerted.add(client);
      const alert = { ...fields, event: 'oauth_client_broken', client_id: credential.clientId };
      if (fresh) log.error(alert, 'the OAuth client is broken: none of its accounts gets a token');
      else log.debug(fields, 'no token: the OAuth client is broken');
    } else if (lifeLeftMs <= 0) log.warn(fields, 'no token');
    else if (lifeLeftMs < credential.safetyBufferMs)
      log.warn(fields, 'token is about to expire and could not be refreshed');
    else log.warn(fields, 'token could not be refreshed: the cached one is still good');
  }

  /** The breaker has reported the endpoint; an account is named once, when its token is about to end. True where it was named. */
  function reportResting(slot: Slot, error: TokenError, failure: TokenFailure): boolean {
    const { token, credential } = slot;
    const lifeLeftMs = token === undefined ? 0 : token.expiresAt - clock.now();
    const ending =
      (token !== undefined || isStoreAway(failure.cause)) && lifeLeftMs < credential.safetyBufferMs;
    if (ending && slot.trouble?.warned !== true) report(slot, error, failure);
    else log.debug({ event: 'token_endpoint_resting', account: slot.accountId }, failure.message);
    return ending;
  }

  return {
    record(slot, failure, { sent, probeAt, current }) {
      const now = clock.monotonic();
      const silenceMs = silenceAfter(failure);
      const retryAt = silenceMs > 0 ? clock.now() + silenceMs : probeAt;
      // What another relay has left in the store has words only.
      const causeId =
        failure.cause ?? (failure.cure === undefined ? findTokenCauseInText(failure.message).id : undefined);
      const cure = failure.cure ?? cureOf(causeId, causeFacts(slot.account));
      const error = new TokenError(failure.kind, failure.message, { retryAt, cure, causeId });
      if (failure.kind === 'throttled' && failure.scope !== 'account') {
        const client = clientOf(slot);
        pauses.set(client, Math.max(pauses.get(client) ?? 0, now + silenceMs));
      }
      const before = slot.trouble;
      const resting = !sent && failure.kind === 'provider_fault';
      // While the endpoint rests, the failure that made it rest says more.
      const stands = resting && before !== undefined && !isStoreAway(failure.cause);
      let warned = before?.warned ?? false;
      if (current && !slot.isRetired) {
        if (resting) warned = reportResting(slot, error, failure) || warned;
        else report(slot, error, failure);
      }
      return {
        error: stands ? before.error : error,
        at: stands ? before.at : clock.now(),
        count: (before?.count ?? 0) + (resting ? 0 : 1),
        blockedUntilMono: Math.max(before?.blockedUntilMono ?? 0, now + silenceMs),
        warned,
      };
    },
    recovered(slot) {
      alerted.delete(clientOf(slot));
      log.info({ event: 'token_recovered', account: slot.accountId }, 'account has a token again');
    },
    pausedUntil: (slot) => Math.max(slot.blockedUntilMono, pauses.get(clientOf(slot)) ?? 0),
    nextTry(slot, { count, blockedUntilMono }) {
      const backoff = Math.min(FIRST_RETRY_MS * 2 ** Math.max(count - 1, 0), MAX_RETRY_MS);
      const pause = pauses.get(clientOf(slot)) ?? 0;
      return Math.max(clock.monotonic() + backoff, blockedUntilMono, pause) + backoff * 0.2 * random();
    },
    keepOnly(clients) {
      for (const client of pauses.keys()) if (!clients.has(client)) pauses.delete(client);
      for (const client of alerted) if (!clients.has(client)) alerted.delete(client);
    },
  };
}

const SILENCE_MS: Readonly<Record<TokenFailure['kind'], number>> = {
  provider_fault: 0,
  throttled: 0,
  needs_consent: CONSENT_PROBE_MS,
  app_misconfigured: CONFIGURATION_PROBE_MS,
  bad_request: CONFIGURATION_PROBE_MS,
  clock_skew: CLOCK_PROBE_MS,
};
/** How long an account is not asked about after a failure, ms. */
export const silenceAfter = ({ kind, retryAfterMs }: TokenFailure): number =>
  retryAfterMs ?? SILENCE_MS[kind];

/** The OAuth client, at the endpoint where it is one. */
export function clientOf({ credential }: Pick<Slot, 'credential'>): string {
  return `${credential.tokenUrl} ${credential.clientId}`;
}
