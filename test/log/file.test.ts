import assert from 'node:assert/strict';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { currentLogFile, openLogFile } from '../../src/log/file.ts';
import type { LogTarget } from '../../src/log/sink.ts';
import { type Defer, leakless } from '../support/leak-check.ts';

function temporary(defer: Defer): string {
  const directory = mkdtempSync(join(tmpdir(), 'log-'));
  defer(() => rmSync(directory, { recursive: true }));
  return directory;
}
const write = (target: LogTarget, text: string): Promise<void> =>
  new Promise((resolve, reject) =>
    target.write(Buffer.from(text), (error) => (error === null ? resolve() : reject(error))),
  );

test(
  'a log file rotates at its size, keeps some older ones, and current.log points at the newest',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    const path = join(directory, 'relay.log');
    writeFileSync(join(directory, 'relay.x.log'), 'not ours');
    const target = openLogFile(path, 100, 2);
    for (let i = 0; i < 50; i++) await write(target, `${String(i).padEnd(49)}\n`);
    assert.deepEqual(readdirSync(directory).sort(), [
      'current.log',
      'relay.23.log',
      'relay.24.log',
      'relay.25.log',
      'relay.x.log',
    ]);
    assert.match(readFileSync(currentLogFile(path), 'utf8'), /^48 +\n49 +\n$/);
    assert.equal(readlinkSync(currentLogFile(path)), 'relay.25.log');

    await write(openLogFile(path, 1_000, 2), 'after a restart\n');
    assert.match(readFileSync(currentLogFile(path), 'utf8'), /49 +\nafter a restart\n$/);
  }),
);

test(
  'a log file and its directory are closed to others whatever the umask',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    const before = process.umask(0);
    defer(() => void process.umask(before));
    await write(openLogFile(join(directory, 'new', 'relay.log')), 'x\n');
    assert.equal(statSync(join(directory, 'new')).mode & 0o777, 0o700);
    assert.equal(statSync(join(directory, 'new', 'relay.1.log')).mode & 0o777, 0o640);
  }),
);
