import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('./main.js', import.meta.url));

function digestOf(...args: string[]): string | undefined {
  const { stdout } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
  return /^digest (\w+)$/m.exec(stdout)?.[1];
}

test('equal seeds give equal runs, others differ', () => {
  const once = digestOf('--seed', '1');
  assert.match(once ?? '', /^[0-9a-f]{8}$/);
  assert.equal(digestOf('--seed', '1'), once);
  assert.notEqual(digestOf('--seed', '12'), once);
});
