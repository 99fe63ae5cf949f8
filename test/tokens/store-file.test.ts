import assert from 'node:assert/strict';
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { createSealer, type Sealer } from '../../src/tokens/sealing.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import { testDurableStore, testStore } from './store-suite.ts';
import { createTestLog } from './support.ts';

const KEY_1 = '11'.repeat(32);
const KEY_2 = Buffer.alloc(32, 7).toString('base64');
const sealerOf = (keys: string): Sealer => createSealer(new Secret(keys));

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'tokens-test-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

async function openStore(path: string, sealer?: Sealer, log = createTestLog()): Promise<TokenStore> {
  const store = createFileStore(path, { log, sealer });
  await store.open();
  return store;
}

for (const [name, sealer] of [
  ['file', undefined],
  ['sealed file', sealerOf(KEY_1)],
] as const) {
  const open = async (t: TestContext) => {
    const path = join(await directory(t), 'state');
    return { store: await openStore(path, sealer), again: () => openStore(path, sealer) };
  };
  testStore(name, open);
  testDurableStore(name, open);
}

const GRANT = {
  grantFingerprint: 'f',
  refreshToken: 'refresh-secret',
  refreshTokenObtainedAt: 1,
} as const;

async function onlyFile(path: string): Promise<string> {
  const names = await readdir(path);
  assert.equal(names.length, 1, names.join(' '));
  return join(path, names[0] ?? '');
}

test("directory and files are the owner's alone, and nothing half-written stays", async (t) => {
  const path = join(await directory(t), 'deep', 'state');
  const store = await openStore(path);
  await store.save('a@x', GRANT);
  assert.equal((await stat(path)).mode & 0o777, 0o700);
  const file = await onlyFile(path);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  await writeFile(`${file}.99.tmp`, 'half');
  await openStore(path);
  await onlyFile(path);
});

test('a file that others can read is closed to them, an open directory is warned about', async (t) => {
  const path = await directory(t);
  const store = await openStore(path);
  await store.save('a@x', GRANT);
  const file = await onlyFile(path);
  await chmod(file, 0o644);
  await chmod(path, 0o755);
  const log = createTestLog();
  const later = await openStore(path, undefined, log);
  assert.deepEqual(await later.load('a@x'), GRANT);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.match(log.text(), /state_dir_open/);
});

test('under a key nothing secret is on the disk, and files cannot be exchanged', async (t) => {
  const path = await directory(t);
  const store = await openStore(path, sealerOf(KEY_1));
  await store.save('a@x', GRANT);
  const file = await onlyFile(path);
  const text = await readFile(file, 'utf8');
  assert.doesNotMatch(text, /refresh-secret/);
  await store.save('b@x', { ...GRANT, refreshToken: 'of b' });
  await writeFile(
    file,
    await readFile(join(path, (await readdir(path)).find((n) => n.startsWith('b@x')) ?? '')),
  );
  assert.equal(await store.load('a@x'), undefined);
});

test('a key is rotated by giving the new and the old one', async (t) => {
  const path = await directory(t);
  await (await openStore(path, sealerOf(KEY_1))).save('a@x', GRANT);
  assert.deepEqual(await (await openStore(path, sealerOf(`${KEY_2} ${KEY_1}`))).load('a@x'), GRANT);
  // Read once, it is under the new key and the old one can go.
  assert.deepEqual(await (await openStore(path, sealerOf(KEY_2))).load('a@x'), GRANT);
});

test('files in the clear are sealed once there is a key', async (t) => {
  const path = await directory(t);
  await (await openStore(path)).save('a@x', GRANT);
  assert.deepEqual(await (await openStore(path, sealerOf(KEY_1))).load('a@x'), GRANT);
  assert.doesNotMatch(await readFile(await onlyFile(path), 'utf8'), /refresh-secret/);
});

for (const [what, text] of [
  ['empty', ''],
  ['cut', '{"grantFingerprint":"f","refreshTok'],
  ['of another kind', '[]'],
  ['with wrong types', '{"grantFingerprint":"f","refreshToken":7}'],
  ['binary', '\u0000\u0001\ufffd'],
  ['huge', `{"grantFingerprint":"${'x'.repeat(300_000)}"}`],
  ['sealed under an unknown key', sealerOf(KEY_2).seal('{}', 'a@x')],
] as const) {
  test(`a file that is ${what} is set aside, reported and not fatal`, async (t) => {
    const path = await directory(t);
    const log = createTestLog();
    const store = await openStore(path, sealerOf(KEY_1), log);
    await store.save('a@x', GRANT);
    await writeFile(await onlyFile(path), text);
    assert.equal(await store.load('a@x'), undefined);
    assert.equal(log.lines.filter((l) => l.fields.event === 'state_file_set_aside').length, 1);
    assert.equal(await readFile(await onlyFile(path), 'utf8'), text);
    await store.save('a@x', GRANT);
    assert.deepEqual(await store.load('a@x'), GRANT);
  });
}

test('files of others are left alone', async (t) => {
  const path = await directory(t);
  await writeFile(join(path, 'accounts.json'), '{}');
  const store = await openStore(path);
  await store.save('gone@x', GRANT);
  assert.equal(await store.prune(new Set()), 1);
  assert.deepEqual(await readdir(path), ['accounts.json']);
});

test('a directory that cannot be one is said at once', async (t) => {
  const path = join(await directory(t), 'file');
  await writeFile(path, '');
  await assert.rejects(openStore(path), { code: 'EEXIST' });
});
