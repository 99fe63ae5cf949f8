/** The soak itself, short: real processes, kill -9 and reloads among the faults, nothing lost, twice or bounced. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { repositoryRoot } from '../support/relay-process.ts';

function run(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [join(repositoryRoot, 'build/test/soak/main.js'), ...args]);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, stdout, stderr })));
}

test(
  'half a minute of faults over real sockets: every figure is told, nothing is lost, twice, bounced or leaked',
  leakless(async () => {
    const { code, stdout, stderr } = await run('--minutes', '0.5', '--rate', '20', '--seed', '3');
    assert.equal(code, 0, `${stdout}\n${stderr}`);
    assert.match(
      stdout,
      /^sent \d+, acknowledged [1-9]\d*, deferred \d+, lost 0, twice 0, bounced 0, unknown \d+, unanswered 0, waiting 0, /m,
    );
    assert.match(stdout, /^before and after: \d+ and \d+ MiB, \d+ and \d+ descriptors$/m);
  }),
);

test('says how it is used, and what is wrong with how it was called', async () => {
  const help = await run('--help');
  assert.deepEqual([help.code, help.stdout.includes('--minutes N')], [0, true]);
  for (const args of [['--minutes', 'x'], ['--rate', '0'], ['--seed', '-1'], ['--what']]) {
    const { code, stderr } = await run(...args);
    assert.deepEqual([code, stderr.trim().split('\n').length], [2, 1], stderr);
  }
});
