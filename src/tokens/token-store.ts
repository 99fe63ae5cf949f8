/**
 * What outlives a process, or is shared by several: the grants of an account and its access tokens, as
 * plain records. Types only; how they are kept (memory, sealed files, Redis) is each store's own affair.
 */
import type { TokenResource } from '../accounts/credential.ts';
import type { TokenFailureKind } from '../protocol/token-failure.ts';
import type { Grant } from './grant.ts';
import type { ConsentHolder } from './same-consent.ts';

/** One consent of one account: another refresh token or client_id in the accounts file is another grant. */
export interface GrantId {
  readonly accountId: string;
  /** Hash of what the operator gave (client_id and refresh_token). */
  readonly fingerprint: string;
  /** The mailbox: what a person signed in for under another one is not its grant. Undefined: not known, anybody's. */
  readonly user?: string | undefined;
}

export interface StoredToken {
  /** Hash of everything an access token depends on (endpoint, scope, subject, …). */
  readonly fingerprint: string;
  readonly accessToken: string;
  /** ms since the epoch. */
  readonly expiresAt: number;
  readonly obtainedAt: number;
}

export type StoredTokens = Readonly<Partial<Record<TokenResource, StoredToken>>>;

/** What is kept of one grant. */
export interface StoredGrant {
  readonly grantFingerprint: string;
  /** Counts the rotations; 0 where the refresh token is still the operator's own. */
  readonly generation: number;
  /** The newest refresh token the provider gave; absent where it never rotated. */
  readonly refreshToken?: string;
  /** ms since the epoch. */
  readonly refreshTokenObtainedAt?: number;
  /** The mailbox for which a person signed in anew, in place of what the operator gave. */
  readonly signedInAs?: string;
  /** When, ms since the epoch; absent where an earlier version has kept it. */
  readonly signedInAt?: number;
  readonly tokens: StoredTokens;
}

/** A refresh token that a provider has just given. */
export interface Rotation {
  /** The generation it was made from, as far as this process knows. */
  readonly base: number;
  readonly refreshToken: string;
  /** ms since the epoch. */
  readonly obtainedAt: number;
  /** As in the grant. */
  readonly signedInAs?: string;
  readonly signedInAt?: number;
  /** Another store decides, and generations are counted there: what stood here of an earlier sign-in does not lift it above that. */
  readonly isCopy?: boolean;
  /** Access tokens that came with it; known a moment later than the refresh token is written down. */
  readonly tokens: Promise<StoredTokens>;
}

/** `kept: false`: the store holds a later generation than `base`, not of an earlier sign-in, and still holds it. */
export type RotationResult =
  | { readonly kept: true; readonly generation: number }
  | { readonly kept: false; readonly stored: StoredGrant };

/** An account that no instance asks about for a while. */
export interface StoredBlock {
  /** Hash of the credential that failed: another one is not blocked. */
  readonly fingerprint: string;
  readonly kind: TokenFailureKind;
  /** As in the failure: in words, no secret. */
  readonly message: string;
  readonly cure?: string;
  /** ms since the epoch. */
  readonly until: number;
}

/** A refresh that was begun and of whose end nothing is known. */
export interface Interruption {
  /** ms since the epoch, by the clock of whoever began. */
  readonly begunAt: number;
  /** Whoever began has ended for certain: nothing will be heard from there. */
  readonly isOver: boolean;
}

/** The right to refresh, among all processes that share the store. */
export interface GrantLock {
  /** What the last holder left behind when it died or lost its lock. */
  readonly interrupted: Interruption | undefined;
  /** False: it may have gone to another, because this process was paused or the store was away. Nothing is asked then. */
  isHeld(): boolean;
  release(): Promise<void>;
  /** Gives no more signs of life: whoever takes it next hears of a refresh that was cut short. */
  leave?(): void;
}

/** An account that is in the store and in the accounts file no more. */
export interface KeptGrant {
  readonly accountId: string;
  /** When it is forgotten, ms since the epoch. */
  readonly until: number;
}

/** By account id. */
export type ServedIds = ReadonlyMap<string, { readonly grant: Grant }>;

export interface TokenStore {
  readonly kind: 'memory' | 'file' | 'redis';
  /** First of all, once. Rejects where the store cannot be used as configured; a server that is away is no such case. */
  open(): Promise<void>;
  /** Undefined where nothing (readable) is kept. Rejects when the store cannot be reached. */
  load(id: GrantId): Promise<StoredGrant | undefined>;
  /**
   * The latest refresh token of the same consent that is kept under another account: one that was renamed, or shares
   * it. Without access tokens that matter. `unread`: served accounts with the same consent whose records this process
   * has not read. `isThorough`: what another process has changed under the store's hands counts. Rejects as `load`,
   * also where what may be the latest is there and cannot be read.
   */
  elsewhere?(
    holder: ConsentHolder,
    options: { readonly unread: readonly string[]; readonly isThorough: boolean },
  ): Promise<StoredGrant | undefined>;
  /** Who is served from now on: what is kept of others may be of accounts that were renamed. */
  serves?(accounts: ServedIds): void;
  /** Keeps a refresh token unless the store has a later one; that of an earlier sign-in is none. Durable when it resolves. Rejects when it could not be kept. */
  rotate(id: GrantId, rotation: Rotation): Promise<RotationResult>;
  /** Keeps an access token, or forgets it. Never touches the refresh token. */
  saveToken(id: GrantId, resource: TokenResource, token: StoredToken | undefined): Promise<void>;
  /**
   * Forgets the accounts that have been missing from `accountIds` for longer than `forgetAfterMs`, and names
   * those that are missing and still kept. Only where the store belongs to this process alone.
   */
  prune(
    accountIds: ReadonlySet<string>,
    forgetAfterMs: number,
  ): Promise<{ readonly gone: number; readonly kept: readonly KeptGrant[] }>;
  /**
   * Waits for the right to refresh, of an account or of all that have the consent with this fingerprint. Undefined:
   * another process holds it for longer than anybody should wait. Rejects when the store cannot be reached. Present
   * where several processes may share the store. `isWanted` false: nobody waits any more.
   */
  lock?(accountId: string, consent?: string, isWanted?: () => boolean): Promise<GrantLock | undefined>;
  /**
   * Since when this process alone can have refreshed, monotonic ms; undefined: another one may have, or may be doing
   * so. Known without the store. Present where there is a `lock`.
   */
  aloneSince?(): number | undefined;
  /** Notes that the account is not to be asked about; a later `rotate` or `saveToken` ends it. */
  block?(accountId: string, resource: TokenResource, block: StoredBlock): Promise<void>;
  blockOf?(accountId: string, resource: TokenResource): Promise<StoredBlock | undefined>;
  /** Hears that it answers again after it was away, also where nothing was asked of it meanwhile. */
  onBack?(listener: () => void): void;
  /** Tells the other instances to forget their access tokens. */
  announceForgotten?(accountId: string): Promise<void>;
  /** Hears the others doing so. */
  onForgotten?(listener: (accountId: string) => void): void;
  close(): Promise<void>;
}
