/**
 * Three relays on one mailbox beside one relay, in the same run and in turn: 24 sessions, 120 messages, a provider
 * with a realistic latency that takes three at once. Prints a table; asserts nothing.
 */
import { startProvider } from '../support/provider.ts';
import { type Redis, startRedis } from '../support/redis.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { run } from './load.ts';
import { bodyOf, median, table } from './stage.ts';

const USER = 'ann@example.com';
const LATENCY_MS = 50;
const AT_ONCE = 3;
const SESSIONS = 24;
const MESSAGES = 120;
const ROUNDS = 5;

const scripts = (redis: Redis): number =>
  Number(/cmdstat_evalsha:calls=(\d+)/.exec(redis.command('info', 'commandstats'))?.[1] ?? 0);

export async function measureRate(): Promise<void> {
  const provider = await startProvider({
    flavour: 'microsoft',
    users: [USER],
    latencyMs: LATENCY_MS,
    rules: { maxConcurrentSubmissions: AT_ONCE },
  });
  const fleets = await Promise.all(
    [1, 3].map(async (count) => {
      const redis = await startRedis();
      const env = { XOAUTH2_RELAY_STORE: redis.url, XOAUTH2_RELAY_STATE_KEY: 'a-passphrase-for-the-bench' };
      const relays: RelayProcess[] = [];
      for (let i = 0; i < count; i++)
        relays.push(
          await startRelay({
            accounts: [provider.entry(USER, { messages_per_minute: 0 })],
            caFile: provider.caFile,
            logLevel: 'info',
            env,
          }),
        );
      for (const relay of relays) await relay.event('shared_limits');
      return { count, redis, relays, seconds: [] as number[], asked: [] as number[] };
    }),
  );
  const body = bodyOf(4_096);
  const sessions = (count: number): number => Math.ceil(SESSIONS / count);
  for (let round = 0; round <= ROUNDS; round++)
    for (const { count, redis, relays, seconds, asked } of fleets) {
      const before = scripts(redis);
      const took = await Promise.all(
        relays.map(({ smtpPort: port }) =>
          run({ port, sessions: sessions(count), messages: MESSAGES / count, body }),
        ),
      );
      if (round === 0) continue;
      seconds.push(Math.max(...took));
      asked.push((scripts(redis) - before) / MESSAGES);
    }
  const rateOfOne = MESSAGES / median(fleets[0]?.seconds ?? [Number.NaN]);
  table(
    `${MESSAGES} messages in ${SESSIONS} sessions on one mailbox, ${AT_ONCE} at once, ${LATENCY_MS} ms a reply of the provider`,
    [
      ['relays', 'messages/s', 'beside one', 'scripts a message'],
      ...fleets.map(({ count, seconds, asked }) => {
        const rate = MESSAGES / median(seconds);
        return [String(count), rate.toFixed(1), (rate / rateOfOne).toFixed(2), median(asked).toFixed(2)];
      }),
      [
        'refused by the provider',
        String(provider.submissions.filter((s) => s.outcome !== 'accepted').length),
        '',
        '',
      ],
    ],
  );
  for (const { relays, redis } of fleets) {
    for (const relay of relays) await relay.stop();
    await redis.kill();
  }
  await provider.close();
}
