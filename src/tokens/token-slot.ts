/**
 * What is kept of one account and one resource: its states, what each event makes of them, and how long a
 * token is handed out. The only owner of all that; others tell it what happened and read what it says. No I/O.
 */
import type { Account, AccountState, AccountStatus } from '../accounts/account.ts';
import type { Credential, TokenResource } from '../accounts/credential.ts';
import type { Clock } from '../clock.ts';
import { foldAddress } from '../protocol/text.ts';
import { AccessToken, type TokenError, type TokenErrorCode } from './access-token.ts';
import type { Grant } from './grant.ts';

/** What made a token come. */
export type TokenOrigin =
  | 'pre-cache'
  | 'refresh-ahead'
  | 'on-demand'
  | 'renewal'
  | 'operator'
  | 'store'
  | 'accounts-file';

/** A token in the cache. `…Mono` is on the monotonic clock: the wall clock may step back. */
export interface Held {
  readonly token: AccessToken;
  readonly origin: TokenOrigin;
  readonly endsMono: number;
}

/** Why the last attempt failed. */
export interface FailedAttempts {
  readonly error: TokenError;
  /** ms since the epoch. */
  readonly at: number;
  /** Attempts that failed in a row. */
  readonly count: number;
  /** No request before this, monotonic ms. */
  readonly blockedUntilMono: number;
  /** The operator has been told that the token ends soon and none comes. */
  readonly warned: boolean;
}

/** A question under way; everybody who asks meanwhile shares it. */
export interface Flight {
  readonly number: number;
  readonly result: Promise<AccessToken>;
}

export type SlotState =
  /** Nothing had, nothing tried. */
  | { readonly name: 'empty' }
  /** Asked for; `held` is handed out meanwhile. */
  | {
      readonly name: 'asking';
      readonly flight: Flight;
      readonly held: Held | undefined;
      readonly trouble: FailedAttempts | undefined;
    }
  | { readonly name: 'holding'; readonly held: Held }
  /** The last attempt failed; `held` is handed out to its last moment. */
  | { readonly name: 'failing'; readonly trouble: FailedAttempts; readonly held: Held | undefined }
  /** Removed or replaced; whatever still comes is for nobody. */
  | { readonly name: 'retired' };

export type SlotEvent =
  | { readonly type: 'asked'; readonly flight: Flight }
  /** A flight brought a token. */
  | { readonly type: 'answered'; readonly flight: number; readonly held: Held }
  | { readonly type: 'refused'; readonly flight: number; readonly trouble: FailedAttempts }
  /** A token came without a flight: from the store, the accounts file, a late answer. */
  | { readonly type: 'brought'; readonly held: Held }
  /** The upstream refused the token. */
  | { readonly type: 'rejected' }
  /** The operator, or another relay, wants another one; a flight under way is for its waiters only. */
  | { readonly type: 'forgotten' }
  | { readonly type: 'retired' };

const EMPTY: SlotState = { name: 'empty' };

/** What an event makes of a state; the state itself where it changes nothing. */
export function nextState(state: SlotState, event: SlotEvent): SlotState {
  if (state.name === 'retired') return state;
  const held = state.name === 'empty' ? undefined : state.held;
  const trouble = state.name === 'asking' || state.name === 'failing' ? state.trouble : undefined;
  const atRest = (rest: Held | undefined): SlotState => {
    if (trouble !== undefined) return { name: 'failing', trouble, held: rest };
    if (state.name === 'empty') return state;
    return rest === undefined ? EMPTY : { name: 'holding', held: rest };
  };
  const isOf = (flight: number): boolean => state.name === 'asking' && state.flight.number === flight;
  switch (event.type) {
    case 'asked':
      return state.name === 'asking' ? state : { name: 'asking', flight: event.flight, held, trouble };
    case 'answered':
      return isOf(event.flight) ? { name: 'holding', held: event.held } : state;
    case 'refused':
      return isOf(event.flight) ? { name: 'failing', trouble: event.trouble, held } : state;
    case 'brought':
      return state.name === 'asking'
        ? { ...state, held: event.held, trouble: undefined }
        : { name: 'holding', held: event.held };
    case 'rejected':
      return state.name === 'asking' ? { ...state, held: undefined } : atRest(undefined);
    case 'forgotten':
      return atRest(undefined);
    case 'retired':
      return { name: 'retired' };
    default:
      return event satisfies never;
  }
}

export interface Slot {
  readonly accountId: string;
  readonly resource: TokenResource;
  readonly credential: Credential;
  /** As sent in the request. */
  readonly scope: string;
  readonly grant: Grant;
  /** Changes when an access token obtained before may be the wrong one now, also by a new sign-in. */
  readonly tokenFingerprint: string;
  account: Account;
  readonly state: SlotState;
  readonly token: AccessToken | undefined;
  readonly trouble: FailedAttempts | undefined;
  readonly flight: Flight | undefined;
  readonly isRetired: boolean;
  /** Number for the next flight. */
  nextFlight(): number;
  apply(event: SlotEvent): void;
  /** The token, if it may be handed out now; counts as a use. */
  handOut(): AccessToken | undefined;
  /** As `handOut`, counting nothing. */
  isFresh(): boolean;
  /** The token is inside its life, whatever its safety buffer. */
  isUsable(): boolean;
  noteUse(): void;
  readonly uses: number;
  readonly lastUsedAt: number | undefined;
  /** The upstream refused this token: it is not to be had from the store again. */
  reject(token: AccessToken): void;
  /** What replaces `old` knows what the upstream refused. */
  inherit(old: Slot): void;
  readonly rejected: string | undefined;
  /** Takes a token from the store, the accounts file or a late answer; false where it is ended, refused or no later. */
  bring(token: AccessToken, origin: TokenOrigin): boolean;
  /** The same where another relay has just obtained it: it need not live longer than the one held. */
  replace(token: AccessToken, origin: TokenOrigin): boolean;
  hold(token: AccessToken, origin: TokenOrigin): Held;
  /** While blocked: until when, monotonic ms; 0 otherwise. */
  readonly blockedUntilMono: number;
  /** Nothing is fetched ahead: nobody sends. Of this the background decides. */
  isAsleep: boolean;
  /** What an operator sees. */
  describe(): AccountState;
}

export interface SlotFacts {
  readonly account: Account;
  readonly credential: Credential;
  readonly resource: TokenResource;
  readonly scope: string;
  readonly grant: Grant;
  readonly tokenFingerprint: string;
  readonly clock: Clock;
}

export const createSlot = (facts: SlotFacts): Slot => new TokenSlot(facts);

/** A class, because there is one for every account: as a closure each of thousands took 5 kB. */
class TokenSlot implements Slot {
  readonly accountId: string;
  readonly resource: TokenResource;
  readonly credential: Credential;
  readonly scope: string;
  readonly grant: Grant;
  readonly #fingerprint: string;
  account: Account;
  isAsleep = false;
  readonly #clock: Clock;
  #state: SlotState = EMPTY;
  #flights = 0;
  #uses = 0;
  #lastUsedAt: number | undefined;
  #rejected: string | undefined;
  /** The token may be handed out before both; 0 without one. */
  #outUntil = 0;
  #outUntilMono = 0;

  constructor(facts: SlotFacts) {
    this.accountId = facts.account.id;
    this.resource = facts.resource;
    this.credential = facts.credential;
    this.scope = facts.scope;
    this.grant = facts.grant;
    this.#fingerprint = facts.tokenFingerprint;
    this.account = facts.account;
    this.#clock = facts.clock;
  }

  get #held(): Held | undefined {
    const state = this.#state;
    return state.name === 'empty' || state.name === 'retired' ? undefined : state.held;
  }
  get state(): SlotState {
    return this.#state;
  }
  get token(): AccessToken | undefined {
    return this.#held?.token;
  }
  get trouble(): FailedAttempts | undefined {
    const state = this.#state;
    return state.name === 'asking' || state.name === 'failing' ? state.trouble : undefined;
  }
  get flight(): Flight | undefined {
    return this.#state.name === 'asking' ? this.#state.flight : undefined;
  }
  get isRetired(): boolean {
    return this.#state.name === 'retired';
  }
  get tokenFingerprint(): string {
    const { signedInAs } = this.grant;
    return signedInAs === undefined ? this.#fingerprint : `${this.#fingerprint} ${foldAddress(signedInAs)}`;
  }
  get uses(): number {
    return this.#uses;
  }
  get lastUsedAt(): number | undefined {
    return this.#lastUsedAt;
  }
  get rejected(): string | undefined {
    return this.#rejected;
  }
  get blockedUntilMono(): number {
    return this.trouble?.blockedUntilMono ?? 0;
  }

  nextFlight(): number {
    this.#flights += 1;
    return this.#flights;
  }

  apply(event: SlotEvent): void {
    this.#state = nextState(this.#state, event);
    const held = this.#held;
    if (held === undefined) {
      this.#outUntil = 0;
      this.#outUntilMono = 0;
      return;
    }
    const { token, endsMono } = held;
    // While no new one can be had, to the last moment.
    this.#outUntil =
      this.trouble === undefined ? freshUntil(token, this.credential.safetyBufferMs) : usableUntil(token);
    this.#outUntilMono = endsMono - (token.expiresAt - this.#outUntil);
  }

  #isBefore(wall: number, mono: number): boolean {
    return this.#clock.now() < wall && this.#clock.monotonic() < mono;
  }

  handOut(): AccessToken | undefined {
    if (!this.isFresh()) return undefined;
    this.noteUse();
    return this.token;
  }

  isFresh(): boolean {
    return this.#outUntil !== 0 && this.#isBefore(this.#outUntil, this.#outUntilMono);
  }

  isUsable(): boolean {
    const held = this.#held;
    if (held === undefined) return false;
    const until = usableUntil(held.token);
    return this.#isBefore(until, held.endsMono - (held.token.expiresAt - until));
  }

  noteUse(): void {
    this.#uses += 1;
    this.#lastUsedAt = this.#clock.now();
  }

  reject(token: AccessToken): void {
    this.#rejected = token.reveal();
    if (this.token?.reveal() === this.#rejected) this.apply({ type: 'rejected' });
  }

  inherit(old: Slot): void {
    this.#rejected = old.rejected;
  }

  #take(token: AccessToken, origin: TokenOrigin, latestEnd: number): boolean {
    if (this.isRetired || token.reveal() === this.#rejected || token.expiresAt <= latestEnd) return false;
    this.apply({ type: 'brought', held: this.hold(token, origin) });
    return true;
  }

  bring(token: AccessToken, origin: TokenOrigin): boolean {
    return this.#take(token, origin, Math.max(this.#clock.now(), this.token?.expiresAt ?? 0));
  }

  replace(token: AccessToken, origin: TokenOrigin): boolean {
    return this.#take(token, origin, this.#clock.now());
  }

  hold(token: AccessToken, origin: TokenOrigin): Held {
    return { token, origin, endsMono: this.#clock.monotonic() + (token.expiresAt - this.#clock.now()) };
  }

  describe(): AccountState {
    const { trouble } = this;
    const usable = this.isUsable();
    if (trouble === undefined || (usable && PASSING.has(trouble.error.code)))
      return { status: usable || this.isAsleep ? 'ready' : 'refreshing' };
    const { error } = trouble;
    const restMs = trouble.blockedUntilMono - this.#clock.monotonic();
    return {
      status: STATUS[error.code],
      reason: error.message,
      ...(error.causeId === undefined ? {} : { cause: error.causeId }),
      ...(error.cure === undefined ? {} : { cure: error.cure }),
      ...(restMs > 0 ? { until: this.#clock.now() + restMs } : {}),
    };
  }
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

/** The token the operator brought along, while it lives. With less than the safety buffer left it is renewed before it is used. */
export function initialToken(credential: Credential, now: number): AccessToken | undefined {
  const { initial, safetyBufferMs } = credential;
  if (initial === undefined || initial.expiresAt <= now) return undefined;
  // Its whole life is not known, but it has not just begun where little is left.
  const obtainedAt = Math.min(now, initial.expiresAt - 2 * safetyBufferMs);
  return new AccessToken(initial.accessToken.reveal(), initial.expiresAt, obtainedAt);
}
