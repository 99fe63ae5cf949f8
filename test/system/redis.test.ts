// needs: redis-server
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import { createRedisConnection } from '../../src/redis.ts';
import type { AccessToken } from '../../src/tokens/access-token.ts';
import { createSealer } from '../../src/tokens/sealing.ts';
import { createRedisStore, type RedisStoreOptions } from '../../src/tokens/store-redis.ts';
import { createTokenService, type TokenService } from '../../src/tokens/token-service.ts';
import { createTestClock } from '../support/clock.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { type Redis, startRedis } from '../support/redis.ts';
import { startRelay } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';
import { tokenAnswers } from '../support/token-answers.ts';
import { startTokenEndpoint, type TokenEndpoint } from '../support/token-endpoint.ts';
import { startInstance } from '../support/token-instance.ts';
import { PATIENCE_MS, waitFor, within } from '../support/wait-for.ts';
import { idOf, rotation, testDurableStore, testStore, token } from '../tokens/store-suite.ts';
import { account, createTestLog, refreshCredential } from '../tokens/support.ts';

/** As long as an answer of Redis is waited for, ms. */
const ANSWER_MS = 1_500;
const KEY = 'correct-horse-battery-staple';

async function redisFor(defer: Defer): Promise<Redis> {
  const redis = await startRedis();
  defer(() => redis.kill());
  return redis;
}

async function endpointFor(defer: Defer): Promise<TokenEndpoint> {
  const endpoint = await startTokenEndpoint('microsoft');
  defer(() => endpoint.close());
  return endpoint;
}

function openStore(
  redis: Redis,
  log = createTestLog(),
  options: RedisStoreOptions = {},
  clock: Clock = systemClock,
) {
  const sealer = createSealer(new Secret(KEY));
  const connection = createRedisConnection(new Secret(redis.url), { log, clock }, { answerMs: ANSWER_MS });
  return createRedisStore(connection, { log, sealer, clock }, options);
}

/** One instance: a service of its own on the shared Redis. */
/** Of these it is asserted what they lose at their end; whoever closes them again is told the same. */
const losing = new WeakSet<TokenService>();
async function assertLoses(tokens: TokenService, accountIds: readonly string[]): Promise<void> {
  losing.add(tokens);
  // There is no directory in which anything could be half written.
  const message = /they may have to sign in again$/;
  await assert.rejects(tokens.close(), { name: 'GrantsUnsavedError', accountIds, message });
}

async function instance(
  defer: Defer,
  redis: Redis,
  endpoint: TokenEndpoint,
  users: readonly string[],
  log = createTestLog(),
  consent?: ReadonlyMap<string, string>,
  clock: Clock = systemClock,
): Promise<TokenService> {
  const tokens = createTokenService(
    { log, store: openStore(redis, log, {}, clock) },
    // Who may ask without the lock is tried in fleet-grants.test.ts.
    { refreshAhead: false, withoutStore: 'ask' },
  );
  defer(() =>
    tokens.close().catch((error: unknown) => {
      if (!losing.has(tokens)) throw error;
    }),
  );
  await tokens.open();
  tokens.applyAccounts(
    users.map((id) => {
      const known = endpoint.account(id) ?? endpoint.add(id);
      const refreshToken = new Secret(consent?.get(id) ?? known.refreshToken);
      const clientSecret = new Secret(known.clientSecret ?? '');
      const { clientId } = known;
      const credential = refreshCredential(endpoint.url, id, { clientId, clientSecret, refreshToken });
      return { account: account(id), credential };
    }),
  );
  return tokens;
}

/** What the operators of all instances wrote into their accounts files at the start. */
function consents(endpoint: TokenEndpoint, users: readonly string[]): ReadonlyMap<string, string> {
  return new Map(users.map((id) => [id, (endpoint.account(id) ?? endpoint.add(id)).refreshToken]));
}

const open = async (t: { after(close: () => Promise<void>): void }) => {
  const redis = await startRedis();
  t.after(() => redis.kill());
  const another = async () => {
    const store = openStore(redis);
    t.after(() => store.close());
    await store.open();
    return store;
  };
  return { store: await another(), again: another };
};
testStore('redis', open);
testDurableStore('redis', open);

test(
  'two relays with 100 accounts make exactly 100 refreshes',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const users = Array.from({ length: 100 }, (_, i) => `user${i}@outlook.example`);
    const provider = await startProvider({ flavour: 'microsoft', users });
    defer(() => provider.close());
    provider.token.delayMs = 50;
    const relay = async () => {
      const process = await startRelay({
        accounts: users.map((user) => ({ ...provider.entry(user), min_connections: 0 })),
        caFile: provider.caFile,
        env: { XOAUTH2_RELAY_STORE: redis.url, XOAUTH2_RELAY_STATE_KEY: KEY },
        until: 'listening',
      });
      defer(() => process.stop());
      return process;
    };
    const relays = await Promise.all([relay(), relay()]);
    for (const each of relays) {
      const ready = await each.event('ready', { timeoutMs: 30_000 });
      assert.deepEqual([ready.tokens, ready.tokens_failed], [100, 0]);
    }
    assert.equal(provider.token.count(), 100);
    for (const user of users) assert.equal(provider.token.count(user), 1);
    // Sealed: no issued token or refresh token can be read there.
    const text = redis.command('mget', ...redis.command('keys', '*').split('\n'));
    assert.match(text, /sealed:v2:/);
    assert.doesNotMatch(text, /accessToken|refreshToken|eyJ0eX/);
  }),
);

test(
  'check uses what the relays have in Redis; without their key it asks for nothing and leaves it as it is',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const [user] = ['user@outlook.example'] as const;
    const provider = await startProvider({ flavour: 'microsoft', users: [user] });
    defer(() => provider.close());
    provider.token.rotation = 'revoke-old';
    const relay = await startRelay({
      accounts: [provider.entry(user)],
      caFile: provider.caFile,
      env: { XOAUTH2_RELAY_STORE: redis.url, XOAUTH2_RELAY_STATE_KEY: KEY },
      until: 'ready',
    });
    defer(() => relay.stop());
    const check = (key: string) =>
      runCli(['check', '--accounts', relay.accountsFile, '--admin-port', String(relay.adminPort)], {
        env: {
          NODE_EXTRA_CA_CERTS: provider.caFile,
          XOAUTH2_RELAY_STORE: redis.url,
          XOAUTH2_RELAY_STATE_KEY: key,
        },
      });
    const well = await check(KEY);
    assert.equal(well.code, 0, well.stdout + well.stderr);
    const kept = redis.command('hvals', `xoauth2-relay:grants:${user}`);
    const asked = provider.token.count();
    redis.command('del', `xoauth2-relay:token:${user}`);
    const wrong = await check(`another ${KEY}`);
    assert.equal(wrong.code, 1, wrong.stdout + wrong.stderr);
    assert.match(wrong.stderr, /cannot be read: sealed with the state key \S+ which was not given/);
    assert.equal(provider.token.count(), asked);
    assert.equal(redis.command('hvals', `xoauth2-relay:grants:${user}`), kept);
  }),
);

for (const [which, key] of [
  ['another key', `another ${KEY}`],
  ['no key', undefined],
] as const)
  test(
    `a relay with ${which}, and not that of the others, asks for nothing with earlier refresh tokens, and leaves theirs alone`,
    leakless(async (_t, defer) => {
      const redis = await redisFor(defer);
      const users = ['a@outlook.example', 'b@outlook.example'];
      const provider = await startProvider({ flavour: 'microsoft', users });
      defer(() => provider.close());
      provider.token.rotation = 'revoke-old';
      const accounts = users.map((user) => provider.entry(user));
      const start = async (stateKey: string | undefined) => {
        const relay = await startRelay({
          accounts,
          caFile: provider.caFile,
          env: {
            XOAUTH2_RELAY_STORE: redis.url,
            ...(stateKey === undefined ? {} : { XOAUTH2_RELAY_STATE_KEY: stateKey }),
          },
          until: 'ready',
        });
        defer(() => relay.stop());
        return relay;
      };
      const first = await start(KEY);
      const grants = (): string[] =>
        users.map((user) => redis.command('hvals', `xoauth2-relay:grants:${user}`));
      const kept = grants();
      const asked = provider.token.count();
      const second = await start(key);
      for (const user of users) {
        const { status, cure } = await second.admin(`/admin/accounts/${user}`);
        assert.equal(status, 'unreachable');
        assert.match(String(cure), /give it the state key of the relays/);
      }
      const told = second.lines.filter((line) => line.event === 'redis_value_unreadable');
      assert.equal(told.length, users.length, 'each once');
      assert.equal(provider.token.count(), asked);
      assert.deepEqual(grants(), kept);
      await second.stop();
      const third = await start(KEY);
      for (const relay of [first, third])
        for (const user of users)
          assert.equal(
            (await fetch(`${relay.adminUrl}/admin/accounts/${user}/refresh`, { method: 'POST' })).status,
            200,
          );
    }),
  );

test(
  'when the one that refreshes is killed, another does it after the lock has run out',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const endpoint = await endpointFor(defer);
    const { clientId, refreshToken } = endpoint.add('a@x', { publicClient: true });
    const setup = {
      redisUrl: redis.url,
      tokenUrl: endpoint.url,
      lockMs: 700,
      accounts: [{ id: 'a@x', clientId, refreshToken }],
    };
    const first = await startInstance(setup);
    defer(() => first.kill());
    const second = await startInstance(setup);
    defer(() => second.kill());
    endpoint.queue({ after: 'silence' });
    const lost = first.get('a@x').catch(() => 'lost');
    await waitFor(() => endpoint.count() === 1, { what: 'the first request' });
    const waiting = second.get('a@x');
    await first.kill();
    assert.equal(await lost, 'lost');
    assert.ok(endpoint.verify('a@x', await within(waiting, PATIENCE_MS, 'a token after the kill')));
    assert.equal(endpoint.count(), 2);
    assert.equal(redis.command('exists', 'xoauth2-relay:lock:a@x'), '0');
  }),
);

test(
  'a lock is held as long as its holder lives, however slow the endpoint',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const log = createTestLog();
    const [one, two] = [
      openStore(redis, log, { lockMs: 1000 }),
      openStore(redis, log, { lockMs: 1000, lockWaitMs: 3000 }),
    ];
    for (const store of [one, two]) {
      defer(() => store.close());
      await store.open();
    }
    const lease = await one.lock?.('a@x');
    assert.ok(lease);
    // Three times the lock's own life.
    assert.equal(await two.lock?.('a@x'), undefined);
    await lease.release();
    const next = await two.lock?.('a@x');
    assert.ok(next);
    // Somebody who has lost the lock cannot free it for the one who has it.
    await lease.release();
    assert.equal(redis.command('exists', 'xoauth2-relay:lock:a@x'), '1');
    await next.release();
    assert.equal(redis.command('exists', 'xoauth2-relay:lock:a@x'), '0');
  }),
);

test(
  'a rotated refresh token is the next one of every instance',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const endpoint = await endpointFor(defer);
    endpoint.rotation = 'revoke-old';
    const consent = consents(endpoint, ['a@x']);
    const one = await instance(defer, redis, endpoint, ['a@x'], createTestLog(), consent);
    const two = await instance(defer, redis, endpoint, ['a@x'], createTestLog(), consent);
    for (const tokens of [one, two, two, one, two]) await tokens.refresh('a@x');
    assert.equal(endpoint.count('a@x'), 5);
    assert.ok(endpoint.verify('a@x', two.peek('a@x')?.reveal() ?? ''));
  }),
);

test(
  'a rejected token is renewed once for all instances',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const endpoint = await endpointFor(defer);
    const consent = consents(endpoint, ['a@x']);
    const instances = await Promise.all(
      [1, 2, 3].map(() => instance(defer, redis, endpoint, ['a@x'], createTestLog(), consent)),
    );
    const rejected = await Promise.all(instances.map((tokens) => tokens.get('a@x')));
    assert.equal(new Set(rejected.map((r) => r.reveal())).size, 1);
    const renewed = await Promise.all(
      instances.map((tokens, i) => tokens.renew('a@x', rejected[i] as AccessToken)),
    );
    assert.equal(new Set(renewed.map((r) => r.reveal())).size, 1);
    assert.equal(endpoint.count(), 2);
  }),
);

test(
  'what one instance heard of a dead credential the others need not ask',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const endpoint = await endpointFor(defer);
    const consent = consents(endpoint, ['a@x', 'b@x']);
    const one = await instance(defer, redis, endpoint, ['a@x', 'b@x'], createTestLog(), consent);
    const two = await instance(defer, redis, endpoint, ['a@x', 'b@x'], createTestLog(), consent);
    endpoint.revoke('a@x');
    endpoint.queue(tokenAnswers.microsoftLoop, { user: 'b@x' });
    for (const tokens of [one, two, one, two]) {
      await assert.rejects(tokens.get('a@x'), { code: 'needs_consent', message: /AADSTS50173/ });
      await assert.rejects(tokens.get('b@x'), { code: 'throttled', message: /AADSTS50196/ });
    }
    assert.deepEqual([endpoint.count('a@x'), endpoint.count('b@x')], [1, 1]);
    // A person asking is answered by the provider, and its yes ends the block for all.
    endpoint.restore('a@x');
    await one.refresh('a@x');
    const third = await instance(defer, redis, endpoint, ['a@x'], createTestLog(), consent);
    assert.ok(await third.get('a@x'));
    assert.equal(endpoint.count('a@x'), 2);
  }),
);

test(
  'a token forgotten here is forgotten there',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const endpoint = await endpointFor(defer);
    const consent = consents(endpoint, ['a@x']);
    const one = await instance(defer, redis, endpoint, ['a@x'], createTestLog(), consent);
    const two = await instance(defer, redis, endpoint, ['a@x'], createTestLog(), consent);
    const old = await one.get('a@x');
    await two.get('a@x');
    await waitFor(() => redis.command('pubsub', 'numsub', 'xoauth2-relay:forgotten').endsWith('2'));
    one.forget('a@x');
    await waitFor(() => two.peek('a@x') === undefined, { what: 'the other forgetting' });
    await waitFor(() => redis.command('exists', 'xoauth2-relay:token:a@x') === '0');
    assert.notEqual((await two.get('a@x')).reveal(), old.reveal());
    assert.equal(endpoint.count(), 2);
  }),
);

test(
  'with Redis killed each instance carries on, and what it got is there when Redis is back',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const endpoint = await endpointFor(defer);
    endpoint.rotation = 'revoke-old';
    const log = createTestLog();
    const consent = consents(endpoint, ['a@x', 'b@x']);
    const tokens = await instance(defer, redis, endpoint, ['a@x', 'b@x'], log, consent);
    const cached = await tokens.get('a@x');
    await redis.kill();
    assert.equal(tokens.peek('a@x'), cached);
    await within(tokens.refresh('a@x'), PATIENCE_MS, 'a refresh without Redis');
    await within(tokens.get('b@x'), PATIENCE_MS, 'a token without Redis');
    assert.equal(log.lines.filter((l) => l.fields.event === 'redis_lost').length, 1);
    await redis.start();
    await waitFor(() => log.text().includes('redis_back'), { what: 'the connection coming back' });
    const kept = () => redis.command('exists', 'xoauth2-relay:token:a@x', 'xoauth2-relay:grants:b@x') === '2';
    await waitFor(kept, { timeoutMs: 20_000, what: 'Redis getting what it missed' });
    const fresh = await instance(defer, redis, endpoint, ['a@x', 'b@x'], createTestLog(), consent);
    assert.equal((await fresh.get('a@x')).reveal(), tokens.peek('a@x')?.reveal());
    await fresh.refresh('b@x');
    assert.equal(endpoint.count(), 4);
  }),
);

test(
  'a Redis that no longer answers costs the time of one answer, once',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const endpoint = await endpointFor(defer);
    const clock = createTestClock();
    const ids = ['a@x', 'b@x', 'c@x'];
    const tokens = await instance(defer, redis, endpoint, ids, createTestLog(), undefined, clock);
    redis.freeze();
    defer(() => redis.thaw());
    const timers = clock.pending();
    const fetched = tokens.precache();
    await waitFor(() => clock.pending() > timers, { what: 'Redis being asked' });
    clock.advance(ANSWER_MS);
    await within(fetched, PATIENCE_MS, 'tokens without Redis');
    for (const id of ['a@x', 'b@x', 'c@x']) assert.ok(tokens.peek(id));
    // Whoever stops it now is told what only it knew.
    await assertLoses(tokens, ['a@x', 'b@x', 'c@x']);
  }),
);

test(
  'without Redis from the start tokens are had all the same',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const endpoint = await endpointFor(defer);
    await redis.kill();
    const log = createTestLog();
    const tokens = await instance(defer, redis, endpoint, ['a@x'], log);
    assert.ok(await tokens.get('a@x'));
    assert.equal(log.lines.filter((l) => l.fields.event === 'redis_lost').length, 1);
    await assertLoses(tokens, ['a@x']);
  }),
);

test(
  'a value sealed with a key that is gone does not stand above what comes',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const withKey = (key: string) => {
      const log = createTestLog();
      const connection = createRedisConnection(new Secret(redis.url), { log });
      const store = createRedisStore(connection, { log, sealer: createSealer(new Secret(key)) });
      defer(() => store.close());
      return store;
    };
    const [before, after, again] = [KEY, 'another-horse-battery-staple', 'another-horse-battery-staple'].map(
      withKey,
    );
    for (const store of [before, after, again]) await store?.open();
    for (const base of [0, 1, 2]) await before?.rotate(idOf('a@x'), rotation(`sealed-${base}`, base));
    assert.deepEqual(await after?.rotate(idOf('a@x'), rotation('newest')), { kept: true, generation: 4 });
    assert.equal((await again?.load(idOf('a@x')))?.refreshToken, 'newest');
  }),
);

for (const hours of [-2, 2])
  test(
    `a relay whose clock is ${hours} hours off: tokens, blocks and locks last as long as they do`,
    leakless(async (_t, defer) => {
      const redis = await redisFor(defer);
      const offBy = async (ms: number) => {
        const log = createTestLog();
        const clock = { ...systemClock, now: () => Date.now() + ms };
        const connection = createRedisConnection(new Secret(redis.url), { log, clock });
        const store = createRedisStore(connection, { log, sealer: undefined, clock }, { lockMs: 300 });
        defer(() => store.close());
        await store.open();
        return store;
      };
      const offMs = hours * 3_600_000;
      const [right, wrong] = [await offBy(0), await offBy(offMs)];
      const isNear = (value: number | undefined, wanted: number): boolean =>
        Math.abs((value ?? 0) - wanted) < 60_000;
      const minutes = 40 * 60_000;
      const ofWrong = token('t', { expiresAt: Date.now() + offMs + minutes, obtainedAt: Date.now() + offMs });
      await wrong.saveToken(idOf('a@x'), 'smtp', ofWrong);
      const seen = (await right.load(idOf('a@x')))?.tokens.smtp;
      assert.ok(isNear(seen?.expiresAt, Date.now() + minutes), 'the token');
      assert.ok(isNear(seen?.obtainedAt, Date.now()), 'when it was had');
      const until = Date.now() + offMs + minutes;
      await wrong.block?.('a@x', 'smtp', { fingerprint: 'f', kind: 'throttled', message: 'm', until });
      assert.ok(isNear((await right.blockOf?.('a@x', 'smtp'))?.until, Date.now() + minutes), 'the block');
      // Its holder dies: nobody extends it, nobody takes the word of it back.
      await wrong.lock?.('a@x');
      await wrong.close();
      const lock = await right.lock?.('a@x');
      assert.ok(isNear(lock?.interrupted?.begunAt, Date.now()), 'the refresh that was begun');
      await lock?.release();
    }),
  );
