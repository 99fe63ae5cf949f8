// needs: redis-server
/**
 * No grant is lost with several relays on a real Redis, nor by a relay that is told to stop; what SIGKILL
 * costs is counted. The endpoint revokes a refresh token the moment it gives the next.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import { createRedisConnection } from '../../src/redis.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createRedisStore } from '../../src/tokens/store-redis.ts';
import { createTokenService } from '../../src/tokens/token-service.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { type Redis, startRedis } from '../support/redis.ts';
import { startRelay } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';
import { startInstance } from '../support/token-instance.ts';
import { startTrial, type Trial } from '../support/token-trial.ts';
import { waitFor, within } from '../support/wait-for.ts';
import { createTestLog } from '../tokens/support.ts';

const STOPS = 50;
const KILLS = 30;

async function onRedis(defer: Defer, count: number, clockOf: () => Clock = () => systemClock) {
  const redis = await startRedis();
  defer(() => redis.kill());
  const trial = await startTrial(count, (log) => {
    const clock = clockOf();
    const connection = createRedisConnection(new Secret(redis.url), { log, clock });
    return createRedisStore(connection, { log, sealer: undefined, clock }, { lockMs: 1000 });
  });
  defer(() => trial.close());
  return { redis, trial };
}

const instanceSetup = (
  { endpoint, entries }: Trial,
  ground: { redisUrl: string } | { stateDir: string },
) => ({
  ...ground,
  tokenUrl: endpoint.url,
  lockMs: 700,
  accounts: entries.map(({ account, credential }) => {
    assert.ok(credential.grant === 'refresh_token');
    return {
      id: account.id,
      clientId: credential.clientId,
      clientSecret: credential.clientSecret?.reveal() ?? '',
      refreshToken: credential.refreshToken.reveal(),
    };
  }),
});

test(
  'two relays refresh the same accounts, one of them is stopped: nothing is lost, nothing asked twice at once',
  leakless(async (_t, defer) => {
    const { trial } = await onRedis(defer, 4);
    for (let stop = 0; stop < STOPS; stop += 1) {
      const [one, two] = [await trial.serve(), await trial.serve()];
      trial.endpoint.delayMs = 3 + (stop % 7);
      const asked = [one, two].flatMap((s) => trial.users.map((user) => s.refresh(user).catch(String)));
      await waitFor(() => trial.endpoint.count() > 0);
      await one.close();
      await Promise.all(asked);
      await two.close();
      assert.deepEqual(await trial.lost(), [], `stop ${stop}`);
    }
  }),
);

test(
  'clocks that differ by 90 s decide nothing',
  leakless(async (_t, defer) => {
    let offsetMs = 0;
    const clockOf = (): Clock => {
      const own = offsetMs;
      return { ...systemClock, now: () => Date.now() + own };
    };
    const { trial } = await onRedis(defer, 2, clockOf);
    const services = [];
    for (offsetMs of [0, 90_000, -90_000]) {
      const clock = clockOf();
      services.push(await trial.serve({ clock }));
    }
    for (let turn = 0; turn < STOPS; turn += 1) {
      const service = services[(turn * 7) % 3];
      for (const user of trial.users) await service?.refresh(user);
    }
    offsetMs = 0;
    assert.deepEqual(await trial.lost(), []);
  }),
);

test(
  'Redis is away while relays refresh as their operator wants it, and comes back empty',
  leakless(async (_t, defer) => {
    const { redis, trial } = await onRedis(defer, 3);
    const one = await trial.serve({}, { withoutStore: 'ask' });
    const two = await trial.serve({}, { withoutStore: 'ask' });
    for (let outage = 0; outage < 3; outage += 1) {
      await outageOf(redis, async () => {
        await Promise.all(trial.users.map((user) => one.refresh(user)));
        assert.deepEqual([...one.unsaved()].sort(), trial.users);
        for (const user of trial.users) {
          // The other one's is no longer good, which it does not take for the end of the grant.
          const refused = await two.refresh(user).catch((error: { code?: string }) => error.code);
          assert.equal(refused, 'provider_fault', user);
        }
      });
      await waitFor(() => one.unsaved().length === 0, { timeoutMs: 20_000, what: 'the saving' });
      await Promise.all(trial.users.map((user) => two.refresh(user)));
      await Promise.all(trial.users.map((user) => one.refresh(user)));
    }
    await one.close();
    await two.close();
    assert.deepEqual(await trial.lost(), []);
  }),
);

async function outageOf(redis: Redis, during: () => Promise<void>): Promise<void> {
  await redis.kill();
  await during();
  await redis.start();
}

test(
  'a relay paused longer than its lock does not make the other believe invalid_grant',
  leakless(async (_t, defer) => {
    const { redis, trial } = await onRedis(defer, 1);
    const [user = ''] = trial.users;
    const paused = await startInstance(instanceSetup(trial, { redisUrl: redis.url }));
    defer(() => paused.kill());
    const log = createTestLog();
    const other = await trial.serve({ log }, { answerTimeoutMs: 2000, lateMs: 10_000 });
    trial.endpoint.delayMs = 300;
    const asked = paused.refresh(user);
    await waitFor(() => trial.endpoint.count() === 1, { what: 'the request' });
    paused.child.kill('SIGSTOP');
    await waitFor(() => redis.command('exists', `xoauth2-relay:lock:${user}`) === '0', { what: 'the lock' });
    trial.endpoint.delayMs = 0;
    await assert.rejects(other.refresh(user), { code: 'provider_fault', message: /not believed yet/ });
    paused.child.kill('SIGCONT');
    await asked;
    await within(other.refresh(user), 5000, 'a refresh with what the other has saved');
    assert.doesNotMatch(log.text(), /needs_consent/);
    await other.close();
    assert.deepEqual(await trial.lost(), []);
  }),
);

test(
  'a refused account is looked for in the store every few seconds, and is back without anybody asking',
  leakless(async (_t, defer) => {
    const { trial } = await onRedis(defer, 1);
    const [user = ''] = trial.users;
    const holder = await trial.serve();
    await holder.refresh(user);
    trial.endpoint.revoke(user);
    const watching = createTokenService(
      { log: createTestLog(), store: trial.openStore(createTestLog()) },
      { endpoint: { env: {} } },
    );
    defer(() => watching.close());
    await watching.open();
    watching.applyAccounts(trial.entries);
    await assert.rejects(watching.refresh(user), { code: 'needs_consent' });
    trial.endpoint.restore(user);
    await holder.refresh(user);
    await waitFor(() => watching.peek(user) !== undefined, { timeoutMs: 15_000, what: 'the token' });
    await holder.close();
  }),
);

test(
  'SIGTERM during the first round of 20 accounts, five times over: all of them can still be refreshed',
  leakless(async (_t, defer) => {
    const users = Array.from({ length: 20 }, (_, i) => `user${i}@outlook.example`);
    const provider = await startProvider({ flavour: 'microsoft', users });
    defer(() => provider.close());
    provider.token.rotation = 'revoke-old';
    provider.token.decidesAtOnce = true;
    const directory = mkdtempSync(join(tmpdir(), 'relay-state-'));
    defer(() => rmSync(directory, { recursive: true }));
    const accounts = users.map((user) => provider.entry(user));
    const run = async (until: 'listening' | 'ready') => {
      const relay = await startRelay({
        accounts,
        caFile: provider.caFile,
        args: ['--state-dir', directory],
        until,
      });
      defer(() => relay.stop());
      return relay;
    };
    for (let stop = 0; stop < 5; stop += 1) {
      for (const user of users) provider.token.forgetAccessTokens(user);
      provider.token.expiresInS = 1;
      provider.token.delayMs = 400;
      const before = provider.token.count();
      const relay = await run('listening');
      await waitFor(() => provider.token.count() > before, { what: 'requests' });
      relay.signal('SIGTERM');
      assert.deepEqual(await relay.exited, { code: 0, signal: null });
      assert.ok(provider.token.requests.every((request) => request.status === 200));
    }
    provider.token.delayMs = 0;
    provider.token.expiresInS = undefined;
    const last = await run('ready');
    const { tokens_failed: failed } = await last.event('ready');
    assert.equal(failed, 0);
  }),
);

test(
  'a refresh token that cannot be saved calls somebody, and SIGTERM before it is saved names the account and ends with 1',
  leakless(async (_t, defer) => {
    const user = 'user@outlook.example';
    const provider = await startProvider({ flavour: 'microsoft', users: [user] });
    defer(() => provider.close());
    const directory = mkdtempSync(join(tmpdir(), 'relay-state-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    const args = ['--state-dir', directory];
    const relay = await startRelay({ accounts: [provider.entry(user)], caFile: provider.caFile, args });
    defer(() => relay.stop());
    rmSync(directory, { recursive: true });
    const headers = { connection: 'close', 'content-type': 'application/json' };
    await fetch(`${relay.adminUrl}/admin/accounts/${user}/refresh`, { method: 'POST', headers });
    await relay.event('attention', { timeoutMs: 20_000 });
    const { accounts } = await relay.admin<{ accounts: Record<string, unknown>[] }>('/admin/accounts');
    assert.equal(accounts[0]?.status, 'misconfigured');
    assert.match(String(accounts[0]?.reason), /newest refresh token cannot be saved/);
    assert.match(String(accounts[0]?.cure), /do not stop the relay/);
    relay.signal('SIGTERM');
    assert.deepEqual(await relay.exited, { code: 1, signal: null });
    const [line] = relay.lines.filter((each) => each.event === 'refresh_tokens_lost');
    assert.deepEqual(line?.accounts, [user]);
  }),
);

test(
  'a second relay on the same directory ends with 2 and one line that names the first',
  leakless(async (_t, defer) => {
    const user = 'user@outlook.example';
    const provider = await startProvider({ flavour: 'microsoft', users: [user] });
    defer(() => provider.close());
    const directory = mkdtempSync(join(tmpdir(), 'relay-state-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    const accounts = [provider.entry(user)];
    const first = await startRelay({ accounts, caFile: provider.caFile, args: ['--state-dir', directory] });
    defer(() => first.stop());
    const { code, stderr } = await runCli([
      ...['serve', '--accounts', first.accountsFile, '--state-dir', directory],
      ...['--port', '0', '--admin-port', '0'],
    ]);
    assert.equal(code, 2);
    assert.match(stderr, new RegExp(`in use by another relay \\(pid ${first.pid}\\)`));
    assert.equal(stderr.trim().split('\n').length, 1);
  }),
);

test(
  'SIGKILL while refreshes are answered: what is lost is an answer on its way, and it is counted',
  leakless(async (t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'relay-state-'));
    defer(() => rmSync(directory, { recursive: true }));
    const trial = await startTrial(1, (log) => createFileStore(directory, { log, sealer: undefined }));
    defer(() => trial.close());
    const [user = ''] = trial.users;
    let lost = 0;
    let answered = 0;
    for (let kill = 0; kill < KILLS; kill += 1) {
      const instance = await startInstance(instanceSetup(trial, { stateDir: directory }));
      defer(() => instance.kill());
      // Warm, as a relay that has run for a while.
      await instance.refresh(user);
      // From the moment the answer has left: 0 to 5 ms later.
      const sent = new Promise<void>((resume) => {
        trial.endpoint.observe = () => resume();
      });
      const asked = instance.refresh(user).catch(() => 'killed');
      await sent;
      await new Promise((resume) => setTimeout(resume, kill % 6));
      await instance.kill();
      if ((await asked) === 'refreshed') answered += 1;
      const gone = await trial.lost();
      if (gone.length === 0) continue;
      lost += 1;
      // A person signs in again.
      trial.restart(user);
    }
    t.diagnostic(
      `${KILLS} SIGKILLs within 5 ms of an answer: ${lost} grants lost, ${answered} had been answered`,
    );
    assert.ok(answered + lost <= KILLS);
  }),
);
