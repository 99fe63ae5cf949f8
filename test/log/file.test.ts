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
import { LogFileTaken, openLogFile } from '../../src/log/file.ts';
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
  'a log file rotates at its size, keeps some older ones, and its name is a link to the newest',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    const path = join(directory, 'relay.log');
    writeFileSync(join(directory, 'relay.x.log'), 'not ours');
    const target = openLogFile(path, 100, 2);
    for (let i = 0; i < 50; i++) await write(target, `${String(i).padEnd(49)}\n`);
    assert.deepEqual(readdirSync(directory).sort(), [
      'relay.23.log',
      'relay.24.log',
      'relay.25.log',
      'relay.log',
      'relay.x.log',
    ]);
    assert.match(readFileSync(path, 'utf8'), /^48 +\n49 +\n$/);
    assert.equal(readlinkSync(path), 'relay.25.log');

    await write(openLogFile(path, 1_000, 2), 'after a restart\n');
    assert.match(readFileSync(path, 'utf8'), /49 +\nafter a restart\n$/);
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

test(
  'two logs in one directory: each name leads to its own newest; what a log did not make is left alone',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    const [a, b] = [join(directory, 'a.log'), join(directory, 'b.log')];
    writeFileSync(join(directory, 'current.log'), 'somebody’s');
    const [first, second] = [openLogFile(a), openLogFile(b)];
    await write(first, 'of a\n');
    await write(second, 'of b\n');
    assert.deepEqual([readFileSync(a, 'utf8'), readFileSync(b, 'utf8')], ['of a\n', 'of b\n']);
    assert.equal(readFileSync(join(directory, 'current.log'), 'utf8'), 'somebody’s');
    const taken = join(directory, 'taken.log');
    writeFileSync(taken, 'somebody’s');
    assert.throws(() => openLogFile(taken), LogFileTaken);
    assert.equal(readFileSync(taken, 'utf8'), 'somebody’s');
    assert.throws(() => openLogFile(directory), /it is a directory/);
  }),
);

for (const how of ['write', 'writeNow'] as const)
  test(
    `a line that was cut by a full disk ends before the first one of the next process (${how})`,
    leakless(async (_t, defer) => {
      const directory = temporary(defer);
      const path = join(directory, 'relay.log');
      const put = async (target: LogTarget, text: string): Promise<void> => {
        if (how === 'write') await write(target, text);
        else assert.equal(target.writeNow(Buffer.from(text)), text.length);
      };
      writeFileSync(join(directory, 'relay.1.log'), '{"whole":1}\n{"torn');
      const next = openLogFile(path);
      await put(next, '{"first":1}\n');
      await put(next, '{"second":1}\n');
      await put(openLogFile(path), '{"third":1}\n');
      assert.equal(
        readFileSync(path, 'utf8'),
        '{"whole":1}\n{"torn\n{"first":1}\n{"second":1}\n{"third":1}\n',
      );
    }),
  );

test(
  'of what is written behind a cut line all is counted, and no more',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    writeFileSync(join(directory, 'relay.1.log'), '{"torn');
    const target = openLogFile(join(directory, 'relay.log'));
    const written = await new Promise<number>((resolve) =>
      target.write(Buffer.from('{"first":1}\n'), (_error, octets) => resolve(octets)),
    );
    assert.equal(written, '{"first":1}\n'.length);
  }),
);
