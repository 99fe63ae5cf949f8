/**
 * Grants shared by several instances through Redis. An access token lives there as long as it is valid,
 * a rotated refresh token much longer. A lock per account lets one instance refresh at a time. While
 * Redis is gone every operation rejects at once.
 */
import { randomUUID } from 'node:crypto';
import type { Log } from '../log.ts';
import type { RedisConnection } from '../redis.ts';
import { SealError, type Sealer } from './sealing.ts';
import { formatStored, parseBlock, parseStored } from './stored-text.ts';
import type { Lease, StoredGrant, TokenStore } from './token-store.ts';

export interface RedisStoreDeps {
  readonly log: Log;
  /** Without one the values are in the clear. */
  readonly sealer: Sealer | undefined;
}

export interface RedisStoreOptions {
  /** First part of every key. Default `xoauth2-relay`. */
  readonly prefix?: string;
  /** A lock whose holder died is free after this, ms. Default 10,000; a living holder extends it. */
  readonly lockMs?: number;
  /** Longest wait for a lock, ms. Default 30,000: more than one refresh takes. */
  readonly lockWaitMs?: number;
}

/** Twice what Microsoft lets a refresh token lie unused. */
const REFRESH_TOKEN_LIFE_MS = 180 * 24 * 60 * 60_000;
const POLL_MS = 50;

/** Only the owner may free or extend a lock. */
const RELEASE = `if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end`;
const EXTEND = `if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end`;

export function createRedisStore(
  connection: RedisConnection,
  deps: RedisStoreDeps,
  options: RedisStoreOptions = {},
): TokenStore {
  const { log, sealer } = deps;
  const { ask } = connection;
  const prefix = options.prefix ?? 'xoauth2-relay';
  const lockMs = options.lockMs ?? 10_000;
  const lockWaitMs = options.lockWaitMs ?? 30_000;
  const channel = `${prefix}:forgotten`;
  let closed = false;

  const tokenKey = (accountId: string): string => `${prefix}:token:${accountId}`;
  const grantKey = (accountId: string): string => `${prefix}:grant:${accountId}`;
  const blockKey = (accountId: string): string => `${prefix}:block:${accountId}`;
  const lockKey = (accountId: string): string => `${prefix}:lock:${accountId}`;

  function parse(text: string | null, key: string): StoredGrant | undefined {
    if (text === null) return undefined;
    try {
      return parseStored(text, key, sealer).grant;
    } catch (error) {
      const reason = error instanceof SealError ? error.message : 'unreadable';
      log.error(
        { event: 'redis_value_unreadable', key, reason },
        'stored tokens of an account cannot be read',
      );
      return undefined;
    }
  }

  async function tryLock(accountId: string): Promise<Lease | undefined> {
    const key = lockKey(accountId);
    const owner = randomUUID();
    const taken = await ask((redis) =>
      redis.set(key, owner, { condition: 'NX', expiration: { type: 'PX', value: lockMs } }),
    );
    if (taken === null) return undefined;
    const extend = setInterval(() => {
      ask((redis) => redis.eval(EXTEND, { keys: [key], arguments: [owner, String(lockMs)] })).then(
        (held) => {
          if (held === 0) clearInterval(extend);
        },
        () => undefined,
      );
    }, lockMs / 3);
    extend.unref();
    return {
      async release() {
        clearInterval(extend);
        await ask((redis) => redis.eval(RELEASE, { keys: [key], arguments: [owner] }));
      },
    };
  }

  return {
    kind: 'redis',
    open: connection.open,
    async load(accountId) {
      const keys = [tokenKey(accountId), grantKey(accountId)] as const;
      const [token = null, grant = null] = await ask((redis) => redis.mGet([...keys]));
      const kept = parse(grant, keys[1]);
      const cached = parse(token, keys[0]);
      if (cached === undefined) return kept;
      return kept?.grantFingerprint === cached.grantFingerprint ? { ...kept, ...cached } : cached;
    },
    async save(accountId, grant) {
      const { refreshToken, refreshTokenObtainedAt, ...rest } = grant;
      const lifeMs = Math.floor((grant.expiresAt ?? 0) - Date.now());
      await ask((redis) => {
        const transaction = redis.multi();
        const put = (key: string, value: StoredGrant, ms: number): void => {
          transaction.set(key, formatStored(value, key, sealer), { expiration: { type: 'PX', value: ms } });
        };
        if (refreshToken !== undefined) {
          const { grantFingerprint } = grant;
          const kept = {
            grantFingerprint,
            refreshToken,
            refreshTokenObtainedAt: refreshTokenObtainedAt ?? 0,
          };
          put(grantKey(accountId), kept, REFRESH_TOKEN_LIFE_MS);
        }
        if (grant.accessToken !== undefined && lifeMs > 0) put(tokenKey(accountId), rest, lifeMs);
        else transaction.del(tokenKey(accountId));
        transaction.del(blockKey(accountId));
        return transaction.exec();
      });
    },
    async remove(accountId) {
      await ask((redis) => redis.del([tokenKey(accountId), grantKey(accountId)]));
    },
    // Another instance may still serve them; what is left ends by itself.
    prune: async () => 0,
    async lock(accountId) {
      const deadline = Date.now() + lockWaitMs;
      for (;;) {
        const lease = await tryLock(accountId);
        if (lease !== undefined || Date.now() > deadline || closed) return lease;
        await pause(POLL_MS * (0.5 + Math.random()));
      }
    },
    async block(accountId, block) {
      const value = Math.ceil(block.until - Date.now());
      if (value < 1) return;
      const text = JSON.stringify(block);
      await ask((redis) => redis.set(blockKey(accountId), text, { expiration: { type: 'PX', value } }));
    },
    async blockOf(accountId) {
      const text = await ask((redis) => redis.get(blockKey(accountId)));
      return text === null ? undefined : parseBlock(text);
    },
    async announceForgotten(accountId) {
      await connection.publish(channel, accountId);
    },
    onForgotten: (listener) => connection.subscribe(channel, listener),
    async close() {
      closed = true;
      connection.close();
    },
  };
}

const pause = (ms: number): Promise<void> => new Promise((resume) => setTimeout(resume, ms));
