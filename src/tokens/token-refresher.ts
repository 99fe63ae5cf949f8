/**
 * How one token is obtained: look in the store, take the right to refresh where processes share it,
 * look again, ask the endpoint, keep what must not be lost, hand over. In: a slot. Out: a token or a
 * failure, never a rejection. Owns the turns of a grant and the counters of requests.
 */
import { causeFacts } from '../accounts/account.ts';
import type { Secret } from '../accounts/credential.ts';
import { type Clock, pause } from '../clock.ts';
import type { Log } from '../log.ts';
import { cureOf } from '../protocol/causes/book.ts';
import type { TokenFailure } from '../protocol/token-failure.ts';
import type { TokenGrant } from '../protocol/token-response.ts';
import { AccessToken } from './access-token.ts';
import type { GrantDoubt } from './consent-search.ts';
import { believe, type Doubt, passing, stopping } from './disbelief.ts';
import { silenceAfter } from './failure-book.ts';
import {
  createGrantAsker,
  type GrantAnswer,
  type RefreshCounts,
  type RefreshObservation,
  storedToken,
  tokenOf,
} from './grant-asker.ts';
import type { GrantKeeper } from './grant-keeper.ts';
import { createGrantTurns, type Turn } from './grant-turns.ts';
import type { Exchange, TokenEndpoints } from './token-endpoint.ts';
import { freshUntil, type Slot, type TokenOrigin } from './token-slot.ts';
import type { GrantLock, TokenStore } from './token-store.ts';
import { createUnderWay, type UnderWay } from './under-way.ts';
import { mayAskAlone, type WithoutStore, waitingForStore } from './unlocked.ts';
import { cannotRead, isUnreadable } from './unreadable.ts';

export interface RefreshRequest {
  readonly origin: TokenOrigin;
  /** Number of the flight. */
  readonly flight: number;
  /** Ask the endpoint whatever the store has. */
  readonly force: boolean;
}

export type RefreshResult =
  | { readonly ok: true; readonly token: AccessToken; readonly origin: TokenOrigin }
  | {
      readonly ok: false;
      readonly failure: TokenFailure;
      readonly sent: boolean;
      readonly probeAt: number | undefined;
    };

export type { RefreshCounts, RefreshObservation };

export interface Refresher {
  readonly counts: RefreshCounts;
  obtain(slot: Slot, request: RefreshRequest): Promise<RefreshResult>;
  /** Whether the store knows a later grant or a good token for a slot that was refused. `isReplacing`: what is there is newer than what is held. Never rejects. */
  lookAgain(slot: Slot, isReplacing?: boolean): Promise<boolean>;
  /** A person has consented anew: what came of it takes the place of the old grant, durably. False: the answer to an earlier request is still awaited. Rejects with what `judge` throws, when nothing else of the grant is under way. */
  adopt(slot: Slot, refreshToken: Secret, token: AccessToken, judge: () => void): Promise<boolean>;
  /** From now on nothing is asked, and no lock waited for, any more. */
  stop(): void;
  settled: UnderWay['settled'];
  /** Ends when no answer is awaited any more, a late one neither. */
  answered(): Promise<void>;
}

export interface RefresherDeps {
  readonly endpoints: TokenEndpoints;
  readonly store: TokenStore;
  readonly keeper: GrantKeeper;
  /** What to do while the store cannot be had and two could ask at once. */
  readonly withoutStore: WithoutStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly onRefresh: (observation: RefreshObservation) => void;
  /** A late answer has brought a token to the slot. */
  readonly onLateToken: (slot: Slot) => void;
}

/** A disk that does not answer holds up no mail for longer than this; the saving goes on, ms. */
const SAVE_WAIT_MS = 5000;

/** Longest wait behind others with the same consent, in limits of an answer. */
const TURN_LIMITS = 2;

export function createRefresher(deps: RefresherDeps): Refresher {
  const { endpoints, store, keeper, clock, log } = deps;
  const underWay = createUnderWay(clock, endpoints.answerTimeoutMs);
  const { track, trackAsked, beginAsked } = underWay;
  const { ask, counts } = createGrantAsker({ ...deps, track: trackAsked });
  const turns = createGrantTurns(keeper.hold, clock, TURN_LIMITS * endpoints.answerTimeoutMs);

  const failed = (failure: TokenFailure, sent = false, probeAt?: number): RefreshResult => ({
    ok: false,
    failure,
    sent,
    probeAt,
  });

  /** Looks into the store. `away`: what is in it is not known; a failure: what it has of this account cannot be read. */
  async function look(
    slot: Slot,
    force: boolean,
    isReplacing = false,
  ): Promise<AccessToken | 'nothing' | 'away' | TokenFailure> {
    try {
      const stored = (await keeper.load(slot.grant))?.tokens[slot.resource];
      if (stored?.fingerprint !== slot.tokenFingerprint) return 'nothing';
      const token = new AccessToken(stored.accessToken, stored.expiresAt, stored.obtainedAt);
      const isTaken = isReplacing ? slot.replace(token, 'store') : slot.bring(token, 'store');
      if (!isTaken) return 'nothing';
      log.debug(
        { event: 'token_reused', account: slot.accountId, resource: slot.resource },
        'access token taken from the store',
      );
      return !force && slot.isFresh() ? token : 'nothing';
    } catch (error) {
      // The keeper has said so.
      return isUnreadable(error) ? cannotRead(error, store.kind) : 'away';
    }
  }

  const catchUp = ({ grant, account }: Slot, doubt?: GrantDoubt): Promise<unknown> =>
    keeper.catchUp(grant, account.user, doubt);

  /** `needless`: no other process has the store. `away`: it cannot be had. */
  async function takeRight(slot: Slot): Promise<GrantLock | 'needless' | 'busy' | 'away'> {
    if (store.lock === undefined) return 'needless';
    try {
      const consent = isConsent(slot) ? slot.grant.fingerprint : undefined;
      return (await store.lock(slot.accountId, consent, () => !underWay.isStopped)) ?? 'busy';
    } catch (error) {
      if (isUnreadable(error))
        log.warn({ event: 'grant_lock_unreadable', account: slot.accountId }, error.message);
      else keeper.storeFailed(error, 'lock');
      return 'away';
    }
  }

  /** Why nothing may be asked where another account may have a later refresh token; undefined where it may. */
  function unread({ credential, grant }: Slot, unknown: unknown): TokenFailure | undefined {
    if (!isUnreadable(unknown) || mayAskAlone(credential, grant, undefined)) return undefined;
    return cannotRead(unknown, store.kind);
  }

  /** Why nothing may be asked without the store; undefined where it may. */
  function forbidden(slot: Slot, { origin }: RefreshRequest): TokenFailure | undefined {
    // Not while there is time to wait for it.
    if (origin === 'refresh-ahead' && hasTime(slot)) return waitingForStore(store.kind);
    if (deps.withoutStore === 'ask') return undefined;
    // A directory has one relay, by a lock that it holds all its life; of a Redis it is only known what was.
    const isAlone = store.kind === 'file' || deps.withoutStore === 'alone';
    return mayAskAlone(slot.credential, slot.grant, isAlone ? store.aloneSince?.() : undefined)
      ? undefined
      : waitingForStore(store.kind);
  }

  /** What another relay has heard about this credential, so that the provider is not asked twice. */
  async function blockedByOthers(slot: Slot): Promise<TokenFailure | undefined> {
    const block = await store.blockOf?.(slot.accountId, slot.resource).catch(() => undefined);
    const silenceMs = (block?.until ?? 0) - clock.now();
    if (block === undefined || block.fingerprint !== slot.tokenFingerprint || silenceMs <= 0)
      return undefined;
    const { kind, message, cure } = block;
    return { kind, message, cure, retryAfterMs: silenceMs, scope: 'account' };
  }

  async function tellOthers(slot: Slot, failure: TokenFailure): Promise<void> {
    const { kind, message, cure } = failure;
    const until = clock.now() + silenceAfter(failure);
    if (store.block === undefined || until <= clock.now()) return;
    const block = { fingerprint: slot.tokenFingerprint, kind, message, until, ...(cure && { cure }) };
    await store
      .block(slot.accountId, slot.resource, block)
      .catch((error: unknown) => keeper.storeFailed(error, 'write'));
  }

  async function accept(
    slot: Slot,
    { flight, origin }: RefreshRequest,
    grant: TokenGrant,
    { startedAt, saving }: { startedAt: number; saving: Promise<void> | undefined },
  ): Promise<AccessToken> {
    const token = tokenOf(grant, startedAt);
    if (grant.notes.length > 0) {
      const fields = { event: 'token_answer_odd', account: slot.accountId, notes: grant.notes };
      log.warn(fields, 'token endpoint sent an odd answer');
    }
    // A rotated refresh token is durable before its access token is used; other relays read the store.
    if (saving !== undefined) await Promise.race([saving, pause(clock, SAVE_WAIT_MS)]);
    else if (!slot.isRetired && slot.flight?.number === flight) {
      const kept = keeper.saveToken(slot.grant, slot.resource, storedToken(slot, token));
      if (store.kind === 'redis') await kept;
      else track(kept);
    }
    log.info(
      {
        event: 'token_obtained',
        account: slot.accountId,
        resource: slot.resource,
        origin,
        expires_in_s: Math.round((token.expiresAt - clock.now()) / 1000),
        rotated: saving !== undefined,
      },
      'access token obtained',
    );
    return token;
  }

  /** After its turn: a refresh token is never used twice at once, or a provider that revokes the old one takes both. */
  function obtain(slot: Slot, request: RefreshRequest): Promise<RefreshResult> {
    if (!isConsent(slot)) return track(obtainNow(slot, request, undefined));
    return track(
      turns.take(
        slot.grant,
        (turn) => obtainNow(slot, request, turn),
        (untilMono) => failed(stillWaiting(untilMono - clock.monotonic())),
      ),
    );
  }

  /** The answer is read to its end although nobody waits: the grant stays taken as long. */
  async function readLate(slot: Slot, exchange: Exchange, lease: GrantLock | undefined): Promise<void> {
    const outcome = await exchange.late;
    if (outcome === undefined && underWay.isStopped) {
      const fields = { event: 'token_answer_cut', account: slot.accountId };
      log.warn(fields, 'stopped before the token endpoint answered: a refresh token in its answer is lost');
      if (lease?.leave !== undefined) return lease.leave();
    } else if (outcome === undefined) {
      log.debug({ event: 'token_answer_missing', account: slot.accountId }, 'no late answer either');
    } else {
      log.info({ event: 'token_answer_late', account: slot.accountId }, 'token endpoint answered late');
      if (outcome.ok && slot.bring(tokenOf(outcome.grant, exchange.startedAt), 'on-demand'))
        deps.onLateToken(slot);
    }
    await release(lease);
  }

  const hasTime = ({ token, credential }: Slot): boolean =>
    token !== undefined && freshUntil(token, credential.safetyBufferMs) > clock.now();

  async function release(lease: GrantLock | undefined): Promise<void> {
    await lease?.release().catch((error: unknown) => keeper.storeFailed(error, 'lock'));
  }

  async function obtainNow(
    slot: Slot,
    request: RefreshRequest,
    turn: Turn | undefined,
  ): Promise<RefreshResult> {
    if (slot.isRetired) return failed(REPLACED);
    if (underWay.isStopped) return failed(stopping);
    // The store is asked first: what is in it costs no request, and no lock.
    const early = await look(slot, request.force);
    if (early instanceof AccessToken) return { ok: true, token: early, origin: 'store' };
    if (typeof early !== 'string' && isConsent(slot)) return failed(early);
    const right = await takeRight(slot);
    if (right === 'busy') return failed(heldElsewhere);
    const lease = typeof right === 'string' ? undefined : right;
    // One that is left behind tells others of a refresh that was cut short.
    let end = lease === undefined ? nothing : beginAsked();
    let isLate = false;
    try {
      // Whoever held the lease before us may have brought the token.
      const came = lease === undefined ? 'nothing' : await look(slot, request.force);
      if (came instanceof AccessToken) return { ok: true, token: came, origin: 'store' };
      if (typeof came !== 'string' && isConsent(slot)) return failed(came);
      const unknown = isConsent(slot) ? await catchUp(slot, lease?.interrupted && 'interrupted') : undefined;
      const isUnlocked = right === 'away' || came === 'away' || unknown !== undefined;
      const refusal = isUnlocked ? (unread(slot, unknown) ?? forbidden(slot, request)) : undefined;
      if (refusal !== undefined) return failed(refusal);
      const blocked = request.force ? undefined : await blockedByOthers(slot);
      if (blocked !== undefined) return failed(blocked);
      if (slot.isRetired) return failed(REPLACED);
      if (underWay.isStopped) return failed(stopping);
      if (lease?.isHeld() === false) return failed(heldElsewhere);
      if (lease === undefined) end = beginAsked();
      const exchange = await askUntilSure(slot, request, lease);
      if (exchange.late !== undefined && turn !== undefined) {
        isLate = true;
        turn.late(trackAsked(readLate(slot, exchange, lease)), clock.monotonic() + endpoints.lateMs);
        const { outcome } = exchange;
        const failure = outcome.ok ? REPLACED : outcome.failure;
        return failed({ ...failure, retryAfterMs: endpoints.lateMs }, true);
      }
      const { outcome, sent, probeAt, saving } = exchange;
      if (outcome.ok) {
        const token = await accept(slot, request, outcome.grant, { startedAt: exchange.startedAt, saving });
        return { ok: true, token, origin: request.origin };
      }
      await saving;
      // Not all was asked that could be: a refusal is no verdict on the account.
      if (underWay.isStopped) return failed(stopping, sent);
      const doubt: Doubt = {
        isShared: store.lock !== undefined && isConsent(slot),
        isStoreAway: isUnlocked || keeper.isStoreAway || lease?.isHeld() === false,
        interrupted: lease?.interrupted,
        now: clock.now(),
        cure: outcome.failure.cure ?? cureOf(outcome.failure.cause, causeFacts(slot.account)),
        patienceMs: endpoints.answerTimeoutMs + endpoints.lateMs,
      };
      const failure = believe(outcome.failure, doubt);
      if (sent && failure === outcome.failure) await tellOthers(slot, failure);
      return failed(failure, sent, probeAt);
    } finally {
      if (!isLate) await release(lease);
      end();
    }
  }

  /** Asks; again where our clock was wrong, or where what was refused is not the newest refresh token any more. */
  async function askUntilSure(
    slot: Slot,
    { origin }: RefreshRequest,
    lease: GrantLock | undefined,
  ): Promise<GrantAnswer> {
    const { grant } = slot;
    const isToAskAgain = (exchange: Exchange, after: TokenFailure['kind']): boolean =>
      !underWay.isStopped && lease?.isHeld() !== false && isFailure(exchange, after);
    let used = grant.refreshToken;
    let exchange = await ask(slot, origin, used, 0);
    if (isToAskAgain(exchange, 'clock_skew') && exchange.clockOffsetMs !== undefined)
      exchange = await ask(slot, origin, used, exchange.clockOffsetMs);
    if (isToAskAgain(exchange, 'needs_consent') && isConsent(slot)) {
      const seen = await look(slot, true);
      if (typeof seen !== 'string' && !(seen instanceof AccessToken))
        return { ...exchange, outcome: { ok: false, failure: seen } };
      if (grant.refreshToken === used) await catchUp(slot, 'refused');
      if (grant.refreshToken !== used && isToAskAgain(exchange, 'needs_consent')) {
        used = grant.refreshToken;
        exchange = await ask(slot, origin, used, 0);
      }
      const { spare } = grant;
      if (isToAskAgain(exchange, 'needs_consent') && spare !== undefined) {
        exchange = await ask(slot, origin, spare.refreshToken, 0, spare.signedInAs);
        if (exchange.outcome.ok || isFailure(exchange, 'needs_consent')) keeper.dropSpare(grant, spare);
        // It brought no other one: it is the grant's from now on all the same.
        if (exchange.outcome.ok && exchange.saving === undefined)
          await keeper.rotated(grant, spare.refreshToken.reveal(), Promise.resolve({}), spare.signedInAs);
      }
    }
    return exchange;
  }

  return {
    counts,
    obtain,
    async lookAgain(slot, isReplacing) {
      const [before, token] = [slot.grant.refreshToken, slot.token];
      await look(slot, true, isReplacing);
      if (isConsent(slot)) await catchUp(slot);
      return slot.grant.refreshToken !== before || slot.token !== token;
    },
    adopt(slot, refreshToken, token, judge) {
      const take = async (): Promise<boolean> => {
        const right = await takeRight(slot);
        if (right === 'busy') return false;
        const end = typeof right === 'object' ? beginAsked() : nothing;
        try {
          // The store counts the rotations: ours has to be the latest.
          await look(slot, true);
          await catchUp(slot);
          judge();
          // Once the grant is that of this sign-in.
          const tokens = Promise.resolve().then(() => ({ [slot.resource]: storedToken(slot, token) }));
          await trackAsked(keeper.signedIn(slot.grant, refreshToken.reveal(), tokens, slot.account.user));
          // Of another consent.
          keeper.dropSpare(slot.grant);
          slot.apply({ type: 'forgotten' });
          slot.bring(token, 'operator');
          return slot.grant.refreshToken?.reveal() === refreshToken.reveal();
        } finally {
          if (typeof right === 'object') await release(right);
          end();
        }
      };
      return track(turns.take(slot.grant, take, () => false));
    },
    stop: underWay.stop,
    settled: underWay.settled,
    answered: () => underWay.answered(endpoints.answerTimeoutMs + endpoints.lateMs),
  };
}

const nothing = (): void => undefined;

const isConsent = (slot: Slot): boolean => slot.credential.grant === 'refresh_token';

const isFailure = ({ outcome, late }: Exchange, kind: TokenFailure['kind']): boolean =>
  !outcome.ok && late === undefined && outcome.failure.kind === kind;

/** For nobody: whoever waits asks the slot that took the place. */
const REPLACED = passing('the account was changed or removed meanwhile');
const heldElsewhere = passing(
  'another process refreshes this account and has not finished: nothing is asked beside it',
);
const stillWaiting = (restMs: number): TokenFailure => ({
  ...passing('the token endpoint has not answered the last request yet: its answer is still awaited'),
  retryAfterMs: Math.max(restMs, 0),
});
