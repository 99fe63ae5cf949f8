/** Chooses the token store an operator asked for. In: settings. Out: a store, not opened yet. */
import type { Secret } from '../accounts/credential.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { createRedisConnection, type RedisConnection } from '../redis.ts';
import { createSealer } from './sealing.ts';
import { type FileOwner, stateFilesOf } from './state-files.ts';
import { createFileStore } from './store-file.ts';
import { createMemoryStore } from './store-memory.ts';
import { createRedisStore } from './store-redis.ts';
import { createTwofoldStore } from './store-twofold.ts';
import type { TokenStore } from './token-store.ts';

export interface TokenStoreOptions {
  /** Directory of the file store; with Redis, of this relay's own copies. */
  readonly stateDir?: string | undefined;
  /** Keys that seal what is stored, each on a line, the first one seals. */
  readonly stateKey?: Secret | undefined;
  /** `memory`, `file`, `redis://…` or `rediss://…`. Default: file with a state directory, else memory. */
  readonly storeUrl?: Secret | undefined;
  /** Shared with the limits; default a connection of its own to `storeUrl`. */
  readonly redis?: RedisConnection | undefined;
  /** With Redis: since when this relay has been the only one, monotonic ms; undefined: it is not, or that is not known. */
  readonly aloneSince?: (() => number | undefined) | undefined;
  /** `guest`: a command beside the running relay; it does not claim the directory and prunes nothing. Default `owner`. */
  readonly role?: 'owner' | 'guest';
  /** As root: whose the state directory is. Default this process's user's. */
  readonly owner?: FileOwner | undefined;
  /** Longest answer time of a token endpoint, ms: nobody waits for another process's refresh much longer. */
  readonly answerTimeoutMs?: number | undefined;
  readonly clock?: Clock;
  readonly log: Log;
}

/** A lock is waited for a little longer than one refresh may keep anybody waiting, ms. */
const LOCK_MARGIN_MS = 5000;

/** The store the operator asked for. Throws on a state key or an address that cannot be right. */
export function createTokenStore(options: TokenStoreOptions): TokenStore {
  const { stateDir, stateKey, log, clock = systemClock, role = 'owner', answerTimeoutMs = 20_000 } = options;
  const wanted = options.storeUrl?.reveal() ?? (stateDir === undefined ? 'memory' : 'file');
  if (wanted === 'memory') return createMemoryStore(clock);
  const sealer = stateKey === undefined ? undefined : createSealer(stateKey);
  const lockWaitMs = answerTimeoutMs + LOCK_MARGIN_MS;
  const inDirectory = (directory: string): TokenStore =>
    createFileStore(
      directory,
      { log, sealer, clock, files: stateFilesOf(options.owner) },
      { role, lockWaitMs },
    );
  if (wanted === 'file') {
    if (stateDir === undefined) throw new Error('the file store needs a state directory');
    return inDirectory(stateDir);
  }
  if (options.storeUrl === undefined || !/^rediss?:\/\//.test(wanted)) {
    throw new Error('unknown token store: memory, file, redis://… or rediss://…');
  }
  if (sealer === undefined) {
    log.warn({ event: 'store_in_the_clear' }, 'tokens in Redis are not encrypted: give a state key');
  }
  if (stateDir === undefined && role === 'owner') {
    log.warn(
      { event: 'store_without_state_dir' },
      'Redis without a state directory: a relay that ends while Redis is silent loses the refresh tokens that came meanwhile; give it a directory of its own (--state-dir)',
    );
  }
  const connection = options.redis ?? createRedisConnection(options.storeUrl, { log, clock });
  const shared = createRedisStore(
    connection,
    { log, sealer, clock, ...(options.aloneSince && { aloneSince: options.aloneSince }) },
    { lockWaitMs, role },
  );
  return stateDir === undefined ? shared : createTwofoldStore(shared, inDirectory(stateDir), log);
}
