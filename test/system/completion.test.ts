// needs: zsh
/** The completion scripts in the shells they are for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runProgram } from '../support/program.ts';
import { repositoryRoot } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';

async function complete(...words: readonly string[]): Promise<readonly string[]> {
  const { stdout } = await runCli(['completion', 'bash']);
  const list = words.map((word) => `'${word}'`).join(' ');
  const script = `${stdout}
COMP_WORDS=(xoauth2-relay ${list}); COMP_CWORD=${words.length}; _xoauth2_relay; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const done = await runProgram('bash', ['-eu', '-c', script], { cwd: repositoryRoot });
  assert.equal(done.code, 0, done.output);
  return done.output.split('\n').filter((word) => word !== '');
}

test('bash completes commands, options, values and files', async () => {
  assert.deepEqual(await complete('ser'), ['serve']);
  assert.deepEqual((await complete('account', '')).toSorted(), [
    'add',
    'drain',
    'import',
    'invite',
    'list',
    'refresh',
    'remove',
    'resume',
    'show',
  ]);
  assert.deepEqual(await complete('serve', '--admin-p'), ['--admin-port']);
  assert.deepEqual(await complete('serve', '--log-level', 'w'), ['warn']);
  assert.deepEqual(await complete('check', '--accounts', 'accounts.ex'), ['accounts.example.json']);
  assert.deepEqual(await complete('completion', 'z'), ['zsh']);
});

test('zsh reads its script and registers the function', async () => {
  const { stdout } = await runCli(['completion', 'zsh']);
  const parsed = await runProgram('zsh', ['-n'], { input: stdout });
  assert.equal(parsed.code, 0, parsed.output);
  const loaded = await runProgram('zsh', [
    '-f',
    '-c',
    `autoload -Uz compinit && compinit -D -u\n${stdout}\nprint -r -- $_comps[xoauth2-relay]`,
  ]);
  assert.equal(loaded.output.trim(), '_xoauth2_relay');
});
