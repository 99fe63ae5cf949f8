import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('./main.js', import.meta.url));

function simulate(...args: string[]): { readonly code: number | null; readonly digest: string | undefined } {
  const { status, stdout } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
  return { code: status, digest: /^digest (\w+)$/m.exec(stdout)?.[1] };
}

test('equal seeds give equal runs, alone or after others', () => {
  const once = simulate('--seed', '1', '--runs', '2');
  assert.equal(once.code, 0);
  assert.deepEqual(simulate('--seed', '1', '--runs', '2'), once);
  assert.notEqual(simulate('--seed', '2').digest, once.digest);
});
