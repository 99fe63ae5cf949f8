/**
 * One request for a token, with everything about a refresh token in its answer already on its way into the
 * store. In: a slot and the refresh token to use. Out: what came of it. Owns the counters of requests.
 */
import type { Secret } from '../accounts/credential.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { TokenGrant, TokenJudgement } from '../protocol/token-response.ts';
import { AccessToken } from './access-token.ts';
import { buildGrantForm, type GrantForm, unsignable } from './grant-form.ts';
import type { GrantKeeper } from './grant-keeper.ts';
import type { Exchange, TokenEndpoints } from './token-endpoint.ts';
import type { Slot, TokenOrigin } from './token-slot.ts';
import type { StoredToken, StoredTokens } from './token-store.ts';

/** One request to a token endpoint, for metrics. */
export interface RefreshObservation {
  readonly accountId: string;
  readonly provider: string;
  readonly ok: boolean;
  readonly ms: number;
  readonly origin: TokenOrigin;
}

export interface RefreshCounts {
  attempts: number;
  success: number;
  failures: number;
}

/** `saving`: a refresh token that came is being kept. */
export type GrantAnswer = Exchange & { readonly saving: Promise<void> | undefined };

export interface GrantAsker {
  readonly counts: RefreshCounts;
  /**
   * `offsetMs`: the provider's clock less ours, as far as known. `signedInAs`: for whom somebody signed in for this
   * refresh token; default as in the grant. Never rejects.
   */
  ask(
    slot: Slot,
    origin: TokenOrigin,
    refreshToken: Secret | undefined,
    offsetMs: number,
    signedInAs?: string,
  ): Promise<GrantAnswer>;
}

/** A clock further off than this is worth a warning: assertions live for minutes. */
const CLOCK_WARNING_MS = 2 * 60_000;

export const storedToken = (slot: Slot, token: AccessToken): StoredToken => ({
  fingerprint: slot.tokenFingerprint,
  accessToken: token.reveal(),
  expiresAt: token.expiresAt,
  obtainedAt: token.obtainedAt,
});

export const tokenOf = (grant: TokenGrant, startedAt: number): AccessToken =>
  new AccessToken(grant.accessToken, startedAt + grant.lifetimeMs, startedAt);

export function createGrantAsker(deps: {
  readonly endpoints: TokenEndpoints;
  readonly keeper: GrantKeeper;
  readonly clock: Clock;
  readonly log: Log;
  readonly onRefresh: (observation: RefreshObservation) => void;
  /** Whatever may still save a refresh token is awaited at a stop. */
  readonly track: <T>(work: Promise<T>) => Promise<T>;
}): GrantAsker {
  const { endpoints, keeper, clock, log, track } = deps;
  const counts: RefreshCounts = { attempts: 0, success: 0, failures: 0 };
  let clockWarned = false;

  async function ask(
    slot: Slot,
    origin: TokenOrigin,
    refreshToken: Secret | undefined,
    offsetMs: number,
    signedInAs?: string,
  ): Promise<GrantAnswer> {
    const { credential, account, grant } = slot;
    let built: GrantForm;
    try {
      built = await buildGrantForm(credential, slot.scope, refreshToken, clock.now() + offsetMs);
    } catch (error) {
      return { ...unsignable(error, clock.now()), saving: undefined };
    }
    const used = refreshToken ?? (credential.grant === 'refresh_token' ? credential.refreshToken : undefined);
    let saving: Promise<void> | undefined;
    let judged = (_tokens: StoredTokens): void => undefined;
    const tokens = new Promise<StoredTokens>((resolve) => {
      judged = resolve;
    });
    const onRefreshToken = (came: string): void => {
      if (came === used?.reveal()) return;
      saving = track(keeper.rotated(grant, came, tokens, signedInAs));
    };
    counts.attempts += 1;
    const exchange = await endpoints.exchange({
      tokenUrl: credential.tokenUrl,
      form: built.form,
      secrets: built.secrets,
      ...(used === undefined ? {} : { onRefreshToken }),
    });
    const isCurrent = !slot.isRetired;
    const keep = (outcome: TokenJudgement | undefined): void =>
      judged(
        outcome?.ok === true && isCurrent
          ? { [slot.resource]: storedToken(slot, tokenOf(outcome.grant, exchange.startedAt)) }
          : {},
      );
    if (exchange.late === undefined) keep(exchange.outcome);
    else exchange.late.then(keep, () => keep(undefined));
    if (!exchange.sent) {
      counts.attempts -= 1;
      return { ...exchange, saving };
    }
    const { ok } = exchange.outcome;
    if (ok) counts.success += 1;
    else counts.failures += 1;
    deps.onRefresh({ accountId: account.id, provider: account.provider, ok, ms: exchange.ms, origin });
    watchClock(exchange.clockOffsetMs);
    return { ...exchange, saving };
  }

  function watchClock(offsetMs: number | undefined): void {
    if (offsetMs === undefined || clockWarned || Math.abs(offsetMs) < CLOCK_WARNING_MS) return;
    clockWarned = true;
    log.warn(
      { event: 'clock_skew', offset_s: Math.round(offsetMs / 1000) },
      "clock of this host differs from the token endpoint's: set it (NTP)",
    );
  }

  return { counts, ask };
}
