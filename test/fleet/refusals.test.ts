// needs: redis-server
/** Redis answers, and does not do what it is asked: limits are as without it, until it does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Log, silentLog } from '../../src/log.ts';
import { leakless } from '../support/leak-check.ts';
import type { Redis } from '../support/redis.ts';
import { waitFor } from '../support/wait-for.ts';
import { limits, pair, redisFor, relay, settled } from './stage.ts';

const LIMITS = limits({ perMinute: 50, perDay: 1_000 });

interface Trouble {
  readonly reason: string;
  readonly begin: (redis: Redis) => void;
  readonly end: (redis: Redis) => void;
}

const troubles: readonly Trouble[] = [
  ...['lease', 'pace', 'day', 'queue'].map((kind) => ({
    reason: `WRONGTYPE of ${kind}`,
    begin(redis: Redis) {
      redis.command('del', `xoauth2-relay:${kind}:a`);
      redis.command('set', `xoauth2-relay:${kind}:a`, 'of another program');
    },
    end: (redis: Redis) => void redis.command('del', `xoauth2-relay:${kind}:a`),
  })),
  {
    reason: 'OOM',
    begin: (redis) => void redis.command('config', 'set', 'maxmemory', '1'),
    end: (redis) => void redis.command('config', 'set', 'maxmemory', '0'),
  },
  {
    reason: 'READONLY',
    begin: (redis) => void redis.command('replicaof', '127.0.0.1', '1'),
    end: (redis) => void redis.command('replicaof', 'no', 'one'),
  },
  {
    reason: 'NOPERM',
    begin: (redis) => void redis.command('acl', 'setuser', 'default', '-hincrby'),
    end: (redis) => void redis.command('acl', 'setuser', 'default', '+hincrby'),
  },
];

for (const { reason, begin, end } of troubles)
  test(
    `${reason}: one line with the cure, the share until it is over, no coming and going`,
    leakless(async (_t, defer) => {
      const redis = await redisFor(defer);
      const events: string[] = [];
      const note = (fields: { event?: string; reason?: string }): void =>
        void events.push([fields.event, fields.reason].filter((word) => word !== undefined).join(' '));
      const log = { ...silentLog, error: note, warn: note, info: note } as unknown as Log;
      const own = await relay(defer, redis, 'share', { log });
      await settled([own]);
      events.length = 0;
      // Held for longer than a place is lent.
      const long = await own.limits.reserve('a', LIMITS, 0);
      assert.ok(long.granted && long.place.claim?.(0) === undefined);
      begin(redis);
      const send = async (): Promise<void> => {
        const result = await own.limits.reserve('a', LIMITS, 2_000);
        assert.ok(result.granted);
        result.place.end({ unsent: false, recipients: 1 });
      };
      for (let i = 0; i < 3; i++) await send();
      await waitFor(() => own.limits.isApart, { what: 'the share' });
      // Signs of life, each of which may try again.
      const at = performance.now();
      await waitFor(() => performance.now() - at > 3_500, { what: 'some signs of life' });
      for (let i = 0; i < 3; i++) await send();
      assert.ok(own.limits.isApart);
      assert.deepEqual(events, [`redis_refuses ${reason.split(' ')[0]}`, 'shared_limits_away']);
      end(redis);
      await settled([own]);
      await send();
      long.place.end({ unsent: false, recipients: 1 });
      assert.deepEqual(events.slice(2), ['shared_limits']);
      await waitFor(
        () =>
          redis
            .command('hvals', 'xoauth2-relay:day:a')
            .split('\n')
            .reduce((sum, n) => sum + Number(n), 0) >= 4,
        { what: 'what was sent meanwhile counted' },
      );
    }),
  );

test(
  'while Redis refuses one relay something, its share of every mailbox is kept free',
  leakless(async (_t, defer) => {
    const { redis, a, b } = await pair(defer);
    redis.command('set', 'xoauth2-relay:pace:a', 'of another program');
    const refused = await a.limits.reserve('a', LIMITS, 0);
    assert.equal(refused.granted, false);
    await waitFor(() => a.limits.isApart, { what: 'the share' });
    // Its signs of life are heard all the same; others know within seconds that it goes by itself.
    const relays = 'xoauth2-relay:relays';
    const isMissing = (): boolean =>
      Number(redis.command('zcount', relays, '0', String(Date.now() - 4_000))) === 1;
    await waitFor(isMissing, { what: 'the relay that goes by its share' });
    let sent = 0;
    for (let i = 0; i < 50; i++) {
      const result = await b.limits.reserve('z', LIMITS, 0);
      if (!result.granted) break;
      sent++;
      result.place.end({ unsent: false, recipients: 1 });
    }
    assert.equal(sent, 25, 'half of the minute');
    redis.command('del', 'xoauth2-relay:pace:a');
    await settled([a, b]);
    await waitFor(() => !isMissing(), { what: 'both sharing all' });
    assert.ok((await b.limits.reserve('z', LIMITS, 0)).granted);
  }),
);

test(
  'a sign of life that Redis refuses is a refusal, though nothing else is asked; who was silent meanwhile is not gone',
  leakless(async (_t, defer) => {
    const { redis, a, b } = await pair(defer);
    redis.command('config', 'set', 'maxmemory', '1');
    await waitFor(() => a.limits.isApart && b.limits.isApart, { what: 'the share' });
    b.die();
    // As if all had been refused for so long that their signs of life are gone.
    redis.command('del', 'xoauth2-relay:relays');
    redis.command('config', 'set', 'maxmemory', '0');
    await settled([a]);
    assert.equal(a.membership.relays, 2);
  }),
);
