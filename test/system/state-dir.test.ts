import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';

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
