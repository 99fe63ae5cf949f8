/**
 * What an account has left behind: in its file, which has another consent now, unsaved under a sign-in, or under another
 * name; and a file that two processes change.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import { runAtOnce } from '../../src/slices.ts';
import { AccessToken } from '../../src/tokens/access-token.ts';
import { createGrantKeeper } from '../../src/tokens/grant-keeper.ts';
import { createProcesses } from '../../src/tokens/process-mark.ts';
import { stateFiles } from '../../src/tokens/state-files.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import { createTwofoldStore } from '../../src/tokens/store-twofold.ts';
import { createTokenService, type TokenService } from '../../src/tokens/token-service.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import { createTestClock } from '../support/clock.ts';
import { startTokenEndpoint, type TokenEndpoint } from '../support/token-endpoint.ts';
import { waitFor } from '../support/wait-for.ts';
import { idOf, rotation } from './store-suite.ts';
import { account, createTestLog, refreshCredential } from './support.ts';

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'left-behind-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const log = createTestLog();

/** Consents with these names, and relays one after another on one directory. */
async function ground(t: TestContext, names: readonly string[] = ['one', 'two']) {
  const endpoint: TokenEndpoint = await startTokenEndpoint('microsoft');
  t.after(() => endpoint.close());
  endpoint.rotation = 'revoke-old';
  const consents = new Map(names.map((name) => [name, endpoint.add(`${name}@x`).refreshToken] as const));
  const { clientId, clientSecret = '' } = endpoint.add('nobody@x');
  const path = directory(t);
  const entry = (id: string, consent: string, user = id) => ({
    account: { ...account(id), user },
    credential: refreshCredential(endpoint.url, id, {
      clientId,
      clientSecret: new Secret(clientSecret),
      refreshToken: new Secret(consents.get(consent) ?? ''),
    }),
  });
  const entriesOf = (wanted: Readonly<Record<string, string>>) =>
    Object.entries(wanted).map(([id, words]) => entry(id, ...(words.split(' ') as [string, string?])));
  return {
    endpoint,
    entriesOf,
    /** By account the consent it has, and the mailbox where it is not the name. */
    async serve(
      accounts: Readonly<Record<string, string>>,
      store: TokenStore = createFileStore(path, { log, sealer: undefined }),
    ) {
      const service = createTokenService({ log, store }, { refreshAhead: false });
      await service.open();
      t.after(() => service.close());
      const apply = (wanted: Readonly<Record<string, string>>): void =>
        void service.applyAccounts(entriesOf(wanted));
      apply(accounts);
      return { service, apply };
    },
    async signIn(service: TokenService, id: string, user = id): Promise<void> {
      const { refreshToken } = endpoint.add(user);
      const { accessToken, expiresAt } = endpoint.issue(user);
      await service.adopt(id, {
        refreshToken: new Secret(refreshToken),
        accessToken: new AccessToken(accessToken, expiresAt, Date.now()),
        resource: 'smtp',
      });
    },
    assertNoneUsedTwice(): void {
      const used = endpoint.requests.map(({ form }) => form.get('refresh_token'));
      assert.equal(new Set(used).size, used.length, 'a refresh token was used twice');
    },
  };
}

const refreshAll = async (service: TokenService, ids: readonly string[]): Promise<void> => {
  for (const id of ids) await service.refresh(id);
};

for (const how of ['while the relay runs', 'while it stands'])
  test(`two accounts that swap their consents ${how}, and swap them back, keep both`, async (t) => {
    const { serve, assertNoneUsedTwice } = await ground(t);
    let { service, apply } = await serve({ a: 'one', b: 'two' });
    await refreshAll(service, ['a', 'b', 'a']);
    for (const accounts of [
      { a: 'two', b: 'one' },
      { a: 'one', b: 'two' },
      { b: 'two', a: 'one' },
      { a: 'two', b: 'one' },
    ]) {
      if (how === 'while the relay runs') apply(accounts);
      else {
        await service.close();
        ({ service, apply } = await serve(accounts));
      }
      await refreshAll(service, ['b', 'a', 'b']);
    }
    assertNoneUsedTwice();
  });

test('an account that gets the consent of one that has another now goes on with the latest of it', async (t) => {
  const { serve, assertNoneUsedTwice } = await ground(t);
  const { service, apply } = await serve({ a: 'one' });
  await refreshAll(service, ['a', 'a']);
  apply({ a: 'two' });
  apply({ a: 'two', b: 'one' });
  await refreshAll(service, ['b', 'a', 'b']);
  assertNoneUsedTwice();
});

test('what the operator gave, left behind by a sign-in, serves an account that comes later', async (t) => {
  const { serve, signIn, assertNoneUsedTwice } = await ground(t);
  const { service, apply } = await serve({ a: 'one' });
  await refreshAll(service, ['a', 'a']);
  await signIn(service, 'a');
  apply({ a: 'one', b: 'one' });
  await refreshAll(service, ['b', 'a', 'b']);
  assertNoneUsedTwice();
});

test('what the operator gave, not saved yet when somebody signs in, serves an account that comes later', async (t) => {
  const { serve, signIn, assertNoneUsedTwice } = await ground(t);
  const inside = createMemoryStore();
  let isFull = false;
  const { service, apply } = await serve(
    { a: 'one' },
    {
      ...inside,
      rotate: (id, given) => (isFull ? Promise.reject(new Error('full')) : inside.rotate(id, given)),
    },
  );
  await service.refresh('a');
  isFull = true;
  await service.refresh('a');
  await signIn(service, 'a');
  isFull = false;
  apply({ a: 'one', b: 'one' });
  await refreshAll(service, ['b', 'a', 'b']);
  assertNoneUsedTwice();
});

for (const isRotating of [true, false])
  test(`where the consent of the file is refused, an account goes on with the sign-in under another name of its mailbox, ${isRotating ? 'which rotates' : 'which does not'}, however often it has refreshed`, async (t) => {
    const { serve, signIn, endpoint } = await ground(t);
    const { service, apply } = await serve({ 'ann.new': 'one carl', ann: 'one ann' });
    await refreshAll(service, ['ann', 'ann.new']);
    await signIn(service, 'ann', 'ann');
    await refreshAll(service, ['ann.new', 'ann.new', 'ann.new', 'ann.new']);
    apply({ 'ann.new': 'one ann', bob: 'one bob' });
    endpoint.revoke('one@x');
    if (!isRotating) endpoint.rotation = 'off';
    await refreshAll(service, ['ann.new', 'ann.new']);
    assert.equal(endpoint.requests.filter(({ user }) => user === 'one@x').length, 7);
    assert.ok(endpoint.verify('ann', (await service.get('ann.new')).reveal()));
    // It serves that mailbox alone.
    await assert.rejects(service.refresh('bob'), /invalid_grant/);
  });

const asShared = (store: TokenStore): TokenStore => ({ ...store, kind: 'redis' });

test('a sign-in that only the directory has is given to the shared store, however far that has what the operator gave', async () => {
  const [shared, here] = [createMemoryStore(), createMemoryStore()];
  const id = { accountId: 'a@x', fingerprint: 'f', user: 'a@x' };
  await here.rotate(id, { ...rotation('signed in', 5), signedInAs: 'a@x' });
  await shared.rotate(id, rotation('given', 8));
  const store = createTwofoldStore(asShared(shared), here, log);
  assert.equal((await store.load(id))?.refreshToken, 'signed in');
  assert.equal((await shared.load(id))?.refreshToken, 'signed in');
});

test('a sign-in that only the directory has is given to the shared store although that has an earlier one refreshed as often', async () => {
  const [shared, here] = [createMemoryStore(), createMemoryStore()];
  const id = { accountId: 'a@x', fingerprint: 'f', user: 'a@x' };
  await here.rotate(id, { ...rotation('new', 5), signedInAs: 'a@x', signedInAt: 2000 });
  await shared.rotate(id, { ...rotation('refreshed', 5), signedInAs: 'a@x', signedInAt: 1000 });
  const store = createTwofoldStore(asShared(shared), here, log);
  assert.equal((await store.load(id))?.refreshToken, 'new');
  assert.equal((await shared.load(id))?.refreshToken, 'new');
});

test('a shared store that has lost its data is given what the directory of a relay has that has not looked yet', async () => {
  const [shared, here] = [createMemoryStore(), createMemoryStore()];
  await here.rotate({ accountId: 'a@x', fingerprint: 'f' }, rotation('latest', 5));
  const store = createTwofoldStore(asShared(shared), here, log);
  const keeper = createGrantKeeper({ store, clock: systemClock, log, onChange: () => undefined });
  const grant = keeper.of('a@x', 'f');
  runAtOnce(keeper.keepOnly(new Set([grant])));
  await keeper.saveAgain();
  assert.equal((await shared.load({ accountId: 'a@x', fingerprint: 'f' }))?.refreshToken, 'latest');
});

test('an account that has had twenty consents one after another goes on with the first where it is put back', async (t) => {
  const names = Array.from({ length: 20 }, (_, i) => `consent-${i}`);
  const { serve, assertNoneUsedTwice } = await ground(t, names);
  const { service, apply } = await serve({});
  for (const name of [...names, names[0] ?? '']) {
    apply({ a: name });
    await refreshAll(service, ['a', 'a']);
  }
  assertNoneUsedTwice();
});

/** A store of the directory whose next read of a file holds still until `go`. */
function holdingStore(path: string): { store: TokenStore; held: Promise<void>; hold(): void; go(): void } {
  let isHolding = false;
  let go = (): void => undefined;
  let holds = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    holds = resolve;
  });
  const files = {
    ...stateFiles,
    async read(name: string, most: number) {
      const text = await stateFiles.read(name, most);
      if (!isHolding || !name.endsWith('.grant')) return text;
      isHolding = false;
      const resumed = new Promise<void>((resolve) => {
        go = resolve;
      });
      holds();
      await resumed;
      return text;
    },
  };
  const store = createFileStore(path, { log, sealer: undefined, files });
  const hold = (): void => {
    isHolding = true;
  };
  return { store, held, hold, go: () => go() };
}

test('what a command writes while the relay forgets an access token in the same file is not lost', async (t) => {
  const path = directory(t);
  const { store: relay, held, hold, go } = holdingStore(path);
  await relay.open();
  t.after(() => relay.close());
  const id = idOf('a@x');
  await relay.rotate(id, rotation('first'));
  let waits = (): void => undefined;
  const waiting = new Promise<void>((resolve) => {
    waits = resolve;
  });
  const create = (name: string, text: string): Promise<void> =>
    stateFiles.create(name, text).catch((error: unknown) => {
      waits();
      throw error;
    });
  const command = createFileStore(
    path,
    { log, sealer: undefined, files: { ...stateFiles, create } },
    { role: 'guest' },
  );
  hold();
  const forgotten = relay.saveToken(id, 'smtp', undefined);
  await held;
  const rotated = command.rotate(id, rotation('second', 1));
  await Promise.race([rotated, waiting]);
  go();
  await Promise.all([forgotten, rotated]);
  assert.equal((await relay.load(id))?.refreshToken, 'second');
  await command.close();
});

test('a refresh token that could not be put in its place is there after the next start', async (t) => {
  const path = directory(t);
  let isFull = false;
  const files = {
    ...stateFiles,
    rename: async (from: string, to: string) =>
      isFull
        ? Promise.reject(Object.assign(new Error('full'), { code: 'ENOSPC' }))
        : stateFiles.rename(from, to),
  };
  const store = createFileStore(path, { log, sealer: undefined, files });
  await store.open();
  const id = idOf('a@x');
  await store.rotate(id, rotation('first'));
  isFull = true;
  for (let i = 0; i < 3; i++) await assert.rejects(store.rotate(id, rotation('second', 1)));
  await store.close();
  const next = createFileStore(path, { log, sealer: undefined });
  await next.open();
  t.after(() => next.close());
  assert.equal((await next.load(id))?.refreshToken, 'second');
});

test('a process that stood still while it wrote does not replace what another one elsewhere has written since', async (t) => {
  const path = directory(t);
  const { own } = createProcesses();
  const at = (place: string, pid: number) => ({ own: { ...own, place, pid }, isAlive: () => undefined });
  let now = 0;
  const stopped: Clock = { now: Date.now, monotonic: () => now, after: () => () => undefined };
  const clock = createTestClock();
  const guest = { role: 'guest' } as const;
  const second = createFileStore(path, { log, sealer: undefined, clock, processes: at('two', 2) }, guest);
  let stands = true;
  const files = {
    ...stateFiles,
    async sync(name: string) {
      await stateFiles.sync(name);
      if (!stands || !name.endsWith('.tmp')) return;
      stands = false;
      let isWritten = false;
      const written = second.rotate(id, rotation('theirs')).finally(() => {
        isWritten = true;
      });
      await waitFor(() => {
        clock.advance(1000);
        return isWritten;
      });
      await written;
      now += 60_000;
    },
  };
  const first = createFileStore(
    path,
    { log, sealer: undefined, clock: stopped, files, processes: at('one', 1) },
    guest,
  );
  const id = idOf('a@x');
  await first.open();
  await second.open();
  await assert.rejects(first.rotate(id, rotation('ours')), { code: 'EBUSY' });
  assert.equal((await second.load(id))?.refreshToken, 'theirs');
  const again = await first.rotate(id, rotation('ours'));
  assert.equal(again.kept, false);
  await Promise.all([first.close(), second.close()]);
  assert.deepEqual(
    readdirSync(path).filter((name) => !name.endsWith('.grant')),
    [],
  );
});

for (const role of ['owner', 'guest'] as const)
  test(`what a dead process has left beside the file is found by a running ${role} before it asks, and finds its place`, async (t) => {
    const { endpoint, serve, entriesOf } = await ground(t);
    const path = directory(t);
    const serveHere = async () => {
      const store = createFileStore(path, { log, sealer: undefined }, { role });
      return (await serve({ a: 'one', b: 'two' }, store)).service;
    };
    const service = await serveHere();
    await refreshAll(service, ['a', 'b']);
    // A command beside it, on a disk that takes only the first half of the writing, or killed there.
    const { own, isAlive } = createProcesses();
    const dead = { own: { ...own, pid: 2 ** 22 + 1 }, isAlive };
    const rename = async (from: string, to: string): Promise<void> => {
      if (to.endsWith('.grant')) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
      await stateFiles.rename(from, to);
    };
    const command = createTokenService(
      {
        log,
        store: createFileStore(
          path,
          { log, sealer: undefined, processes: dead, files: { ...stateFiles, rename } },
          { role: 'guest' },
        ),
      },
      { refreshAhead: false },
    );
    await command.open();
    command.applyAccounts(entriesOf({ a: 'one' }));
    await command.refresh('a');
    await assert.rejects(command.close());
    assert.ok(readdirSync(path).some((name) => name.endsWith('.tmp')));
    // Of one that lives nothing is touched.
    const [half = ''] = readdirSync(path).filter((name) => name.endsWith('.tmp'));
    const living = half.replace(String(dead.own.pid), String(own.pid));
    writeFileSync(join(path, living), '');
    endpoint.revoke('two@x');
    await service.refresh('a');
    await assert.rejects(service.refresh('b'), { code: 'needs_consent' });
    assert.deepEqual(
      readdirSync(path).filter((name) => name.endsWith('.tmp')),
      [living],
    );
    assert.deepEqual(
      endpoint.requests.map(({ status }) => status),
      [200, 200, 200, 200, 400],
    );
  });

test('what a command had written when it was killed is found at once', async (t) => {
  const { endpoint, serve, entriesOf } = await ground(t);
  const path = directory(t);
  const { service } = await serve({ a: 'one' }, createFileStore(path, { log, sealer: undefined }));
  await refreshAll(service, ['a', 'a']);
  const { own, isAlive } = createProcesses();
  const processes = { own: { ...own, pid: 2 ** 22 + 1 }, isAlive };
  let end = (): void => undefined;
  const ended = new Promise<never>((_resolve, reject) => {
    end = () => reject(Object.assign(new Error('full'), { code: 'ENOSPC' }));
  });
  const rename = (from: string, to: string): Promise<void> =>
    to.endsWith('.grant') ? ended : stateFiles.rename(from, to);
  const files = { ...stateFiles, rename };
  const store = createFileStore(path, { log, sealer: undefined, processes, files }, { role: 'guest' });
  const command = createTokenService({ log, store }, { refreshAhead: false });
  await command.open();
  command.applyAccounts(entriesOf({ a: 'one' }));
  const asked = command.refresh('a');
  await waitFor(() => readdirSync(path).some((name) => name.endsWith('.tmp')));
  await service.refresh('a');
  end();
  await asked;
  await command.close();
  assert.deepEqual(
    endpoint.requests.map(({ status }) => status),
    [200, 200, 200, 200],
  );
});

test('accounts that ask at once look through the directory once, and wait for no second time', async (t) => {
  const { serve, endpoint } = await ground(t);
  let listings = 0;
  const list = (path: string): Promise<readonly string[]> => {
    listings += 1;
    return stateFiles.list(path);
  };
  const clock = { ...systemClock, after: t.mock.fn(systemClock.after) };
  const files = { ...stateFiles, list };
  const store = createFileStore(directory(t), { log, sealer: undefined, files, clock });
  const { service } = await serve({ a: 'one', b: 'two' }, store);
  listings = 0;
  await Promise.all(['a', 'b'].map((id) => service.refresh(id)));
  assert.equal(endpoint.requests.length, 2);
  // That of the files of others, and that of what is half written.
  assert.ok(listings <= 3, String(listings));
  const waits = clock.after.mock.calls.map(({ arguments: [ms] }) => ms);
  assert.ok(!waits.some((ms) => ms > 500 && ms <= 1000), String(waits));
});
