/**
 * What outlives a process, or is shared by several: one record per account. In and out: plain
 * records; how they are kept (memory, sealed files, Redis) is the store's own affair.
 */

import type { Secret } from '../accounts/credential.ts';
import type { Log } from '../log.ts';
import type { TokenFailureKind } from '../protocol/token-failure.ts';
import { createRedisConnection, type RedisConnection } from '../redis.ts';
import { createSealer } from './sealing.ts';
import { createFileStore } from './store-file.ts';
import { createMemoryStore } from './store-memory.ts';
import { createRedisStore } from './store-redis.ts';

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

/** The right to refresh one account among all instances. */
export interface Lease {
  release(): Promise<void>;
}

export interface TokenStore {
  readonly kind: 'memory' | 'file' | 'redis';
  /** First of all, once. Rejects where the store cannot be used as configured; a server that is away is no such case. */
  open(): Promise<void>;
  /** Undefined where nothing (readable) is kept. Rejects when the store cannot be reached. */
  load(accountId: string): Promise<StoredGrant | undefined>;
  /** Durable when it resolves. Rejects when it could not be kept. */
  save(accountId: string, grant: StoredGrant): Promise<void>;
  remove(accountId: string): Promise<void>;
  /** Removes the records of all accounts but these; how many. Only where the store belongs to this process alone. */
  prune(accountIds: ReadonlySet<string>): Promise<number>;
  /** Present where several instances share the store: waits for the right to refresh; undefined: go without. */
  lock?(accountId: string): Promise<Lease | undefined>;
  /** Notes that the account is not to be asked about; a later `save` ends it. Present where there is a lock. */
  block?(accountId: string, block: StoredBlock): Promise<void>;
  blockOf?(accountId: string): Promise<StoredBlock | undefined>;
  /** Tells the other instances to forget their access token. */
  announceForgotten?(accountId: string): Promise<void>;
  /** Hears the others doing so. */
  onForgotten?(listener: (accountId: string) => void): void;
  close(): Promise<void>;
}

export interface TokenStoreOptions {
  /** Directory of the file store. */
  readonly stateDir?: string | undefined;
  /** Keys that seal what is stored, white space between, the first one seals. */
  readonly stateKey?: Secret | undefined;
  /** `memory`, `file`, `redis://…` or `rediss://…`. Default: file with a state directory, else memory. */
  readonly storeUrl?: Secret | undefined;
  /** Shared with the limits; default a connection of its own to `storeUrl`. */
  readonly redis?: RedisConnection | undefined;
  readonly log: Log;
}

/** The store the operator asked for, not opened yet. Throws on a state key or an address that cannot be right. */
export function createTokenStore(options: TokenStoreOptions): TokenStore {
  const { stateDir, stateKey, log } = options;
  const wanted = options.storeUrl?.reveal() ?? (stateDir === undefined ? 'memory' : 'file');
  if (wanted === 'memory') return createMemoryStore();
  const sealer = stateKey === undefined ? undefined : createSealer(stateKey);
  if (wanted === 'file') {
    if (stateDir === undefined) throw new Error('the file store needs a state directory');
    return createFileStore(stateDir, { log, sealer });
  }
  if (options.storeUrl === undefined || !/^rediss?:\/\//.test(wanted)) {
    throw new Error('unknown token store: memory, file, redis://… or rediss://…');
  }
  if (sealer === undefined) {
    log.warn({ event: 'store_in_the_clear' }, 'tokens in Redis are not encrypted: give a state key');
  }
  return createRedisStore(options.redis ?? createRedisConnection(options.storeUrl, { log }), { log, sealer });
}
