/** A state directory whose key is another one than that which is given, in whole or in part. */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { AccessToken } from '../../src/tokens/access-token.ts';
import { createSealer, type Sealer } from '../../src/tokens/sealing.ts';
import { stateFiles } from '../../src/tokens/state-files.ts';
import { createFileStore, type FileStoreDeps } from '../../src/tokens/store-file.ts';
import type { AccountCredential, TokenService } from '../../src/tokens/token-service.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import { startTrial } from '../support/token-trial.ts';
import { idOf, rotation } from './store-suite.ts';
import { account, createTestLog } from './support.ts';

const sealerOf = (...keys: string[]): Sealer => createSealer(new Secret(keys.join('\n')));
const KEY_1 = Buffer.from('first key of the relay, 32 octet').toString('base64');
const KEY_2 = Buffer.from('2nd key of this relay, 32 octets').toString('base64');
const USERS = ['a@x', 'b@x', 'c@x', 'd@x'];
const A = idOf('a@x');

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'tokens-test-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** A run of a relay. */
async function run<T>(
  path: string,
  deps: Partial<FileStoreDeps>,
  use: (store: TokenStore) => Promise<T>,
): Promise<T> {
  const store = createFileStore(path, { log: createTestLog(), sealer: undefined, ...deps });
  try {
    await store.open();
    return await use(store);
  } finally {
    await store.close();
  }
}

const names = async (path: string): Promise<string[]> =>
  (await readdir(path)).filter((name) => name !== 'relay.lock').sort();

async function keepAll(store: TokenStore, users = USERS): Promise<void> {
  for (const user of users) await store.rotate(idOf(user), rotation(`of ${user}`));
}

for (const [which, sealer] of [
  ['no key', undefined],
  ['another key', sealerOf(KEY_2)],
] as const)
  for (const [what, text] of [
    ['damaged', ''],
    ['in the clear', '{"version":2,"grants":[]}'],
  ] as const)
    test(`${which} is not the right one because a file is ${what}`, async (t) => {
      const path = await directory(t);
      await run(path, { sealer: sealerOf(KEY_1) }, keepAll);
      const before = await names(path);
      // Whichever is looked at first.
      for (const name of before) {
        const whole = await readFile(join(path, name));
        await writeFile(join(path, name), text);
        await assert.rejects(
          run(path, { sealer }, async () => undefined),
          { name: 'StateDirectoryError', message: /state_key/ },
        );
        assert.deepEqual(await names(path), before);
        await writeFile(join(path, name), whole);
      }
    });

test('one file under another key keeps nobody from starting', async (t) => {
  const path = await directory(t);
  for (const own of [undefined, sealerOf(KEY_1)]) {
    await run(path, { sealer: sealerOf(KEY_2, KEY_1) }, (store) => keepAll(store, ['z@x']));
    const [foreign = ''] = await names(path);
    const text = await readFile(join(path, foreign));
    await rm(join(path, foreign));
    await run(path, { sealer: own }, keepAll);
    await writeFile(join(path, foreign), text);
    assert.equal((await run(path, { sealer: own }, (store) => store.load(A)))?.refreshToken, 'of a@x');
    for (const name of await names(path)) await rm(join(path, name));
  }
});

for (const code of ['EIO', 'EMFILE'])
  test(`half of a refresh token that cannot be read at the start (${code}) stays for a later one`, async (t) => {
    const path = await directory(t);
    await run(path, {}, (store) => store.rotate(A, rotation('r')));
    const [file = ''] = await names(path);
    await rename(join(path, file), join(path, `${file}.4711.1.1.tmp`));
    const read: typeof stateFiles.read = (name, octets) =>
      name.endsWith('.tmp')
        ? Promise.reject(Object.assign(new Error('cannot be read'), { code }))
        : stateFiles.read(name, octets);
    await run(path, { files: { ...stateFiles, read } }, async () => undefined);
    assert.equal((await run(path, {}, (store) => store.load(A)))?.refreshToken, 'r');
  });

test('half of a refresh token replaces no file that cannot be read just now, and leaves one under another key for that', async (t) => {
  const path = await directory(t);
  await run(path, { sealer: sealerOf(KEY_1) }, async (store) => {
    await store.rotate(A, rotation('r'));
    await store.rotate(idOf('a@x', 'another grant'), rotation('of another grant'));
  });
  const [file = ''] = await names(path);
  const under1 = await readFile(join(path, file));
  await rm(join(path, file));
  await run(path, { sealer: sealerOf(KEY_2) }, (store) => store.rotate(A, rotation('later', 4)));
  const half = `${file}.4711.1.1.tmp`;
  await rename(join(path, file), join(path, half));
  await run(path, { sealer: sealerOf(KEY_2) }, (store) => keepAll(store, ['b@x']));
  // The start above has put it in its place.
  await rename(join(path, file), join(path, half));
  await writeFile(join(path, file), under1, { mode: 0o600 });
  const read: typeof stateFiles.read = (name, octets) =>
    basename(name) === file
      ? Promise.reject(Object.assign(new Error('cannot be read'), { code: 'EIO' }))
      : stateFiles.read(name, octets);
  await run(path, { sealer: sealerOf(KEY_2), files: { ...stateFiles, read } }, async () => undefined);
  assert.deepEqual(await readFile(join(path, file)), under1);
  assert.ok((await names(path)).includes(half));
  await run(path, { sealer: sealerOf(KEY_2) }, async (store) => {
    assert.equal((await store.load(A))?.refreshToken, 'later');
  });
  await run(path, { sealer: sealerOf(KEY_2, KEY_1) }, async (store) => {
    assert.equal((await store.load(A))?.refreshToken, 'later');
    const other = await store.load(idOf('a@x', 'another grant'));
    assert.equal(other?.refreshToken, 'of another grant');
  });
});

test('what was set aside for want of its key does not take the place of what came since', async (t) => {
  const path = await directory(t);
  const [early, late] = [1_000, 2_000];
  await run(path, { sealer: sealerOf(KEY_1) }, async (store) => {
    for (const base of [0, 1, 2])
      await store.rotate(A, { ...rotation(`earlier ${base}`, base), obtainedAt: early });
  });
  const [file = ''] = await names(path);
  await rename(join(path, file), join(path, `${file}.unknown_key-${early}`));
  await run(path, { sealer: sealerOf(KEY_2) }, (store) =>
    store.rotate(A, { ...rotation('came since'), obtainedAt: late }),
  );
  await run(path, { sealer: sealerOf(KEY_2, KEY_1) }, async (store) => {
    assert.equal((await store.load(A))?.refreshToken, 'came since');
  });
});

test('nothing is asked with an earlier refresh token while the newest one is sealed with a key that is not given, until somebody signs in', async (t) => {
  const path = await directory(t);
  let sealer = sealerOf(KEY_1);
  const trial = await startTrial(5, (log) => createFileStore(path, { log, sealer }));
  t.after(() => trial.close());
  const [first = '', second = '', ...others] = trial.users;
  const { clientId, clientSecret = '' } = trial.endpoint.add('app@x');
  const app: AccountCredential = {
    account: account('app@x'),
    credential: {
      grant: 'client_credentials',
      tokenUrl: trial.endpoint.url,
      scope: '',
      safetyBufferMs: 1,
      clientId,
      clientSecret: new Secret(clientSecret),
    },
  };
  const serve = async (): Promise<TokenService> => {
    const service = await trial.serve();
    service.applyAccounts([...trial.entries, app]);
    return service;
  };
  let service = await serve();
  for (const user of [...trial.users, 'app@x']) await service.refresh(user);
  await service.close();
  // Those of the others have gone over to the next key.
  await run(path, { sealer: sealerOf(KEY_2, KEY_1) }, async (store) => {
    for (const user of others) await store.load(idOf(user));
  });
  sealer = sealerOf(KEY_2);
  service = await serve();
  const { length } = trial.endpoint.requests;
  for (const user of [first, second])
    await assert.rejects(service.refresh(user), { code: 'provider_fault', message: /another state key/ });
  assert.equal(trial.endpoint.requests.length, length);
  const client = trial.endpoint.account(second) ?? assert.fail();
  const { refreshToken } = trial.endpoint.add(second, {
    clientId: client.clientId,
    clientSecret: client.clientSecret ?? '',
  });
  const { accessToken, expiresAt } = trial.endpoint.issue(second);
  await service.adopt(second, {
    refreshToken: new Secret(refreshToken),
    accessToken: new AccessToken(accessToken, expiresAt, Date.now()),
    resource: 'smtp',
  });
  for (const user of [second, ...others, 'app@x']) await service.refresh(user);
  await service.close();
  sealer = sealerOf(KEY_2, KEY_1);
  assert.deepEqual(await trial.lost(), []);
  assert.ok(trial.endpoint.requests.every(({ status }) => status === 200));
});
