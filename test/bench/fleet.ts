/**
 * `npm run bench -- fleet`: what limits shared through Redis cost a message, beside the same relay without, and
 * what an account takes in Redis. Needs redis-server. Prints a table; asserts nothing.
 */
import { Secret } from '../../src/accounts/credential.ts';
import { createRedisLimits } from '../../src/fleet/redis-limits.ts';
import { silentLog } from '../../src/log.ts';
import { createRedisConnection } from '../../src/redis.ts';
import { createSealer } from '../../src/tokens/sealing.ts';
import { createRedisStore } from '../../src/tokens/store-redis.ts';
import { startRedis } from '../support/redis.ts';
import { startTokenEndpoint } from '../support/token-endpoint.ts';
import { measureRate } from './fleet-rate.ts';
import { run } from './load.ts';
import {
  benchEntry,
  bodyOf,
  certificateFiles,
  clear,
  cpuSeconds,
  helper,
  median,
  startRelay,
  table,
} from './stage.ts';

const SESSIONS = 8;
const MESSAGES = 4_000;
const ROUNDS = 3;
const ACCOUNTS = 5_000;
const FINGERPRINT = 'f'.repeat(43);

await measureRate();
const tokens = await startTokenEndpoint('gmail');
const redis = await startRedis();
try {
  const sink = await helper('sink', certificateFiles());
  const entry = benchEntry(tokens, 'ann@example.com', sink.port, {
    max_connections: SESSIONS,
    min_connections: SESSIONS,
    messages_per_connection: 1_000_000,
    recipients_per_day: 1_000_000,
  });
  const alone = await startRelay([entry]);
  process.env.XOAUTH2_RELAY_STORE = redis.url;
  process.env.XOAUTH2_RELAY_STATE_KEY = 'a-passphrase-for-the-bench-0123456789';
  const shared = await startRelay([entry]);
  const infoOf = (field: string): number =>
    Number(new RegExp(`${field}:([\\d.]+)`).exec(redis.command('info', 'all'))?.[1] ?? 0);
  const load = (port: number) => ({ port, sessions: SESSIONS, messages: MESSAGES, body: bodyOf(4_096) });
  const figures = { alone: [] as number[], shared: [] as number[], redis: [] as number[] };
  const rates = { alone: [] as number[], shared: [] as number[] };
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [name, relay] of [
      ['alone', alone],
      ['shared', shared],
    ] as const) {
      const before = cpuSeconds(relay.pid);
      const redisBefore = infoOf('used_cpu_user') + infoOf('used_cpu_sys');
      const seconds = await run(load(relay.smtp));
      if (round === 0) continue;
      figures[name].push(((cpuSeconds(relay.pid) - before) / MESSAGES) * 1e6);
      rates[name].push(MESSAGES / seconds);
      if (name === 'shared')
        figures.redis.push(
          ((infoOf('used_cpu_user') + infoOf('used_cpu_sys') - redisBefore) / MESSAGES) * 1e6,
        );
    }
  }
  const perMessage = (name: 'alone' | 'shared'): number => (SESSIONS / median(rates[name])) * 1_000;
  table('Limits shared through Redis, 4 kB, 8 kept-open sessions', [
    ['', 'µs CPU a message', 'messages/s', 'ms a message and session'],
    [
      'alone',
      median(figures.alone).toFixed(0),
      median(rates.alone).toFixed(0),
      perMessage('alone').toFixed(2),
    ],
    [
      'shared',
      median(figures.shared).toFixed(0),
      median(rates.shared).toFixed(0),
      perMessage('shared').toFixed(2),
    ],
    ['Redis', median(figures.redis).toFixed(0), '', ''],
  ]);
  const bytes = (key: string): number => Number(redis.command('memory', 'usage', key, 'samples', '0')) || 0;
  const keys = redis.command('keys', 'xoauth2-relay:*').split('\n');
  table(
    'Octets in Redis for this account now',
    keys.filter((key) => key.includes('ann@')).map((key) => [key, String(bytes(key))]),
  );
  await alone.stop();
  await shared.stop();

  const connection = createRedisConnection(new Secret(redis.url), { log: silentLog });
  await connection.open();
  const sealer = createSealer(new Secret('a-passphrase-for-the-bench-0123456789'));
  const store = createRedisStore(connection, { log: silentLog, sealer });
  const limits = createRedisLimits({ redis: connection });
  const grown = async (work: (accountId: string) => Promise<void>): Promise<string> => {
    const before = infoOf('used_memory');
    for (let i = 0; i < ACCOUNTS; i += 50)
      await Promise.all(Array.from({ length: 50 }, (_, k) => work(`user${i + k}@example.com`)));
    return ((infoOf('used_memory') - before) / ACCOUNTS).toFixed(0);
  };
  redis.command('set', 'xoauth2-relay:epoch', '1');
  const now = Date.now();
  const token = { fingerprint: FINGERPRINT, expiresAt: now + 3_600_000, obtainedAt: now };
  const smtp = { ...token, accessToken: 'a'.repeat(1_800) };
  const refreshToken = 'r'.repeat(1_200);
  const kept = await grown(async (accountId) => {
    const rotation = { base: 0, refreshToken, obtainedAt: now, tokens: Promise.resolve({ smtp }) };
    await store.rotate({ accountId, fingerprint: FINGERPRINT }, rotation);
  });
  const used = await grown(async (accountId) => {
    const id = `lease-of-${accountId}`;
    const request = { id, maxWaitMs: 0, epoch: '1', queues: 'busy' } as const;
    const at = { atOnce: 3, perMinute: 28, perDay: undefined, recipientsPerDay: 10_000 };
    await limits.reserve(accountId, at, request);
    limits.giveBack(accountId, id, 'over', 1, false);
  });
  table('Octets in Redis an account, refresh token of 1,200 and access token of 1,800 octets, sealed', [
    ['its tokens', kept],
    ['its limits, in the minute of a message', used],
  ]);
  await limits.close();
  await store.close();
} finally {
  await redis.kill();
  await tokens.close();
  clear();
}
