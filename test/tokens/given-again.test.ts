/** A store that loses its data gets back the latest refresh token any relay has, whoever comes first. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { silentLog } from '../../src/log.ts';
import { runAtOnce } from '../../src/slices.ts';
import { createGrantKeeper } from '../../src/tokens/grant-keeper.ts';
import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import { createTestClock } from '../support/clock.ts';

const ID = { accountId: 'a@x', fingerprint: 'f' };
const NONE = Promise.resolve({});

async function twoRelays() {
  let inside = createMemoryStore();
  const store: TokenStore = {
    kind: 'redis',
    open: () => inside.open(),
    load: (id) => inside.load(id),
    rotate: (id, rotation) => inside.rotate(id, rotation),
    saveToken: (id, resource, token) => inside.saveToken(id, resource, token),
    prune: (ids, ms) => inside.prune(ids, ms),
    close: () => inside.close(),
  };
  const keeper = () =>
    createGrantKeeper({ store, clock: systemClock, log: silentLog, onChange: () => undefined });
  const served = () => {
    const made = keeper();
    runAtOnce(made.keepOnly(new Set([made.of('a@x', 'f')])));
    return made;
  };
  const [behind, ahead] = [served(), served()];
  await behind.rotated(behind.of('a@x', 'f'), 'first', NONE);
  await ahead.load(ahead.of('a@x', 'f'));
  await ahead.rotated(ahead.of('a@x', 'f'), 'second', NONE);
  inside = createMemoryStore();
  return { store, behind, ahead };
}

for (const order of [
  'the later one first',
  'the earlier one first',
  'the earlier one twice, and then the later',
])
  test(`${order}: the later refresh token stands`, async () => {
    const { store, behind, ahead } = await twoRelays();
    if (order === 'the later one first') await ahead.saveAgain();
    await behind.load(behind.of('a@x', 'f'));
    await behind.saveAgain();
    if (order.includes('twice')) await behind.saveAgain();
    await ahead.saveAgain();
    assert.equal((await store.load(ID))?.refreshToken, 'second');
    await behind.load(behind.of('a@x', 'f'));
    assert.equal(behind.of('a@x', 'f').refreshToken?.reveal(), 'second');
    for (const keeper of [behind, ahead]) assert.deepEqual(await keeper.close(1000), []);
  });

test('a rotation goes on top of what was given again', async () => {
  const { store, behind, ahead } = await twoRelays();
  await behind.saveAgain();
  await ahead.saveAgain();
  await ahead.rotated(ahead.of('a@x', 'f'), 'third', NONE);
  assert.equal((await store.load(ID))?.refreshToken, 'third');
  for (const keeper of [behind, ahead]) assert.deepEqual(await keeper.close(1000), []);
});

test('a store that is only just back may not have had everything again yet', () => {
  const clock = createTestClock();
  const keeper = createGrantKeeper({
    store: createMemoryStore(),
    clock,
    log: silentLog,
    onChange: () => undefined,
  });
  assert.equal(keeper.isStoreAway, false);
  keeper.storeAnswered('read');
  assert.equal(keeper.isStoreAway, false);
  keeper.storeFailed(new Error('gone'), 'read');
  assert.equal(keeper.isStoreAway, true);
  keeper.storeAnswered('read');
  clock.advance(9_999);
  assert.equal(keeper.isStoreAway, true);
  clock.advance(1);
  assert.equal(keeper.isStoreAway, false);
});

test('an account that was out of the accounts file while the store lost its data has its grant again', async () => {
  const { store, ahead } = await twoRelays();
  const before = ahead.of('a@x', 'f');
  runAtOnce(ahead.keepOnly(new Set()));
  await ahead.saveAgain();
  assert.equal((await store.load(ID))?.refreshToken, 'second');
  const again = ahead.of('a@x', 'f');
  assert.equal(again, before);
  assert.equal(again.refreshToken?.reveal(), 'second');
});

test('a store that takes a refresh token only after nobody waits for it gets the later one on top', async () => {
  const clock = createTestClock();
  const inside = createMemoryStore(clock);
  const late: (() => Promise<unknown>)[] = [];
  let isSilent = true;
  const store: TokenStore = {
    ...inside,
    kind: 'redis',
    async rotate(id, rotation) {
      if (!isSilent) return inside.rotate(id, rotation);
      late.push(() => inside.rotate(id, rotation));
      throw new Error('no answer');
    },
  };
  const keeper = createGrantKeeper({ store, clock, log: silentLog, onChange: () => undefined });
  const grant = keeper.of('a@x', 'f');
  keeper.keepOnly(new Set([grant]));
  await keeper.rotated(grant, 'first', NONE);
  await keeper.rotated(grant, 'second', NONE);
  await late[0]?.();
  isSilent = false;
  assert.deepEqual(await keeper.close(1000), []);
  assert.equal((await store.load(ID))?.refreshToken, 'second');
  assert.equal(grant.refreshToken?.reveal(), 'second');
});

for (const isFirst of [true, false])
  test(`a new sign-in that the store could not take stands above an earlier one that another relay refreshed ${isFirst ? 'before' : 'after'} it was back, and below a later one`, async () => {
    const clock = createTestClock();
    const inside = createMemoryStore(clock);
    const relay = () => {
      const made = { isCutOff: false };
      const rotate: TokenStore['rotate'] = (...given) =>
        made.isCutOff ? Promise.reject(new Error('away')) : inside.rotate(...given);
      const store: TokenStore = { ...inside, kind: 'redis', rotate };
      const keeper = createGrantKeeper({ store, clock, log: silentLog, onChange: () => undefined });
      return Object.assign(made, { keeper, grant: keeper.of('a@x', 'f', true, 'a@x') });
    };
    const [one, other] = [relay(), relay()];
    const held = () => [one, other].map(({ grant }) => grant.refreshToken?.reveal());
    await one.keeper.signedIn(one.grant, 'first', NONE, 'a@x');
    await other.keeper.load(other.grant);
    one.isCutOff = true;
    other.isCutOff = !isFirst;
    await other.keeper.rotated(other.grant, 'first, refreshed', NONE);
    // Its clock stands still.
    await one.keeper.signedIn(one.grant, 'second', NONE, 'a@x');
    for (const each of isFirst ? [one, other] : [other, one]) {
      each.isCutOff = false;
      clock.advance(10_000);
      await new Promise(setImmediate);
    }
    for (const { keeper, grant } of [one, other]) await keeper.load(grant);
    assert.deepEqual(held(), ['second', 'second']);
    // Of two the later one stands, whichever is saved first.
    one.isCutOff = true;
    await one.keeper.signedIn(one.grant, 'third', NONE, 'a@x');
    clock.advance(1000);
    await other.keeper.signedIn(other.grant, 'fourth', NONE, 'a@x');
    one.isCutOff = false;
    clock.advance(10_000);
    await new Promise(setImmediate);
    assert.deepEqual(held(), ['fourth', 'fourth']);
  });

test('a store that is back within the last moments of the process is given what it missed', async () => {
  const inside = createMemoryStore();
  let refusals = 3;
  const store: TokenStore = {
    ...inside,
    kind: 'redis',
    async rotate(id, rotation) {
      refusals -= 1;
      if (refusals >= 0) throw new Error('away');
      return inside.rotate(id, rotation);
    },
  };
  const keeper = createGrantKeeper({ store, clock: systemClock, log: silentLog, onChange: () => undefined });
  await keeper.rotated(keeper.of('a@x', 'f'), 'first', NONE);
  assert.deepEqual(await keeper.close(5000), []);
  assert.equal((await store.load(ID))?.refreshToken, 'first');
});

test('one that was away while this relay asked nothing of it is doubted as well, and is offered what it missed at once', async () => {
  const clock = createTestClock();
  const store = createMemoryStore();
  let isAway = false;
  let back = (): void => undefined;
  const keeper = createGrantKeeper({
    store: {
      ...store,
      rotate: (...given) => (isAway ? Promise.reject(new Error('gone')) : store.rotate(...given)),
      onBack(listener) {
        back = listener;
      },
    },
    clock,
    log: silentLog,
    onChange: () => undefined,
  });
  back();
  assert.equal(keeper.isStoreAway, true);
  clock.advance(10_000);
  assert.equal(keeper.isStoreAway, false);
  isAway = true;
  const grant = keeper.of('a@x', 'f');
  await keeper.rotated(grant, 'second', NONE);
  assert.notEqual((await store.load(ID))?.refreshToken, 'second');
  isAway = false;
  back();
  await new Promise(setImmediate);
  assert.equal((await store.load(ID))?.refreshToken, 'second');
});
