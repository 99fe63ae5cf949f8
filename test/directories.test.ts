import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeDirectories } from '../src/directories.ts';

test('a directory and those above it are made for their owner alone; the first of them is told', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'directories-'));
  t.after(() => rmSync(root, { recursive: true }));
  assert.equal(makeDirectories(root), undefined);
  assert.equal(makeDirectories(join(root, 'a/b/c')), join(root, 'a'));
  assert.equal(statSync(join(root, 'a/b/c')).mode & 0o777, 0o700);
  assert.equal(makeDirectories(join(root, 'a/b/d')), join(root, 'a/b/d'));
  writeFileSync(join(root, 'file'), '');
  assert.throws(() => makeDirectories(join(root, 'file')), { code: 'EEXIST' });
  assert.throws(() => makeDirectories(join(root, 'file/x')), { code: 'ENOTDIR' });
});

test('a file system that makes no directories says so, and holds nobody', {
  skip: existsSync('/proc/self') ? false : 'no /proc on this system',
}, () => {
  assert.throws(() => makeDirectories('/proc/x/y'), { code: 'ENOENT' });
});
