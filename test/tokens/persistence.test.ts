/** What a restart, a reload and a full disk do to tokens: the service on a store that outlives it. */

import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { grantFingerprint } from '../../src/tokens/grant-form.ts';
import { createTokenStore } from '../../src/tokens/open-store.ts';
import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import {
  createTokenService,
  type TokenService,
  type TokenServiceOptions,
} from '../../src/tokens/token-service.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import { createTestClock } from '../support/clock.ts';
import { waitFor } from '../support/wait-for.ts';
import { createTestLog, entryFor, grant, startEndpoint } from './support.ts';

async function stateDir(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'tokens-test-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** A service as a fresh process would make it. */
async function run(
  t: TestContext,
  stateDir: string,
  log = createTestLog(),
  options: TokenServiceOptions = {},
): Promise<TokenService> {
  const stateKey = new Secret('correct-horse-battery-staple');
  const service = createTokenService({ log, store: createTokenStore({ stateDir, stateKey, log }) }, options);
  await service.open();
  t.after(() => service.close());
  return service;
}

async function rotating(t: TestContext): ReturnType<typeof startEndpoint> {
  const endpoint = await startEndpoint(t);
  endpoint.answer = (_request, response) => {
    const number = endpoint.requests.length;
    grant(response, { access_token: `access-${number}`, refresh_token: `rotated-${number}` });
  };
  return endpoint;
}

const grantOf = (accountId: string) => ({
  accountId,
  fingerprint: grantFingerprint(entryFor('http://127.0.0.1/', accountId).credential),
});
const filesIn = async (path: string): Promise<string[]> =>
  (await readdir(path)).filter((name) => name.endsWith('.grant'));

test('a restart with valid tokens makes no request', async (t) => {
  const endpoint = await rotating(t);
  const path = await stateDir(t);
  const accounts = ['a@x', 'b@x', 'c@x'].map((id) => entryFor(endpoint.url, id));
  const first = await run(t, path);
  first.applyAccounts(accounts);
  await first.precache();
  await first.close();
  const second = await run(t, path);
  second.applyAccounts(accounts);
  const result = await second.precache();
  assert.deepEqual({ ...result, ms: 0 }, { accounts: 3, cached: 3, fetched: 0, failed: 0, ms: 0 });
  assert.equal(endpoint.requests.length, 3);
  assert.equal(second.statusOf('a@x')?.origin, 'store');
});

test('the newest refresh token wins until the operator changes the accounts file', async (t) => {
  const endpoint = await rotating(t);
  const path = await stateDir(t);
  const first = await run(t, path);
  first.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await first.get('a@x');
  await first.close();

  const second = await run(t, path);
  second.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await second.refresh('a@x');
  assert.equal(endpoint.requests.at(-1)?.form.get('refresh_token'), 'rotated-1');
  await second.close();

  const third = await run(t, path);
  third.applyAccounts([entryFor(endpoint.url, 'a@x', { refreshToken: new Secret('operators-new') })]);
  assert.equal((await third.get('a@x')).reveal(), 'access-3');
  assert.equal(endpoint.requests.at(-1)?.form.get('refresh_token'), 'operators-new');
});

test('a rotated refresh token is durable before its access token is used', async (t) => {
  const endpoint = await rotating(t);
  const held: (() => void)[] = [];
  const memory = createMemoryStore();
  const store: TokenStore = {
    ...memory,
    async rotate(id, rotation) {
      await new Promise<void>((resume) => held.push(resume));
      return memory.rotate(id, rotation);
    },
  };
  const tokens = createTokenService({ log: createTestLog(), store });
  t.after(() => tokens.close());
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  let got = false;
  const getting = tokens.get('a@x').then(() => {
    got = true;
  });
  await waitFor(() => held.length === 1, { what: 'the save' });
  await new Promise((resume) => setImmediate(resume));
  assert.equal(tokens.peek('a@x'), undefined);
  assert.equal(got, false);
  held[0]?.();
  await getting;
  assert.equal((await memory.load(grantOf('a@x')))?.refreshToken, 'rotated-1');
});

test('a store that fails stops no mail, and gets what it missed once it is back', async (t) => {
  const endpoint = await rotating(t);
  const clock = createTestClock();
  const log = createTestLog();
  const memory = createMemoryStore();
  let full = true;
  const store: TokenStore = {
    ...memory,
    rotate: async (id, rotation) => {
      if (full) throw Object.assign(new Error('secret path'), { code: 'ENOSPC' });
      return memory.rotate(id, rotation);
    },
  };
  const tokens = createTokenService({ log, store, clock });
  t.after(() => tokens.close());
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x'), entryFor(endpoint.url, 'b@x')]);
  await tokens.precache();
  assert.ok(tokens.peek('a@x'));
  const errors = log.lines.filter((l) => l.level === 'error');
  assert.equal(errors.length, 1, 'one line for one outage');
  assert.equal(errors[0]?.fields.reason, 'ENOSPC');
  // It is read without trouble, and takes nothing.
  tokens.applyAccounts(['a@x', 'b@x', 'c@x'].map((id) => entryFor(endpoint.url, id)));
  await tokens.precache();
  assert.ok(tokens.peek('c@x'));
  assert.equal(log.lines.filter((l) => l.level === 'error').length, 1, 'still the same outage');
  assert.ok(!log.text().includes('token_store_back'));
  full = false;
  clock.advance(60_000);
  await waitFor(() => log.text().includes('token_store_back'), { what: 'the store is back' });
  const kept = [
    (await memory.load(grantOf('a@x')))?.refreshToken,
    (await memory.load(grantOf('b@x')))?.refreshToken,
  ];
  assert.deepEqual(kept.sort(), ['rotated-1', 'rotated-2']);
});

test('accounts that are gone leave nothing on the disk after their days, and nothing secret ever is', async (t) => {
  const endpoint = await rotating(t);
  const path = await stateDir(t);
  const log = createTestLog();
  const tokens = await run(t, path, log, { forgetAfterMs: 0 });
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x'), entryFor(endpoint.url, 'b@x')]);
  await tokens.precache();
  const texts = await Promise.all((await filesIn(path)).map((n) => readFile(join(path, n), 'utf8')));
  assert.equal(texts.length, 2);
  assert.doesNotMatch(texts.join('\n') + log.text(), /access-|rotated-|refresh-of|client-secret/);
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await waitFor(() => log.text().includes('token_store_pruned'), { what: 'the pruning' });
  assert.equal((await filesIn(path)).length, 1);
});

test('an account that is removed, or cannot be served just now, loses nothing', async (t) => {
  const endpoint = await rotating(t);
  const path = await stateDir(t);
  const tokens = await run(t, path);
  const all = ['a@x', 'b@x', 'c@x'].map((id) => entryFor(endpoint.url, id));
  tokens.applyAccounts(all);
  await tokens.precache();
  tokens.applyAccounts(all.slice(0, 1), ['b@x']);
  await waitFor(() => tokens.keptRemoved().length === 1, { what: 'the pruning' });
  const [kept] = tokens.keptRemoved();
  assert.equal(kept?.accountId, 'c@x');
  assert.ok((kept?.until ?? 0) > Date.now() + 13 * 24 * 3_600_000);
  assert.equal((await filesIn(path)).length, 3);
  tokens.applyAccounts(all);
  await tokens.precache();
  assert.equal(endpoint.requests.length, 3);
  await waitFor(() => tokens.keptRemoved().length === 0, { what: 'nobody being missed' });
});

test('a forgotten token is gone from the store too', async (t) => {
  const endpoint = await rotating(t);
  const path = await stateDir(t);
  const first = await run(t, path);
  first.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await first.get('a@x');
  first.forget('a@x');
  await first.close();
  const second = await run(t, path);
  second.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  assert.equal((await second.get('a@x')).reveal(), 'access-2');
  assert.equal(endpoint.requests.at(-1)?.form.get('refresh_token'), 'rotated-1');
});

test('a store that is not configured soundly is refused', () => {
  const log = createTestLog();
  const url = (text: string) => ({ storeUrl: new Secret(text), log });
  assert.throws(() => createTokenStore(url('file')), /state directory/);
  assert.throws(() => createTokenStore(url('mysql://x')), /unknown token store/);
  assert.throws(
    () => createTokenStore({ stateDir: '/tmp', stateKey: new Secret('short'), log }),
    /32 random octets/,
  );
  assert.equal(createTokenStore({ log }).kind, 'memory');
  assert.equal(createTokenStore({ ...url('memory'), stateDir: '/nowhere' }).kind, 'memory');
  assert.equal(createTokenStore({ stateDir: '/nowhere', log }).kind, 'file');
  assert.equal(createTokenStore(url('redis://127.0.0.1:1')).kind, 'redis');
});
