/** Which of several consents an account goes on with, when it has had more than one. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { AccessToken } from '../../src/tokens/access-token.ts';
import { grantFingerprint } from '../../src/tokens/grant-form.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import { createTokenService, type TokenService } from '../../src/tokens/token-service.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import { tokenAnswers } from '../support/token-answers.ts';
import { startTokenEndpoint, type TokenEndpoint } from '../support/token-endpoint.ts';
import { account, createTestLog, refreshCredential } from './support.ts';

const GIVEN = 'refresh-given-by-the-operator';

async function provider(t: TestContext): Promise<TokenEndpoint> {
  const endpoint = await startTokenEndpoint('microsoft');
  t.after(() => endpoint.close());
  endpoint.rotation = 'revoke-old';
  endpoint.add('person@x', { clientId: 'client-1', clientSecret: 'client-secret-1', refreshToken: GIVEN });
  return endpoint;
}

const entry = (endpoint: TokenEndpoint, id: string, user: string) => ({
  account: { ...account(id), user },
  credential: refreshCredential(endpoint.url, id, { refreshToken: new Secret(GIVEN) }),
});

async function serve(t: TestContext, store: TokenStore): Promise<TokenService> {
  const tokens = createTokenService({ log: createTestLog(), store }, { refreshAhead: false });
  await tokens.open();
  t.after(() => tokens.close());
  return tokens;
}

/** A person signs in for an account, as `user` of the provider. */
async function signIn(
  endpoint: TokenEndpoint,
  tokens: TokenService,
  id: string,
  user: string,
  made?: { user?: string; isWanted?: () => boolean },
) {
  const { refreshToken } = endpoint.add(user, { clientId: 'client-1', clientSecret: 'client-secret-1' });
  const { accessToken, expiresAt } = endpoint.issue(user);
  await tokens.adopt(id, {
    refreshToken: new Secret(refreshToken),
    accessToken: new AccessToken(accessToken, expiresAt, Date.now()),
    resource: 'smtp',
    ...made,
  });
}

const ownerOf = async (endpoint: TokenEndpoint, tokens: TokenService, id: string): Promise<string[]> => [
  ...(endpoint.read((await tokens.get(id)).reveal())?.users ?? ['nobody']),
];

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'consent-order-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const fileStore = (path: string, role: 'owner' | 'guest' = 'owner'): TokenStore =>
  createFileStore(path, { log: createTestLog(), sealer: undefined }, { role });

for (const kind of ['memory', 'file'] as const)
  test(`${kind}: a renamed account goes on with its own sign-in, however often others have refreshed what the operator gave`, async (t) => {
    const endpoint = await provider(t);
    const tokens = await serve(t, kind === 'memory' ? createMemoryStore() : fileStore(directory(t)));
    tokens.applyAccounts([entry(endpoint, 'ann', 'ann@x'), entry(endpoint, 'bob', 'bob@x')]);
    await tokens.get('ann');
    await signIn(endpoint, tokens, 'ann', 'ann@x');
    for (let i = 0; i < 4; i++) await tokens.refresh('bob');
    assert.deepEqual(await ownerOf(endpoint, tokens, 'ann'), ['ann@x']);
    tokens.applyAccounts([entry(endpoint, 'ann.new', 'ann@x'), entry(endpoint, 'bob', 'bob@x')]);
    assert.deepEqual(await ownerOf(endpoint, tokens, 'ann.new'), ['ann@x']);
    await tokens.refresh('bob');
    assert.deepEqual(await ownerOf(endpoint, tokens, 'bob'), ['person@x']);
  });

test('what a command got for one of two accounts with one consent serves the other one in the relay', async (t) => {
  const endpoint = await provider(t);
  const path = directory(t);
  const relay = await serve(t, fileStore(path));
  const both = [entry(endpoint, 'ann', 'ann@x'), entry(endpoint, 'bob', 'bob@x')];
  relay.applyAccounts(both);
  await relay.get('ann');
  await relay.get('bob');
  const command = createTokenService(
    { log: createTestLog(), store: fileStore(path, 'guest') },
    { refreshAhead: false },
  );
  command.applyAccounts(both);
  await command.refresh('bob');
  await command.close();
  await relay.refresh('ann');
  assert.equal(relay.statusOf('ann')?.state.status, 'ready');
});

for (const kind of ['memory', 'file'] as const)
  test(`${kind}: what somebody signed in for serves an account only while it is that mailbox, and waits for it`, async (t) => {
    const endpoint = await provider(t);
    const path = directory(t);
    let tokens = await serve(t, kind === 'memory' ? createMemoryStore() : fileStore(path));
    const serveAs = (user: string): void => void tokens.applyAccounts([entry(endpoint, 'ann', user)]);
    const owner = async (): Promise<string[]> => {
      const held = await ownerOf(endpoint, tokens, 'ann');
      await tokens.refresh('ann');
      assert.deepEqual(await ownerOf(endpoint, tokens, 'ann'), held);
      return held;
    };
    serveAs('ann@x');
    assert.deepEqual(await owner(), ['person@x']);
    await signIn(endpoint, tokens, 'ann', 'ann@x');
    assert.deepEqual(await owner(), ['ann@x']);
    for (const turn of [1, 2]) {
      serveAs('bob@x');
      assert.deepEqual(await owner(), ['person@x'], `turn ${turn}`);
      if (kind === 'file') {
        await tokens.close();
        tokens = await serve(t, fileStore(path));
        serveAs('bob@x');
        assert.deepEqual(await owner(), ['person@x'], `turn ${turn}, after a restart`);
      }
      serveAs(turn === 1 ? 'Ann@X' : 'ann@x');
      assert.deepEqual(await owner(), ['ann@x'], `turn ${turn}`);
    }
  });

test('a sign-in that ends when the account has become another mailbox is not taken', async (t) => {
  const endpoint = await provider(t);
  const tokens = await serve(t, createMemoryStore());
  tokens.applyAccounts([entry(endpoint, 'ann', 'bob@x')]);
  await assert.rejects(
    signIn(endpoint, tokens, 'ann', 'ann@x', { user: 'ann@x' }),
    /is the mailbox bob@x now/,
  );
  assert.deepEqual(await ownerOf(endpoint, tokens, 'ann'), ['person@x']);
  await signIn(endpoint, tokens, 'ann', 'bob@x', { user: 'Bob@X' });
  assert.deepEqual(await ownerOf(endpoint, tokens, 'ann'), ['bob@x']);
});

test('a sign-in is asked whether it is wanted still when nothing else of the grant is under way', async (t) => {
  const endpoint = await provider(t);
  const tokens = await serve(t, createMemoryStore());
  tokens.applyAccounts([entry(endpoint, 'ann', 'ann@x')]);
  await tokens.get('ann');
  endpoint.delayMs = 100;
  const refreshing = tokens.refresh('ann');
  let isWanted = true;
  let asked = 0;
  const adopting = signIn(endpoint, tokens, 'ann', 'anew@x', {
    isWanted() {
      asked = endpoint.requests.filter(({ status }) => status === undefined).length + 1;
      return isWanted;
    },
  });
  isWanted = false;
  await assert.rejects(adopting, /another invitation/);
  assert.equal(asked, 1, 'behind the answer that was awaited');
  await refreshing;
  await tokens.refresh('ann');
  assert.deepEqual(await ownerOf(endpoint, tokens, 'ann'), ['person@x']);
});

for (const isHeardAtOnce of [true, false])
  test(`where another relay was first with a refresh token that is no good, what came here serves from then on, also where the provider ${isHeardAtOnce ? 'gives no other' : 'does not answer at first'}`, async (t) => {
    const endpoint = await provider(t);
    const store = createMemoryStore();
    const tokens = await serve(t, store);
    const ann = entry(endpoint, 'ann', 'ann@x');
    tokens.applyAccounts([ann]);
    const id = { accountId: 'ann', fingerprint: grantFingerprint(ann.credential), user: 'ann@x' };
    const { rotate } = store;
    store.rotate = async (...given) => {
      store.rotate = rotate;
      await rotate(id, { base: 0, refreshToken: 'no good', obtainedAt: 1000, tokens: Promise.resolve({}) });
      return rotate(...given);
    };
    await tokens.refresh('ann');
    endpoint.rotation = 'off';
    if (!isHeardAtOnce) {
      endpoint.queue(tokenAnswers.unavailableHtml, { user: 'person@x' });
      await assert.rejects(tokens.refresh('ann'), { code: 'provider_fault' });
    }
    for (let i = 0; i < 3; i++) await tokens.refresh('ann');
    assert.deepEqual(
      endpoint.requests.map(({ status }) => status),
      isHeardAtOnce ? [200, 400, 200, 200, 200] : [200, 400, 503, 400, 200, 200, 200],
    );
  });
