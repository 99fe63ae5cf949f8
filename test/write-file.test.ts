import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeFileAtomically } from '../src/write-file.ts';

test('a file that is replaced keeps owner, group and mode, so that whoever read it reads it still', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'write-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'accounts.json');
  const facts = (): readonly number[] => {
    const { uid, gid, mode } = statSync(path);
    return [uid, gid, mode & 0o777];
  };
  await writeFileAtomically(path, 'new');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const { uid, gid } = statSync(path);
  const isRoot = process.getuid?.() === 0;
  const owners = isRoot
    ? [
        [0, 4321],
        [4321, 4321],
        [4321, 0],
      ]
    : [[uid, gid]];
  for (const [owner = uid, group = gid] of owners)
    for (const mode of [0o640, 0o600, 0o660, 0o400]) {
      writeFileSync(path, 'old');
      if (isRoot) chownSync(path, owner, group);
      chmodSync(path, mode);
      await writeFileAtomically(path, `for ${owner}`);
      assert.deepEqual(facts(), [owner, group, mode]);
      assert.equal(readFileSync(path, 'utf8'), `for ${owner}`);
      chmodSync(path, 0o600);
    }
  // Nobody chose that for a file of secrets.
  chmodSync(path, 0o644);
  await writeFileAtomically(path, 'closed');
  assert.equal(statSync(path).mode & 0o777, 0o600);
});
