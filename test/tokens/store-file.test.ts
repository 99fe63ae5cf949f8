import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { systemClock } from '../../src/clock.ts';
import { createProcesses, formatMark } from '../../src/tokens/process-mark.ts';
import { createSealer, type Sealer } from '../../src/tokens/sealing.ts';
import { stateFiles } from '../../src/tokens/state-files.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import { createTestClock } from '../support/clock.ts';
import { waitFor, within } from '../support/wait-for.ts';
import { idOf, rotation, testDurableStore, testStore } from './store-suite.ts';
import { createTestLog } from './support.ts';

const KEY_1 = '8f1c0b7e5a2d4936c7e8190af3b6d254a1907c3e6b5d8f42e0196a7bc4d3f258';
const KEY_2 = Buffer.from(KEY_1, 'hex').reverse().toString('base64');
const sealerOf = (keys: string): Sealer => createSealer(new Secret(keys));

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'tokens-test-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

async function openStore(
  t: TestContext,
  path: string,
  sealer?: Sealer,
  log = createTestLog(),
): Promise<TokenStore> {
  const store = createFileStore(path, { log, sealer });
  t.after(() => store.close());
  await store.open();
  return store;
}

for (const [name, sealer] of [
  ['file', undefined],
  ['sealed file', sealerOf(KEY_1)],
] as const) {
  const open = async (t: TestContext) => {
    const path = join(await directory(t), 'state');
    return { store: await openStore(t, path, sealer), again: () => openStore(t, path, sealer) };
  };
  testStore(name, open);
  testDurableStore(name, open);
}

const A = idOf('a@x');
const GRANT = {
  grantFingerprint: A.fingerprint,
  refreshToken: 'later',
  refreshTokenObtainedAt: 1,
  tokens: {},
};
const names = async (path: string): Promise<string[]> =>
  (await readdir(path)).filter((name) => name !== 'relay.lock');

async function onlyFile(path: string): Promise<string> {
  const found = await names(path);
  assert.equal(found.length, 1, found.join(' '));
  return join(path, found[0] ?? '');
}

/** As `openStore`, for a relay that ends before the next one begins. */
async function once<T>(store: Promise<TokenStore>, use: (store: TokenStore) => Promise<T>): Promise<T> {
  const opened = await store;
  const result = await use(opened);
  await opened.close();
  return result;
}

test("directory and files are the owner's alone, and nothing half-written stays", async (t) => {
  const path = join(await directory(t), 'deep', 'state');
  await once(openStore(t, path), (store) => store.rotate(A, rotation('r')));
  assert.equal((await stat(path)).mode & 0o777, 0o700);
  const file = await onlyFile(path);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  await writeFile(`${file}.99.tmp`, 'half');
  await writeFile(`${file}.4711.3.tmp`, '');
  await once(openStore(t, path), async () => undefined);
  await onlyFile(path);
});

test('what a killed process had written down and not put in place is finished', async (t) => {
  const path = await directory(t);
  const sealer = sealerOf(KEY_1);
  await once(openStore(t, path, sealer), (store) => store.rotate(A, rotation('first')));
  const file = await onlyFile(path);
  const older = await readFile(file);
  await once(openStore(t, path, sealer), (store) => store.rotate(A, rotation('second', 1)));
  const newer = await readFile(file);
  await writeFile(file, older);
  await writeFile(`${file}.4711.3.tmp`, newer);
  const log = createTestLog();
  await once(openStore(t, path, sealer, log), async (store) => {
    assert.equal((await store.load(A))?.refreshToken, 'second');
    await onlyFile(path);
    // An older one beside a newer one is not.
    await writeFile(`${file}.4711.4.tmp`, older);
  });
  await once(openStore(t, path, sealer), async (store) => {
    assert.equal((await store.load(A))?.refreshToken, 'second');
  });
  assert.equal(log.lines.filter((l) => l.fields.event === 'state_file_finished').length, 1);
});

test('what a living command is just writing is left to it', async (t) => {
  const path = await directory(t);
  const guest = createFileStore(path, { log: createTestLog(), sealer: undefined }, { role: 'guest' });
  await guest.open();
  await guest.rotate(A, rotation('first'));
  const file = await onlyFile(path);
  const { pid, started } = createProcesses().own;
  const half = `${file}.${pid}.${started}.99.tmp`;
  const lease = await guest.lock?.('a@x');
  // Whole and in the middle of it.
  for (const text of [JSON.stringify({ version: 2, grants: [{ ...GRANT, generation: 7 }] }), '{"version']) {
    await writeFile(half, text);
    await once(openStore(t, path), async (store) => {
      assert.equal((await store.load(A))?.refreshToken, 'first');
    });
    assert.equal(await readFile(half, 'utf8'), text);
  }
  await lease?.release();
  await rm(half);
  await guest.close();
});

for (const [which, sealer] of [
  ['no key', undefined],
  ['another key', sealerOf(KEY_2)],
] as const)
  test(`with ${which} neither relay nor command touches a directory that is sealed`, async (t) => {
    const path = await directory(t);
    const half = await once(openStore(t, path, sealerOf(KEY_1)), async (store) => {
      await store.rotate(A, rotation('r'));
      // Of a process that was killed.
      const name = `${await onlyFile(path)}.999999.1.1.tmp`;
      await writeFile(name, await readFile(await onlyFile(path), 'utf8'));
      return name;
    });
    const before = await names(path);
    for (const role of ['owner', 'guest'] as const) {
      const store = createFileStore(path, { log: createTestLog(), sealer }, { role });
      await assert.rejects(store.open(), { name: 'StateDirectoryError', message: /state_key/ });
      await store.close();
      assert.deepEqual(await names(path), before);
    }
    // A command in whose directory one file alone is under another key.
    await once(openStore(t, path, sealerOf(`${KEY_1}\n${KEY_2}`)), (store) => store.load(A));
    assert.ok(!(await names(path)).includes(basename(half)));
    const guest = createFileStore(path, { log: createTestLog(), sealer }, { role: 'guest' });
    await assert.rejects(guest.load(A), { code: 'unknown_key' });
    await assert.rejects(guest.saveToken(A, 'smtp', undefined), { code: 'unknown_key' });
    assert.equal((await names(path)).length, 1);
    await guest.close();
  });

test('a command with a key leaves the files of a relay without one readable for it', async (t) => {
  const path = await directory(t);
  const log = createTestLog();
  const relay = await openStore(t, path, undefined, log);
  await relay.rotate(A, rotation('r'));
  const guest = createFileStore(path, { log, sealer: sealerOf(KEY_1) }, { role: 'guest' });
  await guest.open();
  assert.equal((await guest.load(A))?.refreshToken, 'r');
  await guest.rotate(A, rotation('r2', 1));
  await guest.close();
  assert.equal((await relay.load(A))?.refreshToken, 'r2');
  assert.deepEqual(log.lines.filter((l) => l.fields.event === 'state_file_set_aside').length, 0);
});

test('what was set aside for want of its key is used again once that is given', async (t) => {
  const path = await directory(t);
  await once(openStore(t, path, sealerOf(KEY_2)), async (store) => {
    await store.rotate(A, rotation('earlier'));
    await store.rotate(A, rotation('r', 1));
  });
  const [file] = await names(path);
  // By which the key seems right.
  await once(openStore(t, path, sealerOf(`${KEY_1}\n${KEY_2}`)), (store) =>
    store.rotate(idOf('b@x'), rotation('b')),
  );
  await once(openStore(t, path, sealerOf(KEY_1)), async (store) => {
    await assert.rejects(store.load(A), { code: 'unknown_key' });
    await assert.rejects(store.saveToken(A, 'smtp', undefined), { code: 'unknown_key' });
    assert.ok((await names(path)).includes(file ?? ''));
    await store.rotate(A, rotation('came'));
  });
  assert.ok((await names(path)).some((name) => name.startsWith(`${file}.unknown_key-`)));
  await once(openStore(t, path, sealerOf(`${KEY_1}\n${KEY_2}`)), async (store) => {
    assert.equal((await store.load(A))?.refreshToken, 'r');
  });
  assert.equal((await names(path)).length, 2);
});

test('half of a refresh token under a key that is not given now stays for it', async (t) => {
  const path = await directory(t);
  await once(openStore(t, path, sealerOf(KEY_2)), (store) => store.rotate(idOf('b@x'), rotation('b')));
  const [other = ''] = await names(path);
  await once(openStore(t, path, sealerOf(`${KEY_1}\n${KEY_2}`)), (store) => store.rotate(A, rotation('r')));
  const own = (await names(path)).find((name) => name !== other) ?? '';
  const half = join(path, `${own}.999999.1.1.tmp`);
  await writeFile(half, await readFile(join(path, own), 'utf8'));
  await once(openStore(t, path, sealerOf(KEY_2)), (store) => store.load(idOf('b@x')));
  assert.ok((await names(path)).includes(basename(half)));
});

test('a directory that cannot be opened after all is free again', async (t) => {
  const path = await directory(t);
  const full = Object.assign(new Error('no space'), { code: 'ENOSPC' });
  const files = { ...stateFiles, list: () => Promise.reject(full) };
  const store = createFileStore(path, { log: createTestLog(), sealer: undefined, files });
  await assert.rejects(store.open(), { name: 'StateDirectoryError' });
  assert.deepEqual(await readdir(path), []);
  await openStore(t, path);
});

test('a file that others can read is closed to them, an open directory is warned about', async (t) => {
  const path = await directory(t);
  await once(openStore(t, path), (store) => store.rotate(A, rotation('r')));
  const file = await onlyFile(path);
  await chmod(file, 0o644);
  await chmod(path, 0o755);
  const log = createTestLog();
  const later = await openStore(t, path, undefined, log);
  assert.equal((await later.load(A))?.refreshToken, 'r');
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.match(log.text(), /state_dir_open/);
});

test('a link, a FIFO and a directory under a name of ours are refused and not touched', async (t) => {
  const path = await directory(t);
  const foreign = join(await directory(t), 'somebody-elses');
  await writeFile(foreign, '{"version":2,"grants":[]}', { mode: 0o644 });
  await chmod(foreign, 0o644);
  const log = createTestLog();
  const store = await openStore(t, path, undefined, log);
  await store.rotate(A, rotation('r'));
  const file = await onlyFile(path);
  const put: [string, () => unknown][] = [
    ['a symbolic link', () => symlink(foreign, file)],
    ['a FIFO', () => execFileSync('mkfifo', [file])],
    ['a directory', () => mkdir(file)],
  ];
  for (const [what, make] of put) {
    await rm(file, { recursive: true });
    await make();
    assert.equal(await within(store.load(A), 2000, what), undefined);
    assert.ok(
      log.lines.some((l) => l.fields.event === 'state_file_set_aside'),
      what,
    );
    log.lines.length = 0;
    // What comes next gets a file of its own.
    await store.rotate(A, rotation('again'));
    assert.equal((await store.load(A))?.refreshToken, 'again');
  }
  assert.equal((await stat(foreign)).mode & 0o777, 0o644);
  assert.equal(await readFile(foreign, 'utf8'), '{"version":2,"grants":[]}');
});

test('the file of another user may have the newest refresh token: nothing goes on without it but a new one', {
  skip: process.getuid?.() === 0 ? false : 'needs the right to give a file away',
}, async (t) => {
  const path = await directory(t);
  const store = await openStore(t, path);
  await store.rotate(A, rotation('r'));
  const file = await onlyFile(path);
  await chown(file, 65_534, 65_534);
  await assert.rejects(store.load(A), { code: 'STATE_FILE_FOREIGN' });
  await assert.rejects(store.saveToken(A, 'smtp', undefined), { code: 'STATE_FILE_FOREIGN' });
  assert.equal(await onlyFile(path), file);
  await store.rotate(A, rotation('of a new sign-in'));
  assert.equal((await store.load(A))?.refreshToken, 'of a new sign-in');
  assert.equal((await names(path)).length, 2);
});

test('under a key nothing secret is on the disk, and files cannot be exchanged', async (t) => {
  const path = await directory(t);
  const store = await openStore(t, path, sealerOf(KEY_1));
  await store.rotate(A, rotation('refresh-secret'));
  const file = await onlyFile(path);
  const text = await readFile(file, 'utf8');
  assert.doesNotMatch(text, /refresh-secret/);
  await store.rotate(idOf('b@x'), rotation('of b'));
  await writeFile(
    file,
    await readFile(join(path, (await names(path)).find((n) => n.startsWith('b@x')) ?? '')),
  );
  assert.equal(await store.load(A), undefined);
});

test('a key is rotated by giving the new and the old one', async (t) => {
  const path = await directory(t);
  const read = (store: TokenStore) => store.load(A).then((grant) => grant?.refreshToken);
  await once(openStore(t, path, sealerOf(KEY_1)), (store) => store.rotate(A, rotation('r')));
  assert.equal(await once(openStore(t, path, sealerOf(`${KEY_2} ${KEY_1}`)), read), 'r');
  // Read once, it is under the new key and the old one can go.
  assert.equal(await once(openStore(t, path, sealerOf(KEY_2)), read), 'r');
});

test('files in the clear are sealed once there is a key', async (t) => {
  const path = await directory(t);
  await once(openStore(t, path), (store) => store.rotate(A, rotation('refresh-secret')));
  const store = await openStore(t, path, sealerOf(KEY_1));
  assert.equal((await store.load(A))?.refreshToken, 'refresh-secret');
  assert.doesNotMatch(await readFile(await onlyFile(path), 'utf8'), /refresh-secret/);
});

test('files of version 0.1 are read, in the clear and sealed', async (t) => {
  const path = await directory(t);
  const first = {
    grantFingerprint: 'grant-1',
    refreshToken: 'old refresh',
    refreshTokenObtainedAt: 7,
    tokenFingerprint: 'token-1',
    accessToken: 'old access',
    expiresAt: Date.now() + 3_600_000,
    obtainedAt: 5,
  };
  const seen = {
    grantFingerprint: 'grant-1',
    generation: 1,
    refreshToken: 'old refresh',
    refreshTokenObtainedAt: 7,
    tokens: {
      smtp: { fingerprint: 'token-1', accessToken: 'old access', expiresAt: first.expiresAt, obtainedAt: 5 },
    },
  };
  const store = await openStore(t, path, sealerOf(KEY_1));
  await store.rotate(A, rotation('r'));
  const file = await onlyFile(path);
  for (const text of [JSON.stringify(first), sealedByVersion01(KEY_1, JSON.stringify(first), 'a@x')]) {
    await writeFile(file, text);
    assert.deepEqual(await store.load(A), seen);
    // And written anew, under the salt of the directory.
    assert.match(await readFile(file, 'utf8'), /^sealed:v2:/);
    assert.deepEqual(await store.load(A), seen);
  }
});

function sealedByVersion01(hexKey: string, text: string, name: string): string {
  const key = Buffer.from(hexKey, 'hex');
  const iv = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key, iv);
  cipher.setAAD(Buffer.from(name));
  const sealed = Buffer.concat([iv, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
  const id = createHash('sha256').update('key id').update(key).digest('hex').slice(0, 8);
  return `sealed:v1:${id}:${sealed.toString('base64url')}`;
}

for (const [what, text] of [
  ['empty', ''],
  ['cut', '{"version":2,"grants":[{"grantFingerprint":"f","refreshTok'],
  ['of another kind', '[]'],
  ['with wrong types', '{"grantFingerprint":"f","refreshToken":7}'],
  ['binary', '\u0000\u0001\ufffd'],
  ['huge', `{"grantFingerprint":"${'x'.repeat(1_100_000)}"}`],
] as const) {
  test(`a file that is ${what} is set aside, reported and not fatal`, async (t) => {
    const path = await directory(t);
    const log = createTestLog();
    const store = await openStore(t, path, sealerOf(KEY_1), log);
    await store.rotate(A, rotation('r'));
    await writeFile(await onlyFile(path), text);
    assert.equal(await store.load(A), undefined);
    assert.equal(log.lines.filter((l) => l.fields.event === 'state_file_set_aside').length, 1);
    assert.equal(await readFile(await onlyFile(path), 'utf8'), text);
    await store.rotate(A, rotation('r2'));
    assert.equal((await store.load(A))?.refreshToken, 'r2');
  });
}

test('files of others are left alone', async (t) => {
  const path = await directory(t);
  await writeFile(join(path, 'accounts.json'), '{}');
  const store = await openStore(t, path);
  await store.rotate(idOf('gone@x'), rotation('g'));
  assert.equal((await store.prune(new Set(), 0)).gone, 1);
  assert.deepEqual(await names(path), ['accounts.json']);
});

test('a removed account is kept over restarts, and since when is not forgotten', async (t) => {
  const path = await directory(t);
  const clock = createTestClock();
  const open = async () => {
    const store = createFileStore(path, { log: createTestLog(), sealer: undefined, clock });
    t.after(() => store.close());
    await store.open();
    return store;
  };
  await once(open(), async (store) => {
    await store.rotate(idOf('gone@x'), rotation('g'));
    await store.prune(new Set(['a@x']), 10_000);
  });
  clock.step(6000);
  await once(open(), async (store) => {
    const { kept } = await store.prune(new Set(['a@x']), 10_000);
    assert.deepEqual(kept, [{ accountId: 'gone@x', until: clock.now() + 4000 }]);
    clock.step(4000);
    assert.equal((await store.prune(new Set(['a@x']), 10_000)).gone, 1);
    assert.deepEqual(await names(path), []);
  });
});

test('two relays cannot have one directory; the second is told which process has it', async (t) => {
  const path = await directory(t);
  const first = await openStore(t, path);
  await assert.rejects(openStore(t, path), (error: Error) => {
    assert.equal(error.name, 'StateDirectoryError');
    assert.match(error.message, new RegExp(`in use by another relay \\(pid ${process.pid}\\)`));
    return true;
  });
  // A command shares it.
  const guest = createFileStore(path, { log: createTestLog(), sealer: undefined }, { role: 'guest' });
  await guest.open();
  await guest.rotate(A, rotation('by the command'));
  assert.equal((await first.load(A))?.refreshToken, 'by the command');
  await guest.close();
  await first.close();
  await once(openStore(t, path), async () => undefined);
});

test('the lock of a process that was killed is taken over, and says what was under way', async (t) => {
  const path = await directory(t);
  const dead = { ...createProcesses().own, pid: 2 ** 22 - 1, started: '1' };
  const store = await openStore(t, path);
  await store.rotate(A, rotation('r'));
  const file = await onlyFile(path);
  await store.close();
  await writeFile(join(path, 'relay.lock'), formatMark(dead, 5));
  await writeFile(`${file}.lock`, formatMark(dead, 1_700_000_000_000));
  const next = await openStore(t, path);
  const lease = await next.lock?.('a@x');
  assert.deepEqual(lease?.interrupted, { begunAt: 1_700_000_000_000, isOver: true });
  await lease?.release();
  assert.equal((await next.lock?.('a@x'))?.interrupted, undefined);
});

test('a lock is not held any more after a pause in which it could be taken over, and what took it over stays', async (t) => {
  const path = await directory(t);
  let pausedMs = 0;
  const clock = { ...systemClock, monotonic: () => systemClock.monotonic() + pausedMs };
  const store = createFileStore(path, { log: createTestLog(), sealer: undefined, clock });
  await store.open();
  const lease = await store.lock?.('a@x', 'consent');
  assert.equal(lease?.isHeld(), true);
  const [file = ''] = (await names(path)).filter((name) => name.endsWith('.lock'));
  pausedMs = 16_000;
  assert.equal(lease?.isHeld(), false);
  const other = formatMark({ pid: 1, started: '1', place: 'another container' }, 5);
  await writeFile(join(path, file), other);
  await lease?.release();
  assert.equal(await readFile(join(path, file), 'utf8'), other);
  await store.close();
});

test('a process id that came again is not its holder', async (t) => {
  const path = await directory(t);
  await writeFile(join(path, 'relay.lock'), formatMark({ ...createProcesses().own, started: '1' }, 5));
  await openStore(t, path);
});

test('a holder in another container is waited for while it gives signs of life, then taken over', async (t) => {
  const path = await directory(t);
  const lock = join(path, 'relay.lock');
  const clock = createTestClock();
  const elsewhere = formatMark({ pid: 1, started: '1', place: 'another container' }, 5);
  await writeFile(lock, elsewhere);
  /** Opens the store while time passes, and at each step `meanwhile`. */
  async function open(meanwhile: () => Promise<void> = async () => {}): Promise<void> {
    const opened = createFileStore(path, { log: createTestLog(), sealer: undefined, clock }).open();
    let isOver = false;
    const over = (): void => {
      isOver = true;
    };
    opened.then(over, over);
    await waitFor(async () => {
      await meanwhile();
      clock.advance(5000);
      return isOver;
    });
    return opened;
  }
  let beats = 0;
  await assert.rejects(
    open(() => utimes(lock, ++beats, beats)),
    { name: 'StateDirectoryError' },
  );
  await open();
});

for (const [what, words, make] of [
  ['a file', /is no directory: give another path/, (path: string) => writeFile(path, '')],
  ['below a file', /no directory: give another path/, (path: string) => writeFile(join(path, '..'), '')],
] as const) {
  test(`a directory that is ${what} is said in one line`, async (t) => {
    const path = join(await directory(t), 'x', 'state');
    if (what === 'a file') await mkdir(join(path, '..'));
    await make(path);
    await assert.rejects(openStore(t, path), (error: Error) => {
      assert.equal(error.name, 'StateDirectoryError');
      assert.match(error.message, words);
      assert.ok(error.message.includes(path) && !error.message.includes('\n'));
      return true;
    });
  });
}
