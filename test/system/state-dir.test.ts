import assert from 'node:assert/strict';
import { chownSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { runCli, startCli } from '../support/run-cli.ts';
import { startOnTerminal } from '../support/terminal-run.ts';
import { waitFor } from '../support/wait-for.ts';
import { closedPort } from '../tokens/support.ts';

const USERS = Array.from({ length: 10 }, (_, i) => `user${i}@outlook.example`);
const KEY = 'correct-horse-battery-staple';

async function stage(defer: Defer) {
  const provider = await startProvider({ flavour: 'microsoft', users: USERS });
  defer(() => provider.close());
  provider.token.rotation = 'revoke-old';
  // What the operator wrote down once; the provider has long rotated it.
  const accounts = USERS.map((user) => provider.entry(user));
  const directory = mkdtempSync(join(tmpdir(), 'relay-state-'));
  defer(() => rmSync(directory, { recursive: true }));
  const run = async (env: Record<string, string> = {}) => {
    const relay = await startRelay({
      accounts,
      caFile: provider.caFile,
      args: ['--state-dir', directory],
      env: { XOAUTH2_RELAY_STATE_KEY: KEY, ...env },
    });
    defer(() => relay.stop());
    return relay;
  };
  return { provider, directory, run };
}

test(
  'a relay that was killed starts again without a single token request',
  leakless(async (_t, defer) => {
    const { provider, directory, run } = await stage(defer);
    const first = await run();
    assert.equal(provider.token.count(), USERS.length);
    first.signal('SIGKILL');
    await first.exited;
    const second = await run();
    assert.equal(provider.token.count(), USERS.length);
    const ready = await second.event('ready');
    assert.deepEqual([ready.tokens, ready.tokens_failed], [USERS.length, 0]);
    const seen = await second.admin<{ accounts: Record<string, unknown>[] }>('/admin/tokens');
    for (const row of seen.accounts) {
      assert.deepEqual([row.source, row.cached, row.last_error], ['store', true, null]);
      assert.ok(Date.parse(String(row.refresh_token_obtained_at)) <= Date.now());
    }
    const names = readdirSync(directory).filter((name) => name.endsWith('.grant'));
    const texts = names.map((name) => readFileSync(join(directory, name), 'utf8'));
    assert.equal(texts.length, USERS.length);
    for (const user of USERS) {
      const { refreshToken } = provider.token.account(user) ?? {};
      for (const text of [...texts, first.output(), second.output()]) {
        assert.ok(!text.includes(refreshToken ?? ''), 'a refresh token in a file or the log');
      }
    }
  }),
);

test(
  'rotated refresh tokens survive restarts; a damaged file concerns one account only',
  leakless(async (_t, defer) => {
    const { provider, directory, run } = await stage(defer);
    const first = await run();
    await first.stop();
    for (const user of USERS) provider.token.forgetAccessTokens(user);
    const damaged = readdirSync(directory).find((name) => name.startsWith('user3@')) ?? '';
    writeFileSync(join(directory, damaged), 'garbage');
    const second = await run();
    const refreshes = await Promise.all(
      USERS.map(async (user) => {
        const address = `${second.adminUrl}/admin/accounts/${user}/refresh`;
        const headers = { connection: 'close', 'content-type': 'application/json' };
        return (await fetch(address, { method: 'POST', headers })).ok;
      }),
    );
    // The provider took user3's first refresh token back when it gave the one in the damaged file.
    assert.deepEqual(
      USERS.filter((_user, i) => refreshes[i] !== true),
      ['user3@outlook.example'],
    );
    const aside = second.lines.filter((line) => line.event === 'state_file_set_aside');
    assert.deepEqual(
      aside.map((line) => line.account),
      ['user3@outlook.example'],
    );
  }),
);

test(
  'a stop while nothing can be saved names what is lost, and nothing that is not the trouble',
  leakless(async (_t, defer) => {
    const { provider, directory, run } = await stage(defer);
    const relay = await run();
    rmSync(directory, { recursive: true });
    writeFileSync(directory, '');
    const [user = ''] = USERS;
    const before = provider.token.count();
    await fetch(`${relay.adminUrl}/admin/accounts/${user}/refresh`, {
      method: 'POST',
      headers: { connection: 'close' },
    });
    assert.equal(provider.token.count(), before + 1);
    relay.signal('SIGTERM');
    assert.deepEqual(await relay.exited, { code: 1, signal: null });
    assert.deepEqual(relay.lines.find((line) => line.event === 'refresh_tokens_lost')?.accounts, [user]);
    const wrong = relay.lines.filter((line) => /entry in the accounts file/.test(JSON.stringify(line)));
    assert.deepEqual(wrong, []);
  }),
);

/** An accounts file and `check` of it, at a provider that revokes. */
async function checking(defer: Defer) {
  const user = 'user@outlook.example';
  const provider = await startProvider({ flavour: 'microsoft', users: [user] });
  defer(() => provider.close());
  provider.token.rotation = 'revoke-old';
  const directory = mkdtempSync(join(tmpdir(), 'relay-state-'));
  defer(() => rmSync(directory, { recursive: true }));
  const accounts = join(directory, 'accounts.json');
  writeFileSync(accounts, JSON.stringify({ accounts: [provider.entry(user)] }), { mode: 0o600 });
  const stateDir = join(directory, 'state');
  const check = async (): Promise<void> => {
    provider.token.forgetAccessTokens(user);
    for (const name of provider.token.count() > 0 ? readdirSync(stateDir) : []) {
      // The access token, not the grant.
      const path = join(stateDir, name);
      const { version, grants } = JSON.parse(readFileSync(path, 'utf8'));
      const bare = grants.map((grant: object) => ({ ...grant, tokens: {} }));
      writeFileSync(path, JSON.stringify({ version, grants: bare }));
    }
    const env = { NODE_EXTRA_CA_CERTS: provider.caFile };
    const checked = await runCli(['check', '--accounts', accounts, '--state-dir', stateDir], { env });
    assert.equal(checked.code, 0, checked.stdout + checked.stderr);
  };
  return { provider, accounts, stateDir, check };
}

test(
  'what check is given before the first start is there for whoever asks next',
  leakless(async (_t, defer) => {
    const { provider, stateDir, check } = await checking(defer);
    await check();
    assert.equal(lstatSync(stateDir).mode & 0o777, 0o700);
    await check();
    assert.equal(provider.token.count(), 2);
  }),
);

test(
  'root checks beside the relay of another user with its newest refresh tokens, and leaves it all it needs',
  { skip: process.getuid?.() === 0 ? false : 'needs root' },
  leakless(async (_t, defer) => {
    const { provider, stateDir, check } = await checking(defer);
    await check();
    const somebody = 65_534;
    chownSync(stateDir, somebody, somebody);
    for (const name of readdirSync(stateDir)) chownSync(join(stateDir, name), somebody, somebody);
    await check();
    await check();
    assert.equal(provider.token.count(), 3);
    const left = readdirSync(stateDir).map((name) => lstatSync(join(stateDir, name)));
    assert.deepEqual(
      left.map(({ uid, gid, mode }) => [uid, gid, mode & 0o777]),
      [[somebody, somebody, 0o600]],
    );
  }),
);

test(
  'check says what keeps it from asking where nothing was asked',
  leakless(async (_t, defer) => {
    const { provider, accounts } = await checking(defer);
    const env = { NODE_EXTRA_CA_CERTS: provider.caFile };
    const store = `redis://127.0.0.1:${await closedPort()}`;
    const checked = await runCli(['check', '--accounts', accounts], {
      env: { ...env, XOAUTH2_RELAY_STORE: store },
    });
    assert.equal(checked.code, 1);
    assert.equal(provider.token.count(), 0);
    assert.match(checked.stdout + checked.stderr, /without Redis.*cure: bring Redis back/s);
  }),
);

for (const how of ['SIGINT', 'SIGTERM', 'SIGHUP', 'a terminal that goes away'] as const)
  test(
    `a check that ${how} ends while a token is asked for keeps what the answer brings`,
    leakless(async (_t, defer) => {
      const { provider, directory } = await stage(defer);
      const users = USERS.slice(0, 2);
      const accounts = `${directory}/accounts.json`;
      const entries = users.map((user) => provider.entry(user));
      writeFileSync(accounts, JSON.stringify({ accounts: entries }), { mode: 0o600 });
      const words = ['check', '--accounts', accounts, '--state-dir', directory, '--admin-port', '1'];
      const env = { NODE_EXTRA_CA_CERTS: provider.caFile, XOAUTH2_RELAY_STATE_KEY: KEY };
      provider.token.decidesAtOnce = true;
      // The other one goes on, and what it comes to is to be shown.
      provider.token.queue({ normal: true, delayMs: 1_000 });
      const isAsked = () => waitFor(() => provider.token.count() === 2, { what: 'the requests' });
      if (how === 'a terminal that goes away') {
        const run = startOnTerminal(words, env);
        await isAsked();
        run.hangUp();
        await run.exited;
      } else {
        const interrupted = startCli(words, { env, input: '' });
        await isAsked();
        interrupted.signal(how);
        assert.equal((await interrupted.exited).code, null);
        // One that is left tells the relay of a refresh that was cut short.
        assert.deepEqual(
          readdirSync(directory).filter((name) => name.endsWith('.lock')),
          [],
        );
      }
      const { code, stdout } = await runCli(words, { env });
      assert.equal(code, 0, stdout);
    }),
  );
