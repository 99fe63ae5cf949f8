/** What keeps a relay from starting is told in one line, with the cure, and exit code 2. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { issueCertificate } from '../support/certificate.ts';
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
  const check = (args: readonly string[]) =>
    startCli(['check', '--offline', '--accounts', accounts, '--port', '0', '--admin-port', '0', ...args], {
      cwd: directory,
      input: '',
    }).exited;
  return { directory, accounts, run, check };
}

test(
  'each thing that keeps a relay from starting: one line with what, why and cure; exit 2; check --offline says the same',
  leakless(async (_t, defer) => {
    const { directory, run, check } = stage(defer);
    // Says nothing to whoever comes.
    const server = createServer((socket) => defer(() => socket.destroy()));
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
      [['--log-file', '.'], /^cannot write the log file .*it is a directory: name the file in it/],
      [['--log-file', 'file/x.log'], /^cannot write the log file .*x\.log: .* --log-file/],
      [['--accounts', 'none.json'], /^cannot read none\.json|none\.json: no such file.*account add/],
      [
        ['--tls', 'starttls', '--cert-file', 'no.pem', '--key-file', 'no.key'],
        /^listener 127\.0\.0\.1:0: .*no\.pem: no such file \(--cert-file, --key-file\)$/,
      ],
      [
        ['--tls', 'starttls', '--cert-file', 'a.crt', '--key-file', 'b.key'],
        /a\.crt and .*b\.key are no usable/,
      ],
      [['--tls', 'starttls'], /starttls needs cert_file and key_file/],
      [['--port', '99999'], /^--port: /],
      [['--host', '0.0.0.0'], /0\.0\.0\.0/],
      [['--host', '192.0.2.1', '--allow', '192.0.2.0/24'], /192\.0\.2\.1.*not an address of this machine/],
      [['--allow', 'no-range'], /no-range/],
      [['--admin-host', '0.0.0.0'], /admin address 0\.0\.0\.0 is not loopback: set an admin token/],
      [['--store', 'file'], /the file store needs a state directory/],
      [['--state-key-file', 'token', '--state-dir', 'state', '--store', 'file'], /key/],
      [['--token-socket', 'x'.repeat(200)], /at most 10[37] octets.*choose a shorter path/],
      [['--socket', 'x'.repeat(200)], /at most 10[37] octets.*choose a shorter path/],
      [['--store', 'redis://u:hidden@host:port'], /^--store: expected redis:\/\/user:password@host:6379/],
      [['--token-socket', 'accounts.json'], /accounts\.json: something that is no socket has this name/],
      [['--token-socket', 'no/such/socket'], /no\/such\/socket: .*--token-socket$/],
      [['--config', 'fd.json'], /^cannot listen on fd 200: /],
      [['--config', 'wrong.json'], /wrong\.json:1 nonsense: unknown setting/],
      [['--accounts', 'file'], /^file|file: /],
    ];
    for (const name of ['a', 'b']) {
      const { certPem, keyPem } = issueCertificate();
      writeFileSync(join(directory, `${name}.crt`), certPem);
      writeFileSync(join(directory, `${name}.key`), keyPem, { mode: 0o600 });
    }
    writeFileSync(join(directory, 'wrong.json'), '{ "nonsense": 1 }');
    writeFileSync(join(directory, 'fd.json'), '{ "listeners": [{ "fd": 200, "allow": ["127.0.0.0/8"] }] }');
    writeFileSync(join(directory, 'token'), 'a-token', { mode: 0o600 });
    for (const [args, words] of cases) {
      const before = readdirSync(directory);
      const [{ code, stderr }, checked] = await Promise.all([run(args), check(args)]);
      const lines = stderr.trimEnd().split('\n');
      assert.deepEqual([code, lines.length], [2, 1], `${args.join(' ')}: ${stderr}`);
      assert.match(stderr.trimEnd(), words);
      assert.equal(checked.code, 2, `check ${args.join(' ')}: ${checked.stderr}`);
      assert.equal(checked.stderr.trimEnd().replace(/^error /, ''), lines[0], `check ${args.join(' ')}`);
      assert.deepEqual(readdirSync(directory), before, 'nothing is left behind');
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

test(
  'check --offline: all is well beside the relay that runs with these settings, and a directory that another one has is told',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['ann@gmail.example'] });
    defer(() => provider.close());
    const { directory, check, run } = stage(defer);
    const state = join(directory, 'state');
    const fresh = await check(['--state-dir', state, '--log-file', join(directory, 'log/relay.log')]);
    assert.deepEqual([fresh.code, fresh.stderr], [0, ''], 'as root or not, nothing is in the way');
    assert.deepEqual(readdirSync(directory).sort(), ['accounts.json', 'file'], 'and nothing was made');
    const socket = join(directory, 'token.sock');
    const relay = await startRelay({
      accounts: [provider.entry('ann@gmail.example')],
      caFile: provider.caFile,
      args: ['--state-dir', state, '--token-socket', socket],
    });
    defer(() => relay.stop());
    const same = ['--port', `${relay.smtpPort}`, '--state-dir', state, '--token-socket', socket];
    const beside = await check([...same, '--admin-port', `${relay.adminPort}`]);
    assert.equal(beside.code, 0, beside.stderr);
    assert.match(beside.stderr, /^warning a relay runs with these settings/);
    // Nobody answers at the other admin port: whoever has the addresses is somebody else.
    const other = await check(same);
    assert.equal(other.code, 2);
    for (const words of [
      /another program listens there .* --port/,
      /another path with --token-socket/,
      /is in use by another relay/,
    ])
      assert.match(other.stderr, words);
    const served = await run(['--state-dir', state]);
    assert.equal(served.code, 2);
    assert(other.stderr.includes(served.stderr.trim()), served.stderr);
    const { accounts } = await relay.admin<{ accounts: readonly { status: string }[] }>('/admin/accounts');
    assert.equal(accounts[0]?.status, 'ready', 'the relay was not disturbed');
  }),
);
