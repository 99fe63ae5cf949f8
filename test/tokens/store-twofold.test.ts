/** A shared store with a directory behind it: what a command beside the relay kept there is found by the relay. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { silentLog } from '../../src/log.ts';
import { runAtOnce } from '../../src/slices.ts';
import type { TokenError } from '../../src/tokens/access-token.ts';
import { grantFingerprint } from '../../src/tokens/grant-form.ts';
import { createGrantKeeper } from '../../src/tokens/grant-keeper.ts';
import { StateFileRefused, stateFiles } from '../../src/tokens/state-files.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import { createTwofoldStore, SharedStoreAway } from '../../src/tokens/store-twofold.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import { startTrial } from '../support/token-trial.ts';
import { waitFor } from '../support/wait-for.ts';
import { idOf, rotation } from './store-suite.ts';

const NONE = Promise.resolve({});

for (const when of ['the shared store is back', 'the relay next looks for its token'] as const)
  test(`when ${when}, it is given what a command has kept in the directory meanwhile`, async (t) => {
    const path = mkdtempSync(join(tmpdir(), 'twofold-'));
    t.after(() => rmSync(path, { recursive: true }));
    const shared = createMemoryStore();
    const back: (() => void)[] = [];
    const twofold = (role: 'owner' | 'guest', more: Partial<TokenStore>): TokenStore =>
      createTwofoldStore(
        { ...shared, kind: 'redis', ...more },
        createFileStore(path, { log: silentLog, sealer: undefined }, { role }),
        silentLog,
      );
    const relay = twofold('owner', {
      onBack: (listener) => void back.push(listener),
    });
    await relay.open();
    const { keeper, grant } = keeperOf(relay);
    relay.serves?.(new Map([['a@x', { grant }]]));
    await relay.rotate(idOf('a@x'), rotation('first'));
    assert.equal((await relay.load(idOf('a@x')))?.refreshToken, 'first');
    const away = (): Promise<never> => Promise.reject(new Error('away'));
    const command = twofold('guest', { rotate: away, load: away });
    await assert.rejects(command.load(idOf('a@x')), (error: SharedStoreAway) => {
      assert.equal(error.here?.refreshToken, 'first');
      return error instanceof SharedStoreAway;
    });
    await assert.rejects(command.rotate(idOf('a@x'), rotation('second', 1)), SharedStoreAway);
    if (when === 'the shared store is back') for (const hear of back) hear();
    else await keeper.load(grant);
    await waitFor(async () => (await shared.load(idOf('a@x')))?.refreshToken === 'second');
    await keeper.load(grant);
    assert.equal(grant.refreshToken?.reveal(), 'second');
    await relay.close();
  });

function keeperOf(store: TokenStore) {
  const keeper = createGrantKeeper({ store, clock: systemClock, log: silentLog, onChange: () => undefined });
  const grant = keeper.of('a@x', 'grant-1');
  runAtOnce(keeper.keepOnly(new Set([grant])));
  return { keeper, grant };
}

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
    return { ...keeperOf(store), kill: () => store.close() };
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

/** A relay and commands with one account, a directory and a shared store that can be away. A refresh token used twice is refused. */
async function serviceBeside(t: TestContext) {
  const path = mkdtempSync(join(tmpdir(), 'twofold-'));
  const shared = createMemoryStore();
  const state = { isAway: false, isForeign: false };
  const orAway =
    <A extends unknown[], R>(ask: (...args: A) => Promise<R>) =>
    (...args: A): Promise<R> =>
      state.isAway ? Promise.reject(new Error('away')) : ask(...args);
  const read: typeof stateFiles.read = async (name, most) => {
    if (state.isForeign && name.includes('.grant'))
      throw new StateFileRefused(`${name} belongs to another user (uid 4711): chown`, 'STATE_FILE_FOREIGN');
    return stateFiles.read(name, most);
  };
  const storeOf = (role: 'owner' | 'guest'): TokenStore =>
    createTwofoldStore(
      {
        ...shared,
        kind: 'redis',
        load: orAway(shared.load),
        elsewhere: orAway(async () => undefined),
        rotate: orAway(shared.rotate),
        saveToken: orAway(shared.saveToken),
        close: async () => undefined,
      },
      createFileStore(path, { log: silentLog, sealer: undefined, files: { ...stateFiles, read } }, { role }),
      silentLog,
    );
  const trial = await startTrial(1, () => storeOf('owner'));
  t.after(async () => {
    await trial.close();
    rmSync(path, { recursive: true });
  });
  const { endpoint, users } = trial;
  const [user = ''] = users;
  const [{ credential } = assert.fail()] = trial.entries;
  const withoutStore = 'ask' as const;
  return {
    state,
    user,
    shared,
    id: { accountId: user, fingerprint: grantFingerprint(credential), user },
    file: () => join(path, readdirSync(path).find((name) => name.endsWith('.grant')) ?? ''),
    start: (role: 'owner' | 'guest' = 'owner') => trial.serve({ store: storeOf(role) }, { withoutStore }),
    statuses: () => endpoint.requests.map(({ status }) => status),
  };
}

for (const way of ['is of another user', 'is half written, beside the lock of another user'] as const)
  test(`the newest refresh token ${way}: an earlier one of the shared store is not asked with`, async (t) => {
    const { state, user, file, start, statuses } = await serviceBeside(t);
    let relay = await start();
    await relay.refresh(user);
    state.isAway = true;
    await relay.refresh(user);
    await relay.close();
    state.isAway = false;
    const isForeign = way === 'is of another user';
    if (isForeign) state.isForeign = true;
    else {
      mkdirSync(`${file()}.lock`);
      renameSync(file(), `${file()}.4711.3.1.tmp`);
    }
    relay = await start();
    if (isForeign)
      await assert.rejects(relay.refresh(user), (error: TokenError) => {
        assert.equal(error.code, 'provider_fault');
        assert.match(error.cure ?? '', /\.grant belongs to another user .*chown/);
        return true;
      });
    state.isForeign = false;
    await relay.refresh(user);
    assert.deepEqual(statuses(), [200, 200, 200]);
    await relay.close();
  });

test('what a command has kept in the directory while the shared store is away is what the relay asks with, although that is away still', async (t) => {
  const { state, user, start, statuses } = await serviceBeside(t);
  const relay = await start();
  await relay.refresh(user);
  state.isAway = true;
  const command = await start('guest');
  await command.refresh(user);
  await command.close();
  await relay.refresh(user);
  assert.deepEqual(statuses(), [200, 200, 200]);
  state.isAway = false;
  await relay.close();
});

test('a relay that was overtaken and stopped goes on with its own refresh token where that of the other one is no good', async (t) => {
  const { state, user, id, shared, start, statuses } = await serviceBeside(t);
  let relay = await start();
  await relay.refresh(user);
  state.isAway = true;
  await relay.refresh(user);
  await shared.rotate(id, rotation('no good', 1));
  state.isAway = false;
  await relay.close();
  relay = await start();
  await relay.refresh(user);
  assert.deepEqual(statuses(), [200, 200, 400, 200]);
  await relay.close();
});
