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

test('a file of somebody else in a directory of root does not make root work as him', {
  skip: isRoot ? false : 'needs root',
}, async (t) => {
  const directory = volume(t);
  await keepThere(directory, 'a@x');
  writeFileSync(join(directory, 'planted-0000000000000000.grant'), '{}', { mode: 0o600 });
  chownSync(join(directory, 'planted-0000000000000000.grant'), SOMEBODY, SOMEBODY);
  await keepThere(directory, 'b@x');
  const owners = readdirSync(directory)
    .filter((name) => !name.startsWith('planted'))
    .map((name) => lstatSync(join(directory, name)).uid);
  assert.deepEqual(owners, [0, 0]);
});
