/** What every token store must do, whatever it keeps its records in. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { GrantId, Rotation, StoredToken, TokenStore } from '../../src/tokens/token-store.ts';

const DAY = 86_400_000;
export const idOf = (accountId: string, fingerprint = 'grant-1'): GrantId => ({ accountId, fingerprint });
export const rotation = (
  refreshToken: string,
  base = 0,
  tokens: Record<string, StoredToken> = {},
): Rotation => ({
  base,
  refreshToken,
  obtainedAt: 1000,
  tokens: Promise.resolve(tokens),
});
export const token = (accessToken: string, more: Partial<StoredToken> = {}): StoredToken => ({
  fingerprint: 'token-1',
  accessToken,
  expiresAt: Date.now() + 3_600_000,
  obtainedAt: 2000,
  ...more,
});

/** `open` gives an opened, empty store and another one on the same ground (after a restart, or beside it). */
export type Open = (t: TestContext) => Promise<{ store: TokenStore; again: () => Promise<TokenStore> }>;

export function testStore(name: string, open: Open): void {
  test(`${name}: what was kept is loaded, by account and consent`, async (t) => {
    const { store } = await open(t);
    const smtp = token('access-1');
    assert.deepEqual(await store.rotate(idOf('a@x'), rotation('refresh-1', 0, { smtp })), {
      kept: true,
      generation: 1,
    });
    await store.rotate(idOf('B@x', 'other'), rotation('r'));
    assert.deepEqual(await store.load(idOf('a@x')), {
      grantFingerprint: 'grant-1',
      generation: 1,
      refreshToken: 'refresh-1',
      refreshTokenObtainedAt: 1000,
      tokens: { smtp },
    });
    assert.equal((await store.load(idOf('B@x', 'other')))?.refreshToken, 'r');
    for (const id of [idOf('b@x', 'other'), idOf('a@x', 'other'), idOf('nobody')])
      assert.equal(await store.load(id), undefined);
  });

  test(`${name}: each resource has its access token, and none touches the refresh token`, async (t) => {
    const { store } = await open(t);
    await store.rotate(idOf('a@x'), rotation('refresh-1'));
    const [smtp, graph] = [token('for smtp'), token('for graph')];
    await store.saveToken(idOf('a@x'), 'smtp', smtp);
    await store.saveToken(idOf('a@x'), 'graph', graph);
    assert.deepEqual((await store.load(idOf('a@x')))?.tokens, { smtp, graph });
    await store.saveToken(idOf('a@x'), 'smtp', undefined);
    const left = await store.load(idOf('a@x'));
    assert.deepEqual([left?.tokens, left?.refreshToken, left?.generation], [{ graph }, 'refresh-1', 1]);
  });

  test(`${name}: a token without a rotation is kept, and forgotten`, async (t) => {
    const { store } = await open(t);
    const smtp = token('access-1');
    await store.saveToken(idOf('a@x'), 'smtp', smtp);
    assert.deepEqual(await store.load(idOf('a@x')), {
      grantFingerprint: 'grant-1',
      generation: 0,
      tokens: { smtp },
    });
    await store.saveToken(idOf('a@x'), 'smtp', undefined);
    assert.equal(await store.load(idOf('a@x')), undefined);
  });

  test(`${name}: a later generation stands, an earlier one is replaced`, async (t) => {
    const { store } = await open(t);
    await store.rotate(idOf('a@x'), rotation('refresh-1'));
    await store.rotate(idOf('a@x'), rotation('refresh-2', 1));
    const late = await store.rotate(idOf('a@x'), rotation('late', 1));
    assert.ok(!late.kept && late.stored.refreshToken === 'refresh-2' && late.stored.generation === 2);
    // The same again, because the first answer of the store was lost.
    assert.equal((await store.rotate(idOf('a@x'), rotation('refresh-2', 1))).kept, true);
    // A store that has lost something is given it.
    assert.deepEqual(await store.rotate(idOf('a@x'), rotation('refresh-9', 9)), {
      kept: true,
      generation: 10,
    });
    assert.equal((await store.load(idOf('a@x')))?.refreshToken, 'refresh-9');
  });

  test(`${name}: a new sign-in stands above what was refreshed of an earlier one meanwhile, and below no later one`, async (t) => {
    const { store } = await open(t);
    const id = { ...idOf('a@x'), user: 'a@x' };
    const of = (signedInAt: number | undefined, refreshToken: string, base: number): Rotation => ({
      ...rotation(refreshToken, base),
      signedInAs: 'a@x',
      ...(signedInAt === undefined ? {} : { signedInAt }),
    });
    await store.rotate(id, of(1000, 'first', 0));
    await store.rotate(id, of(1000, 'first, refreshed', 1));
    assert.deepEqual(await store.rotate(id, of(2000, 'second', 1)), { kept: true, generation: 3 });
    for (const late of [of(1000, 'late', 2), of(undefined, 'of an earlier version', 2)]) {
      const refused = await store.rotate(id, late);
      assert.ok(!refused.kept && refused.stored.refreshToken === 'second');
    }
    const { refreshToken, signedInAt } = (await store.load(id)) ?? {};
    assert.deepEqual([refreshToken, signedInAt], ['second', 2000]);
  });

  test(`${name}: the grant of an earlier consent is still there when the consent comes back`, async (t) => {
    const { store } = await open(t);
    await store.rotate(idOf('a@x', 'first'), rotation('of the first'));
    await store.rotate(idOf('a@x', 'second'), rotation('of the second'));
    await store.saveToken(idOf('a@x', 'third'), 'smtp', token('t'));
    assert.equal((await store.load(idOf('a@x', 'first')))?.refreshToken, 'of the first');
    assert.equal((await store.load(idOf('a@x', 'second')))?.refreshToken, 'of the second');
  });

  test(`${name}: of many rotations at once one is kept for each generation`, async (t) => {
    const { store } = await open(t);
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, i) => store.rotate(idOf('a@x'), rotation(`refresh-${i}`))),
    );
    assert.equal(results.filter((result) => result.kept).length, 1);
  });

  test(`${name}: ids with any characters are kept apart`, async (t) => {
    const { store } = await open(t);
    const ids = ['../../etc/passwd', 'a/b', 'a_b', '.hidden', 'ünï@x', `${'long'.repeat(100)}@x`, 'a b:c*d'];
    for (const id of ids) await store.rotate(idOf(id), rotation(`for ${id.length} ${id}`));
    for (const id of ids) assert.equal((await store.load(idOf(id)))?.refreshToken, `for ${id.length} ${id}`);
  });

  test(`${name}: a removed account is kept for its days, named meanwhile, and unharmed when it is back`, async (t) => {
    const { store } = await open(t);
    await store.rotate(idOf('a@x'), rotation('r'));
    await store.rotate(idOf('gone@x'), rotation('g'));
    const { gone, kept } = await store.prune(new Set(['a@x']), DAY);
    assert.equal(gone, 0);
    assert.equal((await store.load(idOf('gone@x')))?.refreshToken, 'g');
    // A shared store leaves records that other relays may serve to their end of life.
    if (store.kind === 'redis') return;
    assert.deepEqual(
      kept.map((row) => row.accountId),
      ['gone@x'],
    );
    assert.ok(Math.abs((kept[0]?.until ?? 0) - Date.now() - DAY) < 60_000);
    assert.deepEqual(await store.prune(new Set(['a@x', 'gone@x']), DAY), { gone: 0, kept: [] });
    assert.equal((await store.prune(new Set(['a@x']), 0)).gone, 1);
    assert.equal(await store.load(idOf('gone@x')), undefined);
    assert.equal((await store.load(idOf('a@x')))?.refreshToken, 'r');
  });
}

/** For stores that outlive the process. */
export function testDurableStore(name: string, open: Open): void {
  test(`${name}: a record survives the store`, async (t) => {
    const { store, again } = await open(t);
    await store.rotate(idOf('a@x'), rotation('refresh-1', 0, { smtp: token('access-1') }));
    const before = await store.load(idOf('a@x'));
    await store.close();
    assert.deepEqual(await (await again()).load(idOf('a@x')), before);
  });

  test(`${name}: an access token that has ended is not handed out, the refresh token stays`, async (t) => {
    const { store, again } = await open(t);
    const smtp = token('access-1', { expiresAt: Date.now() - 1 });
    await store.rotate(idOf('a@x'), rotation('refresh-1', 0, { smtp }));
    await store.close();
    const left = await (await again()).load(idOf('a@x'));
    assert.deepEqual([left?.tokens, left?.refreshToken], [{}, 'refresh-1']);
  });

  test(`${name}: one at a time has the right to refresh an account`, async (t) => {
    const { store, again } = await open(t);
    const lease = await store.lock?.('a@x');
    assert.equal(lease?.interrupted, undefined);
    const other = store.kind === 'redis' ? await again() : store;
    let got = false;
    const waiting = other.lock?.('a@x').then((second) => {
      got = true;
      return second;
    });
    assert.ok(await other.lock?.('b@x'));
    assert.equal(got, false);
    await lease?.release();
    await (await waiting)?.release();
  });
}
