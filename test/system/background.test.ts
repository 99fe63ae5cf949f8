/** `start`, `stop` and what they leave in a directory: whatever stands there already, and whoever else starts. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { createProcesses } from '../../src/tokens/process-mark.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { repositoryRoot } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';

/** What `start` says. */
interface Told {
  readonly pid: number;
  readonly admin: { readonly port: number };
}

async function stage(defer: Defer) {
  const provider = await startProvider({ users: ['a@x.org'] });
  defer(() => provider.close());
  const directory = mkdtempSync(join(tmpdir(), 'background-'));
  defer(() => rmSync(directory, { recursive: true }));
  const accounts = join(directory, 'accounts.json');
  writeFileSync(accounts, JSON.stringify([provider.entry('a@x.org')]), { mode: 0o600 });
  const place = join(directory, 'state');
  mkdirSync(place, { mode: 0o700 });
  const state = ['--state-dir', place];
  const serving = ['--accounts', accounts, '--port', '0', '--admin-port', '0'];
  const startWith = (env: Record<string, string>, ...more: readonly string[]) =>
    runCli(['start', ...serving, ...state, ...more], {
      env: { NODE_EXTRA_CA_CERTS: provider.caFile, ...env },
    });
  const stop = () => runCli(['stop', ...state]);
  defer(stop);
  return {
    place,
    stop,
    start: (...more: readonly string[]) => startWith({}, ...more),
    startWith,
    status: (told: Told) => runCli(['status', ...state, '--admin-port', `${told.admin.port}`]),
  };
}

for (const level of ['warn', 'silent'])
  test(
    `start with --log-level ${level} hears that the relay is ready, though the log does not say so`,
    leakless(async (_t, defer) => {
      const { start, stop } = await stage(defer);
      const { code, stdout, stderr } = await start('--log-level', level, '--timeout-ms', '20000');
      assert.equal(code, 0, stderr);
      const told = JSON.parse(stdout) as { usable: number; listeners: readonly { port: number }[] };
      assert.equal(told.usable, 1);
      assert.ok((told.listeners[0]?.port ?? 0) > 0);
      assert.equal((await stop()).code, 0);
    }),
  );

test(
  'start hears that the relay is ready when its log rotates meanwhile',
  leakless(async (_t, defer) => {
    const { place, start, stop } = await stage(defer);
    writeFileSync(join(place, 'relay.1.log'), `${'x'.repeat(10 * 1_048_576 - 2)}\n`);
    const { code, stderr } = await start('--timeout-ms', '20000');
    assert.equal(code, 0, stderr);
    assert.ok(existsSync(join(place, 'relay.2.log')), 'it has rotated');
    assert.equal((await stop()).code, 0);
  }),
);

test(
  'what stands under the names of start is neither followed nor waited for nor replaced',
  leakless(async (_t, defer) => {
    const { place, start, stop } = await stage(defer);
    const victim = join(place, 'victim');
    const at = (name: string): string => join(place, name);
    const cases: readonly [string, RegExp, (path: string) => void][] = [
      ['relay.log.stderr', /relay\.log\.stderr: something .* remove it/, (path) => symlinkSync(victim, path)],
      ['relay.log.stderr', /something .* remove it/, (path) => void spawnSync('mkfifo', [path])],
      ['relay.log', /cannot write the log file .*something else/, (path) => writeFileSync(path, 'precious')],
      ['relay.log', /cannot write the log file .*something else/, (path) => symlinkSync(victim, path)],
      ['relay.pid', /relay\.pid: .*remove it.*--pid-file/, (path) => symlinkSync(victim, path)],
      ['relay.pid', /remove it/, (path) => writeFileSync(path, 'precious words')],
      ['relay.pid', /remove it/, (path) => void spawnSync('mkfifo', [path])],
      ['relay.pid.lock', /remove it/, (path) => symlinkSync(victim, path)],
    ];
    for (const [name, words, put] of cases) {
      writeFileSync(victim, 'precious');
      put(at(name));
      const before = lstatSync(at(name));
      const { code, stderr } = await start('--timeout-ms', '20000');
      assert.equal(code, 2, `${name}: ${stderr}`);
      assert.match(stderr, words);
      assert.equal(lstatSync(at(name)).ino, before.ino, name);
      assert.equal(readFileSync(victim, 'utf8'), 'precious');
      rmSync(at(name));
    }
    writeFileSync(at('current.log'), 'of somebody else');
    const started = await start();
    assert.equal(started.code, 0, started.stderr);
    assert.equal(readFileSync(at('current.log'), 'utf8'), 'of somebody else');
    assert.equal((await stop()).code, 0);
    assert.match(readFileSync(at('relay.log'), 'utf8'), /"event":"ready"/);
  }),
);

test(
  'a number left in the pid file is no relay, whatever its process is called; stop touches it not',
  leakless(async (_t, defer) => {
    const { place, start, stop, status } = await stage(defer);
    const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)', 'serve'], { stdio: 'ignore' });
    const ended = new Promise((resolve) => other.once('exit', resolve));
    defer(() => {
      other.kill('SIGKILL');
      return ended;
    });
    const pid = other.pid ?? 0;
    writeFileSync(join(place, 'relay.pid'), `${pid}\n`, { mode: 0o600 });
    const alone = await stop();
    assert.equal(alone.code, 1);
    assert.match(alone.stderr, new RegExp(`for certain.*process ${pid} .*kill ${pid}`));
    // The claim of one that was killed, its number given to another process since.
    const { own } = createProcesses();
    const mark = { pid, started: `${Number(own.started) - 1}`, place: own.place, begunAt: 1 };
    writeFileSync(join(place, 'relay.pid.lock'), `${JSON.stringify(mark)}\n`, { mode: 0o600 });
    assert.equal((await stop()).code, 1);
    const started = await start();
    assert.equal(started.code, 0, started.stderr);
    const told = JSON.parse(started.stdout) as Told;
    assert.notEqual(told.pid, pid);
    const shown = await status(told);
    assert.match(
      shown.stdout,
      new RegExp(`^http://127\\.0\\.0\\.1:${told.admin.port}, process ${told.pid}, up \\d+ min, \\d+ MiB\\n`),
    );
    assert.equal((await stop()).code, 0);
    assert.equal(other.exitCode ?? other.signalCode, null, 'it lives');
    for (const name of ['relay.pid', 'relay.pid.lock']) assert.ok(!existsSync(join(place, name)), name);
  }),
);

test(
  'of two starts at once one is told that the other runs, and stop finds the one that does',
  leakless(async (_t, defer) => {
    const { place, start, stop } = await stage(defer);
    const both = await Promise.all([start(), start()]);
    assert.deepEqual(both.map(({ code }) => code).sort(), [0, 1], both.map((run) => run.stderr).join('\n'));
    const [winner, loser] = both[0]?.code === 0 ? both : both.toReversed();
    const { pid } = JSON.parse(winner?.stdout ?? '') as { pid: number };
    assert.match(loser?.stderr ?? '', new RegExp(`running already: process ${pid} `));
    assert.equal(readFileSync(join(place, 'relay.pid'), 'utf8'), `${pid}\n`);
    const stopped = await stop();
    assert.equal(stopped.code, 0, stopped.stderr);
  }),
);

test(
  'start and logs keep to the log file of the environment',
  leakless(async (_t, defer) => {
    const { place, startWith, stop } = await stage(defer);
    const env = { XOAUTH2_RELAY_LOG_FILE: join(place, 'elsewhere', 'mine.log') };
    const started = await startWith(env);
    assert.equal(started.code, 0, started.stderr);
    assert.equal((JSON.parse(started.stdout) as { log: string }).log, env.XOAUTH2_RELAY_LOG_FILE);
    assert.equal((await stop()).code, 0);
    assert.match(readFileSync(env.XOAUTH2_RELAY_LOG_FILE, 'utf8'), /"event":"ready"/);
    const logs = await runCli(['logs', '--state-dir', place], { env });
    assert.match(logs.stdout, /listening/);
    assert.ok(!existsSync(join(place, 'relay.log')));
  }),
);

test(
  'start tells in one line where its directory cannot be made',
  leakless(async (_t, defer) => {
    const { place, start } = await stage(defer);
    writeFileSync(join(place, 'file'), '');
    const { code, stderr } = await start('--state-dir', join(place, 'file', 'state'));
    assert.equal(code, 2, stderr);
    assert.match(
      stderr,
      /^cannot make the directory .*file\/state: a part of the path is a file.*--state-dir.*\n$/,
    );
  }),
);

test(
  'who may not look into the directory of a relay is told so, not that none runs',
  leakless(async (_t, defer) => {
    const { place } = await stage(defer);
    for (const name of ['relay.pid.lock', 'relay.log']) writeFileSync(join(place, name), '', { mode: 0o600 });
    // Root may look everywhere.
    const isRoot = process.getuid?.() === 0;
    if (isRoot) chmodSync(dirname(place), 0o755);
    else chmodSync(place, 0);
    defer(() => chmodSync(place, 0o700));
    const other = isRoot ? { uid: 65_534, gid: 65_534 } : {};
    for (const [command, words] of [
      ['stop', /cannot tell whether a relay runs .*not permitted .*as its own user/],
      ['logs', /cannot read .*relay\.log: not permitted/],
    ] as const) {
      const bin = join(repositoryRoot, 'bin/xoauth2-relay.js');
      const ran = spawnSync(process.execPath, [bin, command, '--state-dir', place], { ...other, cwd: '/' });
      assert.equal(ran.status, 1, String(ran.stderr));
      assert.match(String(ran.stderr), words);
    }
  }),
);
