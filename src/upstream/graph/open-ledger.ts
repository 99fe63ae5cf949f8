/** Chooses where is known what was sent by Graph: where tokens are kept. In: Redis or a directory. Out: a ledger. */
import type { Log } from '../../log.ts';
import { KEY_PREFIX, type RedisConnection } from '../../redis.ts';
import type { Ledger } from './ledger.ts';
import { createLocalLedger } from './ledger-local.ts';
import { createRedisLedger } from './ledger-redis.ts';

/** `redis` goes first and is not closed: the connection is the token store's. Without either it is in memory. */
export function openLedger(options: {
  readonly log: Log;
  readonly redis: RedisConnection | undefined;
  readonly directory: string | undefined;
}): Ledger {
  const { log, redis, directory } = options;
  if (redis === undefined) return createLocalLedger({ log, directory });
  return { ...createRedisLedger(redis, KEY_PREFIX), close: async () => {} };
}
