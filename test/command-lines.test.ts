/** What every script that a person starts does with `--help` and with what it does not know. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { repositoryRoot } from './support/relay-process.ts';

const SCRIPTS = {
  test: 'test/run.mjs',
  demo: 'test/demo/start.mjs',
  sim: 'build/test/sim/main.js',
  soak: 'build/test/soak/main.js',
  bench: 'build/test/bench/bench.js',
  performance: 'scripts/performance.mjs',
  package: 'scripts/package.mjs',
  dependencies: 'scripts/dependencies.mjs',
  diagram: 'scripts/diagram.mjs',
  screenshot: 'scripts/screenshot.mjs',
  troubleshooting: 'scripts/pages.mjs troubleshooting',
  replies: 'scripts/pages.mjs replies',
  schema: 'scripts/pages.mjs schema',
};

function run(script: string, ...args: readonly string[]) {
  const words = [...script.split(' '), ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, words, {
    encoding: 'utf8',
    cwd: repositoryRoot,
  });
  return { status, stdout, stderr };
}

describe('a script', () => {
  for (const [name, script] of Object.entries(SCRIPTS))
    it(`${name} prints its help, and refuses in one line what it does not know`, () => {
      const help = run(script, '--help');
      assert.deepEqual([help.status, help.stderr], [0, '']);
      assert.match(help.stdout, new RegExp(`^npm (?:run )?${name}\\b.*\\n\\n`));
      assert.deepEqual(run(script, '--hlep'), {
        status: 2,
        stdout: '',
        stderr: `Unknown option '--hlep': see npm run ${name} -- --help\n`,
      });
    });
});

it('the simulation and the soak refuse what would run nothing, or for ever', () => {
  for (const args of [
    ['sim', '--runs', 'ten'],
    ['sim', '--seed', '-1'],
    ['sim', '--seconds', ''],
    ['sim', '--stores', 'memory,disk'],
    ['sim', '--focus', 'everything'],
    ['soak', '--minutes', '0'],
    ['soak', 'twice'],
  ] as const) {
    const [name, ...rest] = args;
    const { status, stdout, stderr } = run(SCRIPTS[name], ...rest);
    assert.deepEqual([status, stdout, stderr.split('\n').length], [2, '', 2], `${args.join(' ')}: ${stderr}`);
  }
});
