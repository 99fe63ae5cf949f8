/** What stands in the state directory and was not made by the relay is not touched. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { stateFiles } from '../../src/tokens/state-files.ts';
import { within } from '../support/wait-for.ts';

const SOMEBODY = 65_534;
const REFUSED = { name: 'StateFileRefused' };
const mayGive = process.getuid?.() === 0;

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'state-files-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test('a link, a FIFO and a directory under one of our names are refused at once, and their mode stays', async (t) => {
  const path = directory(t);
  const other = join(path, 'other');
  writeFileSync(other, 'secret of somebody', { mode: 0o644 });
  symlinkSync(other, join(path, 'link'));
  execFileSync('mkfifo', ['-m', '644', join(path, 'fifo')]);
  mkdirSync(join(path, 'directory'), { mode: 0o755 });
  for (const name of ['link', 'fifo', 'directory'])
    await assert.rejects(within(stateFiles.read(join(path, name), 1_000), 2_000, name), REFUSED, name);
  await assert.rejects(stateFiles.create(join(path, 'link'), 'x'), { code: 'EEXIST' });
  assert.deepEqual(
    ['other', 'fifo', 'directory'].map((name) => lstatSync(join(path, name)).mode & 0o777),
    [0o644, 0o644, 0o755],
  );
});

test('a file or directory of somebody else is refused, and neither mode nor owner is changed', {
  skip: mayGive ? false : 'needs the right to give a file away',
}, async (t) => {
  const path = directory(t);
  const file = join(path, 'file');
  const foreign = join(path, 'foreign');
  writeFileSync(file, 'x', { mode: 0o666 });
  mkdirSync(foreign, { mode: 0o777 });
  for (const each of [file, foreign]) chownSync(each, SOMEBODY, SOMEBODY);
  const before = [file, foreign].map((each) => lstatSync(each).mode);
  await assert.rejects(stateFiles.read(file, 1_000), REFUSED);
  await assert.rejects(stateFiles.openDirectory(foreign), REFUSED);
  for (const [i, each] of [file, foreign].entries()) {
    const { mode, uid } = lstatSync(each);
    assert.deepEqual([mode, uid], [before[i], SOMEBODY]);
  }
});

test('what is made is for its owner alone, whatever the umask, and an own file open to others is closed', async (t) => {
  const path = join(directory(t), 'made');
  const before = process.umask(0);
  t.after(() => void process.umask(before));
  await stateFiles.openDirectory(path);
  await stateFiles.create(join(path, 'file'), 'x');
  writeFileSync(join(path, 'open'), 'y', { mode: 0o666 });
  assert.equal(await stateFiles.read(join(path, 'open'), 1_000), 'y');
  assert.deepEqual(
    [path, join(path, 'file'), join(path, 'open')].map((each) => lstatSync(each).mode & 0o777),
    [0o700, 0o600, 0o600],
  );
});

test('a file that finds no space is not left behind empty: a lock without a holder would be waited for', (t) => {
  const path = join(directory(t), 'file');
  const script = `
    const { stateFiles } = await import(${JSON.stringify(new URL('../../src/tokens/state-files.js', import.meta.url).href)});
    process.exitCode = await stateFiles.create(${JSON.stringify(path)}, 'text').then(() => 1, (error) => (error.code === 'EFBIG' ? 7 : 2));`;
  const node = [process.execPath, '--input-type=module', '-e', script];
  // No file may have an octet more than none.
  const { status } = spawnSync('sh', ['-c', 'trap "" XFSZ; ulimit -f 0; exec "$@"', 'sh', ...node]);
  assert.equal(status, 7);
  assert.equal(existsSync(path), false);
});
