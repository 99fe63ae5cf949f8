/** What every token store must do, whatever it keeps its records in. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { StoredGrant, TokenStore } from '../../src/tokens/token-store.ts';

const soon = (): number => Date.now() + 3_600_000;
const full = (): StoredGrant => ({
  grantFingerprint: 'grant-1',
  refreshToken: 'refresh-1',
  refreshTokenObtainedAt: 1000,
  tokenFingerprint: 'token-1',
  accessToken: 'access-1',
  expiresAt: soon(),
  obtainedAt: 2000,
});

/** `open` gives an opened, empty store and another one on the same ground (after a restart, or beside it). */
export function testStore(
  name: string,
  open: (t: TestContext) => Promise<{ store: TokenStore; again: () => Promise<TokenStore> }>,
): void {
  test(`${name}: what was saved is loaded, by account`, async (t) => {
    const { store } = await open(t);
    const grant = full();
    await store.save('a@x', grant);
    await store.save('B@x', { grantFingerprint: 'other', refreshToken: 'r', refreshTokenObtainedAt: 1 });
    assert.deepEqual(await store.load('a@x'), grant);
    assert.equal((await store.load('B@x'))?.refreshToken, 'r');
    assert.equal(await store.load('b@x'), undefined);
    assert.equal(await store.load('nobody'), undefined);
  });

  test(`${name}: a later save replaces the whole record`, async (t) => {
    const { store } = await open(t);
    await store.save('a@x', full());
    const later = { ...full(), refreshToken: 'refresh-2', accessToken: 'access-2' };
    await store.save('a@x', later);
    assert.deepEqual(await store.load('a@x'), later);
    const { accessToken: _a, expiresAt: _e, obtainedAt: _o, tokenFingerprint: _t, ...without } = later;
    await store.save('a@x', without);
    assert.deepEqual(await store.load('a@x'), without);
  });

  test(`${name}: of many saves at once the last one stands`, async (t) => {
    const { store } = await open(t);
    const saves = Array.from({ length: 50 }, (_, i) =>
      store.save('a@x', { ...full(), accessToken: `access-${i}` }),
    );
    await Promise.all(saves);
    assert.equal((await store.load('a@x'))?.accessToken, 'access-49');
  });

  test(`${name}: ids with any characters are kept apart`, async (t) => {
    const { store } = await open(t);
    const ids = ['../../etc/passwd', 'a/b', 'a_b', '.hidden', 'ünï@x', `${'long'.repeat(100)}@x`, 'a b:c*d'];
    for (const id of ids) await store.save(id, { ...full(), accessToken: `for ${id.length} ${id}` });
    for (const id of ids) assert.equal((await store.load(id))?.accessToken, `for ${id.length} ${id}`);
  });

  test(`${name}: removed is gone`, async (t) => {
    const { store } = await open(t);
    await store.save('a@x', full());
    await store.remove('a@x');
    assert.equal(await store.load('a@x'), undefined);
    await store.remove('a@x');
  });

  test(`${name}: pruning leaves the accounts there are`, async (t) => {
    const { store } = await open(t);
    const grant = full();
    await store.save('a@x', grant);
    await store.save('gone@x', grant);
    const removed = await store.prune(new Set(['a@x']));
    assert.deepEqual(await store.load('a@x'), grant);
    // A shared store leaves records that other instances may serve to their end of life.
    assert.equal(removed, store.lock === undefined ? 1 : 0);
  });
}

/** For stores that outlive the process. */
export function testDurableStore(
  name: string,
  open: (t: TestContext) => Promise<{ store: TokenStore; again: () => Promise<TokenStore> }>,
): void {
  test(`${name}: a record survives the store`, async (t) => {
    const { store, again } = await open(t);
    const grant = full();
    await store.save('a@x', grant);
    await store.close();
    assert.deepEqual(await (await again()).load('a@x'), grant);
  });

  test(`${name}: an access token that has ended is cleaned up, the refresh token stays`, async (t) => {
    const { store, again } = await open(t);
    await store.save('a@x', { ...full(), expiresAt: Date.now() - 1 });
    await store.close();
    const later = await again();
    await later.prune(new Set(['a@x']));
    assert.deepEqual(await later.load('a@x'), {
      grantFingerprint: 'grant-1',
      refreshToken: 'refresh-1',
      refreshTokenObtainedAt: 1000,
    });
  });
}
