import assert from 'node:assert/strict';
import { chmodSync, chownSync, lstatSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { borrowTokenStore } from '../../src/commands/borrowed-store.ts';
import { loadSettings } from '../../src/config.ts';
import { silentLog } from '../../src/log.ts';
import { fileNameOf } from '../../src/tokens/grant-files.ts';
import { grantFingerprint } from '../../src/tokens/grant-form.ts';
import { createProcesses, formatMark } from '../../src/tokens/process-mark.ts';
import { createSealer } from '../../src/tokens/sealing.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { idOf, rotation } from '../tokens/store-suite.ts';
import { closedPort, entryFor } from '../tokens/support.ts';

const SOMEBODY = 65_534;
const isRoot = process.getuid?.() === 0;

/** Root's, for a group to write: as a volume of a container is. */
function volume(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'volume-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  chownSync(directory, 0, SOMEBODY);
  chmodSync(directory, 0o2770);
  return directory;
}

const ACCOUNTS = ['a@x', 'b@x'].map((id) => entryFor('https://provider.example/token', id));
const idIn = (user: string) => {
  const { credential } = ACCOUNTS.find(({ account }) => account.id === user) ?? assert.fail();
  return idOf(user, grantFingerprint(credential));
};

async function keepThere(stateDir: string, user: string, stateKey?: string): Promise<void> {
  const env = stateKey === undefined ? {} : { XOAUTH2_RELAY_STATE_KEY: stateKey };
  const settings = await loadSettings({ flags: { stateDir }, env });
  const store = await borrowTokenStore(settings, () => undefined, ACCOUNTS);
  try {
    await store.rotate(idIn(user), rotation(`of ${user}`));
  } finally {
    await store.close();
  }
}

/** Runs as another user of this machine. */
async function as(uid: number, work: () => Promise<void>): Promise<void> {
  process.setegid?.(uid);
  process.seteuid?.(uid);
  try {
    await work();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
  }
}

test('a directory of root in which the relay’s user may write is that user’s, and root leaves him all he needs', {
  skip: isRoot ? false : 'needs root',
}, async (t) => {
  const directory = volume(t);
  await as(SOMEBODY, () => keepThere(directory, 'a@x'));
  await as(SOMEBODY, () => keepThere(directory, 'a@x'));
  await keepThere(directory, 'b@x');
  const left = readdirSync(directory).map((name) => lstatSync(join(directory, name)));
  assert.deepEqual(
    left.map(({ uid, mode }) => [uid, mode & 0o777]),
    [
      [SOMEBODY, 0o600],
      [SOMEBODY, 0o600],
    ],
  );
  await assert.rejects(
    as(SOMEBODY - 1, () => keepThere(directory, 'a@x')),
    { name: 'OperatorError', exitCode: 2 },
  );
});

test('root keeps nothing where nobody can tell whether the relay could read it', {
  skip: isRoot ? false : 'needs root',
}, async (t) => {
  const directory = volume(t);
  const refused = { name: 'OperatorError', exitCode: 2, message: /as whom the relay runs/ };
  await assert.rejects(keepThere(directory, 'a@x'), refused);
  const plant = (name: string, uid: number): void => {
    writeFileSync(join(directory, name), '{}', { mode: 0o600 });
    chownSync(join(directory, name), uid, uid);
  };
  plant('one-0000000000000000.grant', 0);
  plant('other-0000000000000000.grant', SOMEBODY);
  await assert.rejects(keepThere(directory, 'a@x'), refused);
  // Whoever is in the group may have put the lock there, too.
  plant('relay.lock', SOMEBODY);
  rmSync(join(directory, 'other-0000000000000000.grant'));
  await assert.rejects(keepThere(directory, 'a@x'), refused);
  // As an emptyDir of Kubernetes is.
  const shared = volume(t);
  chmodSync(shared, 0o777);
  await assert.rejects(keepThere(shared, 'a@x'), refused);
  await as(SOMEBODY, () => keepThere(shared, 'a@x'));
  await assert.rejects(keepThere(shared, 'a@x'), refused);
  assert.deepEqual([readdirSync(directory).length, readdirSync(shared).length], [2, 1]);
  const own = volume(t);
  chmodSync(own, 0o755);
  await keepThere(own, 'a@x');
});

const KEY = 'correct horse battery staple';
const OTHER_KEY = 'another horse, battery and staple';

/** What a member of the group puts there, as nobody who knows a refresh token or the state key. */
const PLANTED: Readonly<Record<string, (directory: string) => Promise<void>>> = {
  'a lock with the mark of a living process': async (directory) =>
    writeFileSync(join(directory, 'relay.lock'), formatMark(createProcesses().own, Date.now())),
  'a file that is no record': async (directory) => writeFileSync(join(directory, fileNameOf('x@x')), 'x'),
  'a record of the account checked': (directory) => keepAs(directory, idOf('a@x', 'what nobody gave')),
  'a record under another key': (directory) => keepAs(directory, idIn('a@x'), OTHER_KEY),
  'a list of missing accounts': async (directory) => writeFileSync(join(directory, 'missing.json'), '{}'),
};

async function keepAs(directory: string, id: ReturnType<typeof idOf>, key?: string): Promise<void> {
  const sealer = key === undefined ? undefined : createSealer(new Secret(key));
  const store = createFileStore(directory, { log: silentLog, sealer }, { role: 'guest' });
  await store.rotate(id, rotation('planted'));
  await store.close();
}

for (const [what, plant] of Object.entries(PLANTED))
  test(`${what}, planted by a member of the group, does not say as whom root writes`, {
    skip: isRoot ? false : 'needs root',
  }, async (t) => {
    const directory = volume(t);
    await plant(directory);
    for (const name of readdirSync(directory)) chownSync(join(directory, name), SOMEBODY, SOMEBODY);
    const before = readdirSync(directory);
    for (const key of [undefined, KEY])
      await assert.rejects(keepThere(directory, 'a@x', key), {
        name: 'OperatorError',
        exitCode: 2,
        message: /as whom the relay runs/,
      });
    assert.deepEqual(readdirSync(directory), before);
  });

test('a record under the state key says as whom root writes, whose account it is or not', {
  skip: isRoot ? false : 'needs root',
}, async (t) => {
  const directory = volume(t);
  await keepAs(directory, idOf('gone@x'), KEY);
  for (const name of readdirSync(directory)) chownSync(join(directory, name), SOMEBODY, SOMEBODY);
  await keepThere(directory, 'a@x', KEY);
  assert.deepEqual(
    readdirSync(directory).map((name) => lstatSync(join(directory, name)).uid),
    [SOMEBODY, SOMEBODY],
  );
});

test('beside a Redis that is away a refresh token is kept in the state directory, where there is one; without a look into it nothing is asked', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'beside-redis-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const store = `redis://127.0.0.1:${await closedPort()}`;
  const keep = async (stateDir: string): Promise<void> => {
    const settings = await loadSettings({ flags: { stateDir, store }, env: {} });
    const borrowed = await borrowTokenStore(settings, () => undefined, ACCOUNTS);
    assert.equal(borrowed.kind, 'redis');
    await assert.rejects(borrowed.rotate(idIn('a@x'), rotation('came while Redis was away')));
    await borrowed.close();
  };
  await keep(directory);
  const left = createFileStore(directory, { log: silentLog, sealer: undefined });
  assert.equal((await left.load(idIn('a@x')))?.refreshToken, 'came while Redis was away');
  // No directory is made, and one under another key may have a later refresh token than Redis.
  await keep(join(directory, 'missing'));
  assert.equal(readdirSync(directory).length, 1);
  await keepAs(directory, idIn('b@x'), KEY);
  rmSync(join(directory, fileNameOf('a@x')));
  await assert.rejects(keep(directory), /is sealed with a state key/);
  assert.deepEqual(readdirSync(directory), [fileNameOf('b@x')]);
  if (!isRoot) return;
  // Also where one above it may not be entered.
  chmodSync(directory, 0o700);
  await assert.rejects(
    as(SOMEBODY, () => keep(join(directory, 'state'))),
    /cannot look into the state directory/,
  );
});
