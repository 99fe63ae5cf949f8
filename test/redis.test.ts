// needs: redis-server
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Log } from '../src/log.ts';
import { silentLog } from '../src/log.ts';
import { createRedisConnection, type RedisConnection, redisScript } from '../src/redis.ts';
import { type Redis, startRedis } from './support/redis.ts';
import { waitFor } from './support/wait-for.ts';

interface Line {
  readonly event?: string;
  readonly reason?: string;
  readonly words: string;
}

async function redisFor(t: TestContext): Promise<Redis> {
  const redis = await startRedis();
  t.after(() => redis.kill());
  return redis;
}

async function connect(
  t: TestContext,
  url: string,
): Promise<{ connection: RedisConnection; errors: readonly Line[] }> {
  const errors: Line[] = [];
  const error = (fields: object, words: string): void => void errors.push({ ...fields, words });
  const log = { ...silentLog, error } as unknown as Log;
  const connection = createRedisConnection({ reveal: () => url }, { log });
  t.after(() => connection.close());
  await connection.open();
  return { connection, errors };
}

const ADD = redisScript("return redis.call('zadd', KEYS[1], 1, 'a')");
const add = (connection: RedisConnection): Promise<void> =>
  assert.rejects(connection.run(ADD, ['xoauth2-relay:relays'], []));

const refusals: readonly { readonly reason: string; readonly prepare: (redis: Redis) => string }[] = [
  {
    reason: 'WRONGTYPE',
    prepare(redis) {
      redis.command('set', 'xoauth2-relay:relays', 'of another program');
      return redis.url;
    },
  },
  {
    reason: 'OOM',
    prepare(redis) {
      redis.command('config', 'set', 'maxmemory', '1');
      return redis.url;
    },
  },
  {
    reason: 'READONLY',
    prepare(redis) {
      redis.command('replicaof', '127.0.0.1', '1');
      return redis.url;
    },
  },
  {
    reason: 'NOPERM',
    prepare(redis) {
      redis.command('acl', 'setuser', 'relay', 'on', '>word', '~*', '&*', '+@all', '-zadd');
      return redis.url.replace('//', '//relay:word@');
    },
  },
  {
    reason: 'WRONGPASS',
    prepare(redis) {
      redis.command('config', 'set', 'requirepass', 'right');
      return redis.url.replace('//', '//:wrong@');
    },
  },
  {
    reason: 'NOAUTH',
    prepare(redis) {
      redis.command('config', 'set', 'requirepass', 'right');
      return redis.url;
    },
  },
];

for (const { reason, prepare } of refusals)
  test(`a Redis that refuses (${reason}) has one line of the log with the cure, and is not said to be out of reach`, async (t) => {
    const redis = await redisFor(t);
    const { connection, errors } = await connect(t, prepare(redis));
    await add(connection);
    await add(connection);
    assert.deepEqual(
      errors.map((line) => [line.event, line.reason]),
      [['redis_refuses', reason]],
    );
    assert.match(errors[0]?.words ?? '', /: .{10}/);
    assert.doesNotMatch(JSON.stringify(errors), /wrong@|:word|another program"/);
  });

test('a connection that is closed while it opens, at whichever moment, is not there afterwards', async (t) => {
  const redis = await redisFor(t);
  const { connection } = await connect(t, redis.url);
  connection.close();
  for (let turns = 0; turns < 12; turns += 1) {
    const closing = createRedisConnection({ reveal: () => redis.url }, { log: silentLog });
    const opening = closing.open();
    for (let turn = 0; turn < turns; turn += 1) await new Promise((resume) => setImmediate(resume));
    closing.close();
    await opening;
  }
  await waitFor(() => !redis.command('client', 'list').includes('name=xoauth2-relay'), {
    timeoutMs: 5000,
    what: 'Redis without a connection of ours',
  });
});
