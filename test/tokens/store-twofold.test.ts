/** A shared store with a directory behind it: what a command beside the relay kept there is found by the relay. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { silentLog } from '../../src/log.ts';
import { runAtOnce } from '../../src/slices.ts';
import { createGrantKeeper } from '../../src/tokens/grant-keeper.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import { createTwofoldStore, SharedStoreAway } from '../../src/tokens/store-twofold.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import { idOf, rotation } from './store-suite.ts';

const NONE = Promise.resolve({});

for (const when of ['the shared store is back', 'a refresh token was refused'] as const)
  test(`when ${when}, it is given what a command has kept in the directory meanwhile`, async (t) => {
    const path = mkdtempSync(join(tmpdir(), 'twofold-'));
    t.after(() => rmSync(path, { recursive: true }));
    const shared = createMemoryStore();
    let back = (): void => undefined;
    const twofold = (role: 'owner' | 'guest', more: Partial<TokenStore>): TokenStore =>
      createTwofoldStore(
        { ...shared, kind: 'redis', ...more },
        createFileStore(path, { log: silentLog, sealer: undefined }, { role }),
        silentLog,
      );
    const relay = twofold('owner', {
      onBack(listener) {
        back = listener;
      },
    });
    await relay.open();
    await relay.rotate(idOf('a@x'), rotation('first'));
    assert.equal((await relay.load(idOf('a@x')))?.refreshToken, 'first');
    const away = (): Promise<never> => Promise.reject(new Error('away'));
    const command = twofold('guest', { rotate: away, load: away });
    await assert.rejects(command.load(idOf('a@x')), (error: SharedStoreAway) => {
      assert.equal(error.here?.refreshToken, 'first');
      return error instanceof SharedStoreAway;
    });
    await assert.rejects(command.rotate(idOf('a@x'), rotation('second', 1)), SharedStoreAway);
    if (when === 'the shared store is back') back();
    else await relay.finish?.('grant-1');
    assert.equal((await relay.load(idOf('a@x')))?.refreshToken, 'second');
    assert.equal((await shared.load(idOf('a@x')))?.refreshToken, 'second');
    await relay.close();
  });

/** A relay's grants in a directory and in a shared store that can be away. */
async function relayBeside(t: TestContext) {
  const path = mkdtempSync(join(tmpdir(), 'twofold-'));
  t.after(() => rmSync(path, { recursive: true }));
  const shared = createMemoryStore();
  const state = { isAway: false };
  const orAway =
    <A extends unknown[], R>(ask: (...args: A) => Promise<R>) =>
    (...args: A): Promise<R> =>
      state.isAway ? Promise.reject(new Error('away')) : ask(...args);
  const directory = () => createFileStore(path, { log: silentLog, sealer: undefined });
  const start = async () => {
    const store = createTwofoldStore(
      {
        ...shared,
        kind: 'redis',
        load: orAway(shared.load),
        rotate: orAway(shared.rotate),
        close: async () => {},
      },
      directory(),
      silentLog,
    );
    await store.open();
    const keeper = createGrantKeeper({
      store,
      clock: systemClock,
      log: silentLog,
      onChange: () => undefined,
    });
    const grant = keeper.of('a@x', 'grant-1');
    runAtOnce(keeper.keepOnly(new Set([grant])));
    return { keeper, grant, kill: () => store.close() };
  };
  const inDirectory = async () => {
    const store = directory();
    await store.open();
    const found = await store.load(idOf('a@x'));
    await store.close();
    return found;
  };
  return { shared, state, start, inDirectory };
}

for (const isKilled of [true, false])
  test(`each refresh while the shared store is away is kept here, and the last is given to it ${isKilled ? 'by the next start' : 'when it is back'}`, async (t) => {
    const { shared, state, start, inDirectory } = await relayBeside(t);
    let relay = await start();
    await relay.keeper.rotated(relay.grant, 'first', NONE);
    await relay.keeper.load(relay.grant);
    state.isAway = true;
    for (const token of ['second', 'third', 'fourth']) {
      await relay.keeper.rotated(relay.grant, token, NONE);
      await relay.keeper.load(relay.grant).catch(() => undefined);
    }
    assert.equal(relay.grant.isHere, true);
    if (isKilled) {
      await relay.kill();
      state.isAway = false;
      relay = await start();
      await relay.keeper.load(relay.grant);
    } else {
      state.isAway = false;
      assert.deepEqual(await relay.keeper.close(1_000), []);
    }
    assert.equal(relay.grant.refreshToken?.reveal(), 'fourth');
    assert.equal((await shared.load(idOf('a@x')))?.refreshToken, 'fourth');
    await relay.keeper.rotated(relay.grant, 'fifth', NONE);
    await relay.kill();
    const [there, here] = [await shared.load(idOf('a@x')), await inDirectory()];
    assert.deepEqual([there?.refreshToken, here?.refreshToken], ['fifth', 'fifth']);
    assert.equal(here?.generation, there?.generation);
  });

test('what was refreshed of an earlier sign-in here does not lift a later one above what another relay has made of it', async (t) => {
  const { shared, start } = await relayBeside(t);
  let relay = await start();
  await relay.keeper.signedIn(relay.grant, 'one', NONE, 'a@x');
  for (const token of ['one, later', 'one, later still', 'one, at last'])
    await relay.keeper.rotated(relay.grant, token, NONE);
  await relay.kill();
  const signedIn = { signedInAs: 'a@x', signedInAt: Date.now() + 1_000 };
  await shared.prune(new Set(), -1);
  assert.equal(await shared.load(idOf('a@x')), undefined);
  await shared.rotate(idOf('a@x'), { ...rotation('two'), ...signedIn });
  relay = await start();
  await relay.keeper.load(relay.grant);
  assert.equal(relay.grant.refreshToken?.reveal(), 'two');
  await relay.keeper.rotated(relay.grant, 'two, later', NONE);
  await relay.kill();
  const held = (await shared.load(idOf('a@x')))?.generation ?? 0;
  await shared.rotate(idOf('a@x'), { ...rotation('two, of another relay', held), ...signedIn });
  relay = await start();
  await relay.keeper.load(relay.grant);
  assert.equal(relay.grant.refreshToken?.reveal(), 'two, of another relay');
  await relay.kill();
});
