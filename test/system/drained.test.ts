// needs: redis-server
/** An operator's decision and a crash right behind the answer to it. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRedis } from '../support/redis.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@example.com';

/** A relay that starts again and again on what it left. */
async function ground(defer: Defer, env: Readonly<Record<string, string>> = {}) {
  const provider = await startProvider({ users: [ANN] });
  defer(() => provider.close());
  const stateDir = mkdtempSync(join(tmpdir(), 'drained-'));
  defer(() => rmSync(stateDir, { recursive: true, force: true }));
  return async (): Promise<RelayProcess> => {
    const relay = await startRelay({
      accounts: [provider.entry(ANN)],
      caFile: provider.caFile,
      args: ['--state-dir', stateDir],
      env: { XOAUTH2_RELAY_STATE_KEY: 'drained-test-passphrase-0123456789', ...env },
    });
    defer(() => relay.stop());
    return relay;
  };
}

const isDrained = async (relay: RelayProcess): Promise<boolean | undefined> =>
  (await relay.admin<{ drained: boolean }>(`/admin/accounts/${ANN}`)).drained;

/** Heard that it is done, the relay is killed. */
async function decideAndKill(relay: RelayProcess, action: string): Promise<void> {
  const answer = await fetch(`${relay.adminUrl}/admin/accounts/${ANN}/${action}`, { method: 'POST' });
  assert.equal(answer.status, 200);
  relay.signal('SIGKILL');
  await relay.exited;
}

const DECISIONS = [
  ['drain', true],
  ['resume', false],
] as const;

test(
  'who is drained or resumed stays so, killed in the moment of the answer',
  leakless(async (_t, defer) => {
    const start = await ground(defer);
    let relay = await start();
    for (const [action, drained] of DECISIONS) {
      await decideAndKill(relay, action);
      relay = await start();
      assert.equal(await isDrained(relay), drained, action);
    }
  }),
);

test(
  'so he does where that was done without Redis, which is back at the next start',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const start = await ground(defer, { XOAUTH2_RELAY_STORE: redis.url });
    let relay = await start();
    for (const [action, drained] of DECISIONS) {
      redis.command('save');
      await redis.kill();
      await decideAndKill(relay, action);
      await redis.start();
      relay = await start();
      const stands = (): boolean =>
        redis.command('hexists', 'xoauth2-relay:states', `drained:${ANN}`) === '1';
      await waitFor(() => stands() === drained, { what: `${action} in Redis` });
      assert.equal(await isDrained(relay), drained, action);
    }
  }),
);

test(
  'an accounts file that was empty for a while resumes nobody',
  leakless(async (_t, defer) => {
    const start = await ground(defer);
    const relay = await start();
    const accounts = readFileSync(relay.accountsFile, 'utf8');
    await fetch(`${relay.adminUrl}/admin/accounts/${ANN}/drain`, { method: 'POST' });
    // As a template leaves it that failed.
    for (const text of ['{"accounts":[]}', accounts])
      assert.equal((await relay.reload(text)).event, 'reloaded', text);
    assert.equal(await isDrained(relay), true);
  }),
);
