/** Relays' shared limits on a real Redis. */
import type { WithoutRedis } from '../../src/fleet/contact.ts';
import { createMembership, type Membership, type RelayRow } from '../../src/fleet/membership.ts';
import { createSharedLimits, type SharedLimits } from '../../src/fleet/shared-limits.ts';
import { type Log, silentLog } from '../../src/log.ts';
import { createRedisConnection } from '../../src/redis.ts';
import type { MailboxLimits } from '../../src/relay/mailbox-counts.ts';
import type { Defer } from '../support/leak-check.ts';
import { type Redis, startRedis } from '../support/redis.ts';
import { waitFor } from '../support/wait-for.ts';

const ROW: RelayRow = {
  version: '0',
  host: 'h',
  pid: 1,
  startedAt: 0,
  relayed: 0,
  deferred: 0,
  rejected: 0,
  lagMs: 0,
};
export const limits =
  (more: Partial<MailboxLimits> = {}) =>
  (): MailboxLimits => ({
    atOnce: 3,
    perMinute: undefined,
    perDay: undefined,
    recipientsPerDay: undefined,
    ...more,
  });

export async function redisFor(defer: Defer): Promise<Redis> {
  const redis = await startRedis();
  defer(() => redis.kill());
  return redis;
}

export interface Relay {
  readonly limits: SharedLimits;
  readonly membership: Membership;
  /** Without a word, as by SIGKILL. */
  die(): void;
  /** In order. */
  leave(): Promise<void>;
}

export async function relay(
  defer: Defer,
  redis: Redis,
  withoutRedis: WithoutRedis = 'share',
  options: {
    readonly log?: Log;
    /** What an earlier process kept. */
    readonly kept?: { readonly life: unknown; readonly counts: unknown };
  } = {},
): Promise<Relay> {
  const { log = silentLog, kept } = options;
  const connection = createRedisConnection({ reveal: () => redis.url }, { log });
  await connection.open();
  const membership = createMembership({ redis: connection, row: () => ROW });
  const shared = createSharedLimits({ redis: connection, membership, log }, { withoutRedis });
  if (kept !== undefined) {
    membership.kept.restore(kept.life);
    shared.kept.restore(kept.counts);
  }
  await membership.start();
  const die = (): void => {
    void shared.close();
    connection.close();
  };
  defer(async () => {
    await shared.close();
    await membership.leave();
    connection.close();
  });
  const leave = async (): Promise<void> => {
    await shared.close();
    await membership.leave();
    connection.close();
  };
  return { limits: shared, membership, die, leave };
}

/** Redis decides at all of them. */
export const settled = (relays: readonly Relay[]): Promise<unknown> =>
  waitFor(() => relays.every((r) => !r.limits.isApart), { what: 'shared limits', timeoutMs: 15_000 });

/** Three relays on a Redis of their own, which decides at all. */
export async function threeRelays(
  defer: Defer,
): Promise<{ readonly redis: Redis; readonly relays: readonly Relay[] }> {
  const redis = await redisFor(defer);
  const relays = await Promise.all([1, 2, 3].map(() => relay(defer, redis)));
  await settled(relays);
  return { redis, relays };
}

/** Two relays on a Redis of their own, which decides at both. */
export async function pair(defer: Defer) {
  const redis = await redisFor(defer);
  const relays = await Promise.all([relay(defer, redis), relay(defer, redis)]);
  await settled(relays);
  const [a, b] = relays;
  return { redis, relays, a, b };
}
