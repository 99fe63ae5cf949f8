// needs: redis-server
import assert from 'node:assert/strict';
import { type AddressInfo, connect as connectTo, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { type Clock, systemClock } from '../src/clock.ts';
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
  clock: Clock = systemClock,
): Promise<{ connection: RedisConnection; errors: readonly Line[] }> {
  const errors: Line[] = [];
  const error = (fields: object, words: string): void => void errors.push({ ...fields, words });
  const log = { ...silentLog, error } as unknown as Log;
  const connection = createRedisConnection({ reveal: () => url }, { log, clock });
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
    reason: 'MASTERDOWN',
    prepare(redis) {
      redis.command('config', 'set', 'replica-serve-stale-data', 'no');
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

/** An address that leads new connections to whichever Redis it is told to; those there are stay where they are. */
async function addressOf(t: TestContext, first: Redis) {
  let port = first.port;
  let connections = 0;
  const server = createServer((client) => {
    connections += 1;
    const redis = connectTo(port, '127.0.0.1');
    for (const each of [client, redis]) each.on('error', () => undefined);
    client.pipe(redis).pipe(client);
    client.on('close', () => redis.destroy());
    redis.on('close', () => client.destroy());
  });
  await new Promise<void>((resume) => server.listen(0, '127.0.0.1', resume));
  t.after(() => server.close());
  return {
    url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections: () => connections,
    leadTo: (redis: Redis) => {
      port = redis.port;
    },
  };
}

const REFUSED_IN_REDIS_6 = redisScript(
  `return redis.error_reply("ERR Error running script (call to f_0): @user_script:2: @user_script: 2: -READONLY You can't")`,
);

for (const [kind, script] of [
  ['READONLY', ADD],
  ['READONLY as Redis 6 says it of a script', REFUSED_IN_REDIS_6],
] as const)
  test(`a primary that became a replica (${kind}) is left for where the address leads now, not all the time`, async (t) => {
    const [old, promoted] = await Promise.all([redisFor(t), redisFor(t)]);
    const address = await addressOf(t, old);
    let later = 0;
    const clock = { ...systemClock, monotonic: () => performance.now() + later };
    const { connection, errors } = await connect(t, address.url, clock);
    const heard: string[] = [];
    connection.subscribe('xoauth2-relay:news', (text) => void heard.push(text));
    const away: boolean[] = [];
    connection.onAway((isAway) => void away.push(isAway));
    const toReplica = (): void => {
      old.command('replicaof', '127.0.0.1', String(promoted.port));
    };
    const refused = (): Promise<void> =>
      assert.rejects(connection.run(script, ['xoauth2-relay:relays'], []), /READONLY/);
    const isBack = (connections: number): Promise<unknown> =>
      waitFor(() => away.at(-1) === false && address.connections() === connections, {
        what: 'new connections',
        timeoutMs: 5_000,
      });
    await waitFor(() => old.command('pubsub', 'channels') !== '', { what: 'the subscription' });
    toReplica();

    // Where the address leads to the replica still, once in a while.
    await refused();
    await isBack(4);
    assert.deepEqual(away, [true, false]);
    await refused();
    await refused();
    assert.equal(address.connections(), 4);
    assert.deepEqual(away, [true, false]);

    address.leadTo(promoted);
    later += 5_000;
    await refused();
    await isBack(6);
    await connection.run(ADD, ['xoauth2-relay:relays'], []);
    assert.equal(promoted.command('zcard', 'xoauth2-relay:relays'), '1');
    await waitFor(() => promoted.command('pubsub', 'channels') !== '', { what: 'the subscription there' });
    promoted.command('publish', 'xoauth2-relay:news', 'another hello');
    await waitFor(() => heard.length > 0, { what: 'what is published there' });
    assert.deepEqual([...heard, address.connections()], ['hello', 6]);
    assert.deepEqual(
      errors.map(({ event, reason }) => [event, reason]),
      [['redis_refuses', 'READONLY']],
    );
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
