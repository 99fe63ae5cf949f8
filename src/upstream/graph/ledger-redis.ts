/**
 * The ledger that several relays share in Redis: one script a claim, one a note. A relay that dies leaves
 * its claim, which ends by itself. Without Redis nothing is claimed, and the messages wait: another relay
 * may have sent them.
 */
import { randomUUID } from 'node:crypto';
import { type RedisConnection, redisScript } from '../../redis.ts';
import { CLAIM_MS, formatEntry, KEEP_MS, type Ledger, parseEntry } from './ledger.ts';

/** `false` where the claim is held, else what is known (`''` for nothing). */
const CLAIM = redisScript(
  `if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return redis.call('get', KEYS[2]) or '' else return false end`,
);
/** Only the holder may note; 0: the claim was lost. */
const NOTE = redisScript(
  `if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end redis.call('set', KEYS[2], ARGV[2], 'PX', ARGV[3]) return 1`,
);
const FORGET = redisScript(
  `if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('del', KEYS[2])`,
);
const RELEASE = redisScript(
  `if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end`,
);

/** `prefix` is the first part of every key. Connects with the first message; closes the connection with itself. */
export function createRedisLedger(redis: RedisConnection, prefix: string): Ledger {
  return {
    open: () => redis.open(),
    async claim(key) {
      await redis.open();
      const owner = randomUUID();
      const keys = [`${prefix}:graph:claim:${key}`, `${prefix}:graph:known:${key}`];
      const known = await redis.run(CLAIM, keys, [owner, CLAIM_MS]);
      if (typeof known !== 'string') return 'busy';
      const give = (script: typeof FORGET): Promise<void> =>
        redis.run(script, keys, [owner]).then(
          () => undefined,
          () => undefined,
        );
      let isOver = false;
      return {
        known: parseEntry(known),
        async note(entry) {
          const held = await redis.run(NOTE, keys, [owner, formatEntry(entry), KEEP_MS]);
          if (held !== 1) throw new Error('another relay took the message over');
        },
        forget: () => give(FORGET),
        async release() {
          if (isOver) return;
          isOver = true;
          await give(RELEASE);
        },
      };
    },
    close: async () => redis.close(),
  };
}
