import assert from 'node:assert/strict';
import { chmodSync, chownSync, lstatSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { borrowTokenStore } from '../../src/commands/borrowed-store.ts';
import { loadSettings } from '../../src/config.ts';
import { idOf, rotation } from '../tokens/store-suite.ts';

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

async function keepThere(stateDir: string, user: string): Promise<void> {
  const settings = await loadSettings({ flags: { stateDir }, env: {} });
  const store = await borrowTokenStore(settings, () => undefined);
  try {
    await store.rotate(idOf(user), rotation(`of ${user}`));
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
