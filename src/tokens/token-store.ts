/**
 * What outlives a process, or is shared by several: one record per account. In and out: plain
 * records; how they are kept (memory, sealed files, Redis) is the store's own affair.
 */

/** What is kept of one account. */
export interface StoredGrant {
  /** Hash of what the operator gave (client_id and refresh_token): another one there makes this record void. */
  readonly grantFingerprint: string;
  /** The newest refresh token the provider gave; absent where it never rotated. */
  readonly refreshToken?: string;
  /** ms since the epoch. */
  readonly refreshTokenObtainedAt?: number;
  /** Hash of everything an access token depends on (endpoint, scope, subject, …). */
  readonly tokenFingerprint?: string;
  readonly accessToken?: string;
  /** ms since the epoch. */
  readonly expiresAt?: number;
  readonly obtainedAt?: number;
}

/** The right to refresh one account among all instances. */
export interface Lease {
  release(): Promise<void>;
}

export interface TokenStore {
  readonly kind: 'memory' | 'file' | 'redis';
  /** Undefined where nothing (readable) is kept. Rejects when the store cannot be reached. */
  load(accountId: string): Promise<StoredGrant | undefined>;
  /** Durable when it resolves. Rejects when it could not be kept. */
  save(accountId: string, grant: StoredGrant): Promise<void>;
  remove(accountId: string): Promise<void>;
  /** Removes the records of all accounts but these; how many. Only where the store belongs to this process alone. */
  prune(accountIds: ReadonlySet<string>): Promise<number>;
  /** Present where several instances share the store: waits for the right to refresh; undefined: go without. */
  lock?(accountId: string): Promise<Lease | undefined>;
  /** Tells the other instances to forget their access token. */
  announceForgotten?(accountId: string): Promise<void>;
  /** Hears the others doing so. */
  onForgotten?(listener: (accountId: string) => void): void;
  close(): Promise<void>;
}
