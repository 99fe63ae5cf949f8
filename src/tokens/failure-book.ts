/**
 * What follows from a failure: how long nothing is asked, when the background tries again, and what
 * the log says, once. In: classified failures. Out: `TokenError`s and times. Owns the pauses and
 * alerts per OAuth client.
 */

import { causeFacts } from '../accounts/account.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { cureOf, findTokenCauseInText } from '../protocol/causes/book.ts';
import type { TokenFailure } from '../protocol/token-failure.ts';
import { TokenError } from './access-token.ts';
import { type TokenEntry, usableUntil } from './token-entry.ts';

export interface FailureBook {
  /** Notes a failure at the entry (unless a newer flight is under way) and logs one line. */
  record(
    entry: TokenEntry,
    failure: TokenFailure,
    facts: { readonly sent: boolean; readonly probeAt: number | undefined; readonly current: boolean },
  ): TokenError;
  /** A request succeeded: forgets what was wrong. */
  recover(entry: TokenEntry): void;
  /** No background request before this, ms since the epoch. */
  pausedUntil(entry: TokenEntry): number;
  /** When the background tries a failed account again, ms since the epoch. */
  nextTry(entry: TokenEntry): number;
  /** Forgets OAuth clients that no account uses any more. */
  keepOnly(entries: Iterable<TokenEntry>): void;
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
  /** By OAuth client: no background requests before, ms since the epoch. */
  const pauses = new Map<string, number>();
  /** OAuth clients whose trouble has been reported. */
  const alerted = new Set<string>();

  function report(entry: TokenEntry, error: TokenError, failure: TokenFailure, now: number): void {
    const { account, token, credential } = entry;
    const lifeLeftMs = token === undefined ? 0 : usableUntil(token) - now;
    const fields = {
      event: 'token_refresh_failed',
      account: account.id,
      class: error.code,
      reason: error.message,
      ...(error.cure === undefined ? {} : { cure: error.cure }),
      ...(error.retryAt === undefined ? {} : { retry_at: new Date(error.retryAt).toISOString() }),
      ...(lifeLeftMs > 0 ? { expires_in_s: Math.round(lifeLeftMs / 1000) } : {}),
    };
    if (failure.scope === 'app' && failure.kind === 'app_misconfigured') {
      const client = clientOf(entry);
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

  /** The breaker has reported the endpoint; an account is named once, when its token is about to end. */
  function reportResting(entry: TokenEntry, error: TokenError, failure: TokenFailure, now: number): void {
    const { token, credential } = entry;
    const ending = token !== undefined && token.expiresAt - now < credential.safetyBufferMs;
    if (ending && !entry.warned) report(entry, error, failure, now);
    else log.debug({ event: 'token_endpoint_resting', account: entry.account.id }, failure.message);
    entry.warned ||= ending;
  }

  return {
    record(entry, failure, { sent, probeAt, current }) {
      const now = clock.now();
      const blockedUntil = now + silenceAfter(failure);
      const retryAt = blockedUntil > now ? blockedUntil : probeAt;
      // What another relay has left in the store has words only.
      const causeId =
        failure.cause ?? (failure.cure === undefined ? findTokenCauseInText(failure.message).id : undefined);
      const cure = failure.cure ?? cureOf(causeId, causeFacts(entry.account));
      const error = new TokenError(failure.kind, failure.message, { retryAt, cure, causeId });
      if (failure.kind === 'throttled' && failure.scope !== 'account') {
        const client = clientOf(entry);
        pauses.set(client, Math.max(pauses.get(client) ?? 0, blockedUntil));
      }
      if (entry.retired || !current) return error;
      const resting = !sent && failure.kind === 'provider_fault';
      // While the endpoint rests, the failure that made it rest says more.
      if (!resting || entry.failure === undefined) {
        entry.failure = error;
        entry.failedAt = now;
      }
      entry.blockedUntil = Math.max(entry.blockedUntil, blockedUntil);
      if (!resting) entry.failures += 1;
      if (entry.token !== undefined) entry.freshUntil = Math.max(entry.freshUntil, usableUntil(entry.token));
      if (resting) reportResting(entry, error, failure, now);
      else report(entry, error, failure, now);
      return error;
    },
    recover(entry) {
      if (entry.failure !== undefined) {
        log.info({ event: 'token_recovered', account: entry.account.id }, 'account has a token again');
      }
      entry.failure = undefined;
      entry.failures = 0;
      entry.warned = false;
      entry.blockedUntil = 0;
      alerted.delete(clientOf(entry));
    },
    pausedUntil: (entry) => Math.max(entry.blockedUntil, pauses.get(clientOf(entry)) ?? 0),
    nextTry(entry) {
      const backoff = Math.min(FIRST_RETRY_MS * 2 ** Math.max(entry.failures - 1, 0), MAX_RETRY_MS);
      const pause = pauses.get(clientOf(entry)) ?? 0;
      const earliest = Math.max(clock.now() + backoff, entry.blockedUntil, pause);
      return earliest + backoff * 0.2 * random();
    },
    keepOnly(entries) {
      const clients = new Set([...entries].map(clientOf));
      for (const client of pauses.keys()) if (!clients.has(client)) pauses.delete(client);
      for (const client of alerted) if (!clients.has(client)) alerted.delete(client);
    },
  };
}

/** How long an account is not asked about after a failure, ms. */
export function silenceAfter(failure: TokenFailure): number {
  const { kind, retryAfterMs } = failure;
  switch (kind) {
    case 'provider_fault':
    case 'throttled':
      return retryAfterMs ?? 0;
    case 'needs_consent':
      return retryAfterMs ?? CONSENT_PROBE_MS;
    case 'app_misconfigured':
    case 'bad_request':
      return retryAfterMs ?? CONFIGURATION_PROBE_MS;
    case 'clock_skew':
      return retryAfterMs ?? CLOCK_PROBE_MS;
    default:
      return kind satisfies never;
  }
}

function clientOf(entry: TokenEntry): string {
  return `${entry.credential.tokenUrl} ${entry.credential.clientId}`;
}
