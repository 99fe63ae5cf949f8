/** What keeps a relay from starting is told in one line, with the cure, and exit code 2. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { startCli } from '../support/run-cli.ts';

const ENTRY = {
  email: 'ann@gmail.example',
  provider: 'gmail',
  client_id: 'c',
  client_secret: 's',
  refresh_token: 'r',
};

function stage(defer: Defer) {
  const directory = mkdtempSync(join(tmpdir(), 'start-'));
  defer(() => rmSync(directory, { recursive: true, force: true }));
  const accounts = join(directory, 'accounts.json');
  writeFileSync(accounts, JSON.stringify([ENTRY]), { mode: 0o600 });
  writeFileSync(join(directory, 'file'), '');
  const run = (args: readonly string[], env: Record<string, string> = {}) =>
    startCli(
      ['serve', '--accounts', accounts, '--no-precache', '--port', '0', '--admin-port', '0', ...args],
      {
        env,
        cwd: directory,
        input: '',
      },
    ).exited;
  return { directory, accounts, run };
}

test(
  'each thing that keeps a relay from starting: one line with what, why and cure; exit 2',
  leakless(async (_t, defer) => {
    const { directory, run } = stage(defer);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    defer(() => server.close());
    const { port } = server.address() as AddressInfo;
    mkdirSync(join(directory, 'sys'));
    const cases: readonly [readonly string[], RegExp][] = [
      [
        ['--port', `${port}`],
        new RegExp(`^cannot listen on 127\\.0\\.0\\.1:${port}: another program .* --port$`),
      ],
      [['--admin-port', `${port}`], new RegExp(`127\\.0\\.0\\.1:${port}: another program .* --admin-port$`)],
      [
        ['--admin-host', 'no.such.name.invalid', '--admin-token-file', 'token'],
        /no\.such\.name\.invalid.* --admin-host$/,
      ],
      [['--socket', 'no/such/socket'], /^cannot listen on .*no\/such\/socket: .* --socket$/],
      [
        ['--socket', 'accounts.json'],
        /^cannot listen on .*accounts\.json: .*no socket .*choose another path$/,
      ],
      [['--state-dir', 'file'], /^cannot use the state directory .*file: .*--state-dir\)$/],
      [['--state-dir', 'file/below'], /^cannot use the state directory .*below: .*--state-dir\)$/],
      [['--state-dir', '/sys/relay'], /^cannot use the state directory \/sys\/relay: .*--state-dir\)$/],
      [['--log-file', 'file/x.log'], /^cannot write the log file .*x\.log: .* --log-file/],
      [['--accounts', 'none.json'], /^cannot read none\.json|none\.json: no such file.*account add/],
      [['--tls', 'starttls', '--cert-file', 'no.pem', '--key-file', 'no.key'], /no\.pem/],
    ];
    writeFileSync(join(directory, 'token'), 'a-token-of-some-length', { mode: 0o600 });
    for (const [args, words] of cases) {
      const { code, stderr } = await run(args);
      const lines = stderr.trimEnd().split('\n');
      assert.deepEqual([code, lines.length], [2, 1], `${args.join(' ')}: ${stderr}`);
      assert.match(stderr.trimEnd(), words);
    }
    assert.match(readFileSync(join(directory, 'accounts.json'), 'utf8'), /ann@gmail\.example/);
  }),
);

test(
  'a UNIX socket has its mode from the start whatever the umask; one left behind by a killed relay is replaced, one in use is not',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['ann@gmail.example'] });
    defer(() => provider.close());
    const { directory, run } = stage(defer);
    const path = join(directory, 'relay.sock');
    const start = () =>
      startRelay({
        accounts: [provider.entry('ann@gmail.example')],
        caFile: provider.caFile,
        args: ['--listeners', JSON.stringify([{ port: 0 }, { path, path_mode: '600' }])],
      });
    const before = process.umask(0);
    const first = await start().finally(() => process.umask(before));
    defer(() => first.stop());
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const { code, stderr } = await run(['--socket', path]);
    assert.equal(code, 2);
    assert.match(stderr, /relay\.sock: another program listens there/);
    first.signal('SIGKILL');
    await first.exited;
    const second = await start();
    defer(() => second.stop());
    assert.equal(statSync(path).mode & 0o777, 0o600);
  }),
);
