/** Chooses where is known what was sent by Graph: where tokens are kept. In: Redis or a directory. Out: a ledger. */
import type { Clock } from '../../clock.ts';
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
  readonly clock: Clock;
}): Ledger {
  const { log, redis, directory, clock } = options;
  if (redis === undefined) return createLocalLedger({ log, clock, directory });
  return { ...createRedisLedger(redis, KEY_PREFIX, clock), close: async () => {} };
}
