// needs: redis-server
/**
 * Who asks for tokens while Redis is away: nobody where two could, over a real Redis that is killed or held
 * still, at an endpoint that revokes a refresh token the moment it gives the next.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { createMembership } from '../../src/fleet/membership.ts';
import type { Log } from '../../src/log.ts';
import { createRedisConnection } from '../../src/redis.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createRedisStore } from '../../src/tokens/store-redis.ts';
import { createTwofoldStore } from '../../src/tokens/store-twofold.ts';
import { createTokenService, type TokenService } from '../../src/tokens/token-service.ts';
import type { WithoutStore } from '../../src/tokens/unlocked.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { type Redis, startRedis } from '../support/redis.ts';
import { startRelay } from '../support/relay-process.ts';
import { smtpClient } from '../support/smtp-client.ts';
import { startTokenEndpoint } from '../support/token-endpoint.ts';
import { startTrial, type Trial } from '../support/token-trial.ts';
import { waitFor } from '../support/wait-for.ts';
import { account, createTestLog, refreshCredential } from '../tokens/support.ts';

const STOPS = 50;
const ROW = { version: '', host: '', pid: 1, startedAt: 0, relayed: 0, deferred: 0, rejected: 0, lagMs: 0 };

interface Relay {
  readonly tokens: TokenService;
  readonly others: () => number;
}

/** A token service whose relay is a member of the fleet, as the program has it. */
async function relayOn(
  defer: Defer,
  redis: Redis,
  trial: Trial,
  withoutStore: WithoutStore = 'wait',
): Promise<Relay> {
  const log = createTestLog();
  const connection = createRedisConnection(new Secret(redis.url), { log }, { answerMs: 300 });
  const membership = createMembership({ redis: connection, row: () => ROW });
  const store = createRedisStore(
    connection,
    { log, sealer: undefined, aloneSince: () => membership.aloneSince },
    { lockMs: 1000 },
  );
  const tokens = await trial.serve({ log, store }, { withoutStore });
  membership.onForgotten(() => void tokens.saveAgain());
  await membership.start();
  defer(() => membership.leave());
  return { tokens, others: () => membership.relays - 1 };
}

/** A relay with a state directory of its own, as a process would open its store; each in its turn. */
const openTwofold = (redis: Redis, directory: string) => (log: Log) => {
  const connection = createRedisConnection(new Secret(redis.url), { log }, { answerMs: 400 });
  return createTwofoldStore(
    createRedisStore(connection, { log, sealer: undefined }, { lockMs: 1000 }),
    createFileStore(directory, { log, sealer: undefined }),
    log,
  );
};

async function trialOn(defer: Defer, count: number): Promise<{ redis: Redis; trial: Trial }> {
  const redis = await startRedis();
  defer(() => redis.kill());
  const trial = await startTrial(count, (log) =>
    createRedisStore(createRedisConnection(new Secret(redis.url), { log }), { log, sealer: undefined }),
  );
  defer(() => trial.close());
  return { redis, trial };
}

const refreshed = (tokens: Pick<TokenService, 'refresh'>, user: string): Promise<string> =>
  tokens.refresh(user).then(
    () => 'refreshed',
    (error: { causeId?: string; code?: string }) => error.causeId ?? error.code ?? 'failed',
  );

const OUTAGES: readonly [what: string, (redis: Redis) => unknown, (redis: Redis) => unknown][] = [
  ['killed', (redis) => redis.kill(), (redis) => redis.start()],
  ['held still', (redis) => redis.freeze(), (redis) => redis.thaw()],
];

for (const [what, begin, end] of OUTAGES)
  test(
    `two relays, Redis ${what}: nobody asks without the lock, and both go on when it is back`,
    leakless(async (_t, defer) => {
      const { redis, trial } = await trialOn(defer, 3);
      const relays = [await relayOn(defer, redis, trial), await relayOn(defer, redis, trial)];
      await waitFor(() => relays.every((relay) => relay.others() === 1), { what: 'both seeing each other' });
      for (const user of trial.users) for (const relay of relays) await relay.tokens.refresh(user);
      const before = trial.endpoint.count();
      await begin(redis);
      const asked = relays.flatMap((relay) => trial.users.map((user) => refreshed(relay.tokens, user)));
      assert.deepEqual([...new Set(await Promise.all(asked))], ['token-store-away']);
      for (const { tokens } of relays) {
        const { state, lastError } = tokens.statusOf(trial.users[0] ?? '') ?? {};
        // The token it has is still good.
        assert.equal(state?.status, 'ready');
        assert.match(lastError?.message ?? '', /^Redis is away/);
        assert.match(lastError?.cure ?? '', /bring Redis back/);
        assert.deepEqual(tokens.unsaved(), []);
      }
      assert.equal(trial.endpoint.count(), before);
      await end(redis);
      for (const user of trial.users)
        for (const relay of relays)
          await waitFor(async () => (await refreshed(relay.tokens, user)) === 'refreshed', {
            timeoutMs: 10_000,
          });
      for (const { tokens } of relays) await tokens.close();
      assert.deepEqual(await trial.lost(), []);
    }),
  );

test(
  'a relay that was alone does not ask without the lock either, unless its operator says so',
  leakless(async (_t, defer) => {
    const { redis, trial } = await trialOn(defer, 3);
    const only = await relayOn(defer, redis, trial);
    for (const user of trial.users) await only.tokens.refresh(user);
    const before = trial.endpoint.count();
    await redis.kill();
    for (const user of trial.users) assert.equal(await refreshed(only.tokens, user), 'token-store-away');
    assert.equal(trial.endpoint.count(), before);
    await redis.start();
    for (const user of trial.users)
      await waitFor(async () => (await refreshed(only.tokens, user)) === 'refreshed', { timeoutMs: 10_000 });
    await only.tokens.close();
  }),
);

test(
  'with `alone` a relay that was alone asks on without Redis; one that starts meanwhile waits',
  leakless(async (_t, defer) => {
    const { redis, trial } = await trialOn(defer, 3);
    const alone = await relayOn(defer, redis, trial, 'alone');
    // Read since it is alone: what an earlier one may have left is known.
    for (const user of trial.users) await alone.tokens.refresh(user);
    await redis.kill();
    for (const user of trial.users) assert.equal(await refreshed(alone.tokens, user), 'refreshed');
    const late = await relayOn(defer, redis, trial, 'alone');
    for (const user of trial.users) assert.equal(await refreshed(late.tokens, user), 'token-store-away');
    await redis.start();
    await waitFor(() => alone.tokens.unsaved().length === 0, { timeoutMs: 20_000, what: 'the saving' });
    for (const user of trial.users)
      await waitFor(async () => (await refreshed(late.tokens, user)) === 'refreshed', { timeoutMs: 10_000 });
    for (const { tokens } of [alone, late]) await tokens.close();
    assert.deepEqual(await trial.lost(), []);
  }),
);

test(
  'a relay whose sibling has just been killed does not count as alone',
  leakless(async (_t, defer) => {
    const { redis, trial } = await trialOn(defer, 1);
    const [user = ''] = trial.users;
    const staying = await relayOn(defer, redis, trial, 'alone');
    // Known to Redis, and never heard again.
    const connection = createRedisConnection(new Secret(redis.url), { log: createTestLog() });
    defer(() => connection.close());
    await connection.open();
    const gone = createMembership({ redis: connection, row: () => ROW });
    await gone.start();
    await waitFor(() => staying.others() === 1, { what: 'seeing it' });
    await staying.tokens.refresh(user);
    await redis.kill();
    assert.equal(await refreshed(staying.tokens, user), 'token-store-away');
    await redis.start();
    await gone.leave();
  }),
);

test(
  'an application asks without Redis, and so does everybody where the operator wants it',
  leakless(async (_t, defer) => {
    const { redis, trial } = await trialOn(defer, 1);
    const [user = ''] = trial.users;
    const willing = await relayOn(defer, redis, trial, 'ask');
    const other = await relayOn(defer, redis, trial);
    await waitFor(() => willing.others() === 1, { what: 'seeing each other' });
    const log = createTestLog();
    const endpoint = await startTokenEndpoint('microsoft');
    defer(() => endpoint.close());
    const { clientId, clientSecret = '' } = endpoint.add('app@x');
    const store = createRedisStore(createRedisConnection(new Secret(redis.url), { log }), {
      log,
      sealer: undefined,
    });
    const application = createTokenService({ log, store }, { refreshAhead: false, endpoint: { env: {} } });
    defer(() => application.close());
    await application.open();
    const {
      grant: _g,
      refreshToken: _r,
      ...shared
    } = refreshCredential(endpoint.url, 'app@x', {
      clientId,
      clientSecret: new Secret(clientSecret),
    });
    application.applyAccounts([
      { account: account('app@x'), credential: { ...shared, grant: 'client_credentials' } },
    ]);
    await redis.kill();
    await application.refresh('app@x');
    await willing.tokens.refresh(user);
    assert.equal(await refreshed(other.tokens, user), 'token-store-away');
    assert.deepEqual(willing.tokens.unsaved(), [user]);
    await redis.start();
    await waitFor(() => willing.tokens.unsaved().length === 0, { timeoutMs: 20_000, what: 'the saving' });
  }),
);

const DEATHS: readonly [what: string, begin: (redis: Redis) => unknown, end: (redis: Redis) => unknown][] = [
  ['silent', (redis) => redis.freeze(), (redis) => redis.thaw()],
  ['killed, and back empty', (redis) => redis.kill(), (redis) => redis.start()],
];

for (const [what, begin, end] of DEATHS)
  test(
    `${STOPS} stops of a relay while Redis is ${what} and refreshes are under way: nothing is lost`,
    leakless(async (_t, defer) => {
      const redis = await startRedis();
      defer(() => redis.kill());
      const directory = mkdtempSync(join(tmpdir(), 'relay-state-'));
      defer(() => rmSync(directory, { recursive: true }));
      const trial = await startTrial(3, openTwofold(redis, directory));
      defer(() => trial.close());
      let keptHere = 0;
      for (let stop = 0; stop < STOPS; stop += 1) {
        const log = createTestLog();
        const service = await trial.serve({ log });
        // On a busy machine Redis may be slower than these 400 ms.
        for (const user of trial.users)
          await waitFor(async () => (await refreshed(service, user)) === 'refreshed');
        trial.endpoint.delayMs = 20 + (stop % 7);
        const before = trial.endpoint.count();
        const asked = trial.users.map((user) => service.refresh(user).catch(String));
        await waitFor(() => trial.endpoint.count() === before + trial.users.length, { what: 'the requests' });
        await begin(redis);
        await service.close();
        await Promise.all(asked);
        keptHere += log.lines.filter((line) => line.fields.event === 'refresh_tokens_kept_here').length;
        await end(redis);
        assert.deepEqual(await trial.lost(), [], `stop ${stop}`);
      }
      assert.equal(keptHere, STOPS);
    }),
  );

test(
  'a relay that starts again while Redis is still away uses what it kept, and another one gets it later',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const directory = mkdtempSync(join(tmpdir(), 'relay-state-'));
    defer(() => rmSync(directory, { recursive: true }));
    const trial = await startTrial(1, openTwofold(redis, directory));
    defer(() => trial.close());
    const [user = ''] = trial.users;
    await redis.kill();
    for (let life = 0; life < 3; life += 1) {
      const service = await trial.serve({}, { withoutStore: 'ask' });
      await service.refresh(user);
      await service.close();
    }
    await redis.start();
    // It asks, and what it has goes to the others first.
    const back = await trial.serve();
    await back.get(user);
    await back.close();
    const log = createTestLog();
    const connection = createRedisConnection(new Secret(redis.url), { log });
    const other = await trial.serve({ log, store: createRedisStore(connection, { log, sealer: undefined }) });
    await other.refresh(user);
    await other.close();
  }),
);

test(
  'mail of an account without a token waits with an answer that names Redis, and leaves when it is back',
  leakless(async (_t, defer) => {
    const user = 'sender@example.com';
    const provider = await startProvider({ flavour: 'microsoft', users: [user] });
    defer(() => provider.close());
    provider.token.rotation = 'revoke-old';
    const redis = await startRedis();
    defer(() => redis.kill());
    await redis.kill();
    const relay = await startRelay({
      accounts: [provider.entry(user)],
      caFile: provider.caFile,
      env: { XOAUTH2_RELAY_STORE: redis.url, XOAUTH2_RELAY_STATE_KEY: 'fleet-test-passphrase-0123456789' },
    });
    defer(() => relay.stop());
    const client = await smtpClient(relay.smtpPort);
    defer(() => client.end());
    await client.reply();
    await client.expect('EHLO load.test', 250);
    await client.raw(`MAIL FROM:<${user}>\r\n`);
    const refused = await client.reply();
    assert.equal(refused.code, 451);
    assert.match(refused.text, /Redis is away/);
    const { accounts } = await relay.admin<{ accounts: Record<string, unknown>[] }>('/admin/accounts');
    assert.equal(accounts[0]?.status, 'unreachable');
    assert.match(String(accounts[0]?.reason), /Redis is away/);
    assert.match(String(accounts[0]?.cure), /bring Redis back/);
    assert.equal(provider.token.count(), 0);
    await redis.start();
    await waitFor(
      async () => {
        await client.raw(`MAIL FROM:<${user}>\r\n`);
        return (await client.reply()).code === 250;
      },
      { timeoutMs: 15_000, what: 'mail again' },
    );
    assert.equal(relay.output().includes('refresh_tokens_lost'), false);
  }),
);
