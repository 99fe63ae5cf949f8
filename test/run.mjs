/**
 * `npm test`, see `HELP`: prepares a fresh clone, builds, and runs the compiled tests under node's runner, whose exit
 * code and closing counts are this command's.
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readCommandLine } from '../scripts/command-line.mjs';
import {
  build,
  installNpmPackages,
  installSystemPackages,
  missingPrograms,
  needsOf,
  root,
} from './prepare.mjs';

/** A test that takes longer hangs. A file counts as one test too. */
const TEST_TIMEOUT_MS = 600_000;
/** Tests of the whole system wait more than they work. */
const CONCURRENCY = 5;

const HELP = `npm test -- [--all] [PART …]

Runs the tests whose path below test/ contains one of the parts, as in: npm test -- relay system/fleet
From a fresh clone it installs and builds first. A system test whose programs are missing is left out with a word.

  --all  fail where a system test would be left out

TEST_REPORTER names another of node's reporters. Exit 1 when a test fails or no path matches; 2 on wrong usage.
`;

const { values, words: wanted } = readCommandLine('test', HELP, { all: { type: 'boolean' } }, /^/);

const sources = readdirSync(join(root, 'test'), { recursive: true })
  .map(String)
  .filter((path) => path.endsWith('.test.ts'))
  .filter((path) => wanted.length === 0 || wanted.some((part) => path.includes(part)))
  .sort()
  // The longest are those of tokens and system: what is short fills the end.
  .reverse();
if (sources.length === 0) {
  console.error(`no test matches ${wanted.join(' ')}`);
  process.exit(1);
}

installNpmPackages();
const needed = new Map(sources.map((source) => [source, needsOf(join(root, 'test', source))]));
installSystemPackages([...needed.values()].flat());
build();

const leftOut = sources.filter((source) => missingPrograms(needed.get(source) ?? []).length > 0);
for (const source of leftOut) {
  const missing = missingPrograms(needed.get(source) ?? []);
  console.log(`left out: test/${source} (needs ${missing.join(', ')})`);
}
if (values.all === true && leftOut.length > 0) {
  console.error('system tests were left out');
  process.exit(1);
}

const files = sources
  .filter((source) => !leftOut.includes(source))
  .map((source) => join(root, 'build/test', source.replace(/\.ts$/, '.js')));
const runner = spawn(
  process.execPath,
  [
    '--test',
    `--test-concurrency=${CONCURRENCY}`,
    `--test-timeout=${TEST_TIMEOUT_MS}`,
    `--test-reporter=${process.env.TEST_REPORTER ?? 'spec'}`,
    ...files,
  ],
  { cwd: root, stdio: 'inherit' },
);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => runner.kill(signal));
runner.on('exit', (code) => {
  process.exitCode = code ?? 1;
});
