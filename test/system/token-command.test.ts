// needs: git
/** `token` on the command line: tokens, git's credential helper, and what is said where there is none. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { runProgram } from '../support/program.ts';
import { startProvider } from '../support/provider.ts';
import { repositoryRoot, startRelay } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';
import { oauthError } from '../support/token-answers.ts';

const ALICE = 'alice@example.com';

async function setUp(defer: Defer, flavour: 'gmail' | 'microsoft' = 'gmail') {
  const provider = await startProvider({ flavour, users: [ALICE] });
  defer(() => provider.close());
  const directory = mkdtempSync(join(tmpdir(), 'token-command-'));
  defer(() => rmSync(directory, { recursive: true }));
  const socket = join(directory, 'token.sock');
  const env = { XOAUTH2_RELAY_TOKEN_SOCKET: socket };
  const start = () =>
    startRelay({
      accounts: [provider.entry(ALICE)],
      caFile: provider.caFile,
      args: ['--token-socket', socket],
    });
  const relay = await start();
  defer(() => relay.stop());
  return { provider, relay, socket, env, start, directory };
}

test(
  'token prints the token of the running relay, which logs each request without it',
  leakless(async (_t, defer) => {
    const { provider, relay, env, socket } = await setUp(defer);
    const { code, stdout, stderr } = await runCli(['token', ALICE], { env });
    assert.deepEqual([code, stderr], [0, '']);
    const token = stdout.trim();
    assert(provider.token.verify(ALICE, token), 'it is good at the provider');
    const asJson = await runCli([
      'token',
      'Alice@Example.COM',
      '--json',
      '--for',
      'imap',
      '--token-socket',
      socket,
    ]);
    const { access_token, expires_at, user } = JSON.parse(asJson.stdout) as Record<string, string>;
    assert.deepEqual([access_token, user], [token, ALICE]);
    assert(Date.parse(expires_at ?? '') > Date.now());
    const given = relay.lines.filter((line) => line.event === 'token_given');
    assert.deepEqual(
      given.map((line) => [line.account, line.resource]),
      [
        [ALICE, 'smtp'],
        [ALICE, 'imap'],
      ],
    );
    assert(!relay.output().includes(token));
    assert.equal(provider.token.count(), 1);
  }),
);

test(
  'what is wrong is said on standard error with the cure, and nothing on standard output',
  leakless(async (_t, defer) => {
    const { provider, relay, env, directory } = await setUp(defer, 'microsoft');
    const told = async (args: readonly string[], more: Record<string, string> = env): Promise<string> => {
      const { code, stdout, stderr } = await runCli(['token', ...args], { env: more });
      assert.equal(stdout, '');
      assert.equal(stderr.trim().split('\n').length, 1, stderr);
      return `${code} ${stderr}`;
    };
    assert.match(await told(['bob@example.com']), /^1 .*no account bob@example\.com.*status/);
    assert.match(await told([]), /^2 name one account/);
    assert.match(await told([ALICE], {}), /^2 no token socket is named: give --token-socket/);
    const nowhere = join(directory, 'nowhere.sock');
    assert.match(await told([ALICE, '--token-socket', nowhere]), /^1 no relay listens at .*--token-socket/);
    const file = join(directory, 'file');
    writeFileSync(file, '');
    assert.match(await told([ALICE, '--token-socket', file]), /^1 .*(no socket|any more)/);
    provider.token.always(
      oauthError(
        400,
        'invalid_grant',
        'AADSTS65001: The user or administrator has not consented to use the application.',
      ),
    );
    assert.match(
      await told([ALICE, '--for', 'imap']),
      /^1 the grant of alice@example\.com does not cover imap: .*AADSTS65001.*account add alice@example\.com --replace --imap/,
    );
    // Mail is not concerned.
    const { accounts } = await relay.admin<{ accounts: { status: string }[] }>('/admin/accounts');
    assert.deepEqual(
      accounts.map(({ status }) => status),
      ['ready'],
    );
    assert.match(
      await told([ALICE, '--for', 'graph']),
      /^1 .*does not cover graph.*--transport smtp_then_graph/,
    );
    await relay.stop();
    assert.match(await told([ALICE]), /^1 no relay listens at/);
  }),
);

test(
  'git gets its password for the account’s own servers and for no others, and another one after a refusal',
  leakless(async (_t, defer) => {
    const { provider, env, directory } = await setUp(defer);
    const git = (action: string, lines: readonly string[]) =>
      runProgram(
        'git',
        ['-c', 'credential.helper=', '-c', `credential.helper=!${bin} token --git`, 'credential', action],
        {
          env: {
            ...process.env,
            ...env,
            HOME: directory,
            GIT_CONFIG_NOSYSTEM: '1',
            GIT_TERMINAL_PROMPT: '0',
            GIT_ASKPASS: 'true',
          },
          cwd: directory,
          input: `${lines.join('\n')}\n\n`,
        },
      );
    const bin = `${process.execPath} ${join(repositoryRoot, 'bin/xoauth2-relay.js')}`;
    const server = ['protocol=smtp', `host=localhost:${provider.smtp.port}`, `username=${ALICE}`];
    const filled = await git('fill', server);
    assert.equal(filled.code, 0, filled.output);
    const password = /^password=(.+)$/m.exec(filled.output)?.[1] ?? '';
    assert(provider.token.verify(ALICE, password), filled.output);

    assert.equal((await git('approve', [...server, `password=${password}`])).code, 0);
    assert.equal((await git('reject', [...server, `password=${password}`])).code, 0);
    const again = /^password=(.+)$/m.exec((await git('fill', server)).output)?.[1];
    assert.notEqual(again, password);
    assert.equal(provider.token.count(), 2);

    for (const [protocol, host] of [
      ['smtp', 'evil.example'],
      ['https', 'localhost'],
      ['https', 'github.com'],
    ]) {
      const { output } = await git('fill', [`protocol=${protocol}`, `host=${host}`, `username=${ALICE}`]);
      assert(!output.includes(again ?? '-') && !output.includes(password), `${protocol} ${host}: ${output}`);
    }
  }),
);

test(
  'a relay takes the place of one that was killed, and leaves a living one’s socket alone',
  leakless(async (_t, defer) => {
    const { relay, env, start, socket, provider } = await setUp(defer);
    await assert.rejects(
      start(),
      /another program listens there; stop it, or choose another path with --token-socket/,
    );
    assert.equal((await runCli(['token', ALICE], { env })).code, 0, 'the first one still serves');
    relay.signal('SIGKILL');
    await relay.exited;
    assert(existsSync(socket));
    const heir = await start();
    defer(() => heir.stop());
    assert.equal((await runCli(['token', ALICE], { env })).code, 0);
    await heir.stop();
    assert(!existsSync(socket), 'and takes it along when it ends');

    writeFileSync(socket, 'precious');
    await assert.rejects(start(), /no socket has this name/);
    rmSync(socket);
    const off = await startRelay({ accounts: [provider.entry(ALICE)], caFile: provider.caFile });
    defer(() => off.stop());
    assert(!existsSync(socket), 'off by default');
  }),
);

test(
  'nobody asks a socket that a third user made: it would hear a refused token and could answer its own',
  { skip: process.getuid?.() === 0 ? false : 'needs root, to be two users' },
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'token-command-'));
    defer(() => rmSync(directory, { recursive: true }));
    chmodSync(directory, 0o755);
    const path = join(directory, 'token.sock');
    let heard = '';
    const thief = createServer((socket) => {
      socket.on('data', (chunk) => {
        heard += chunk;
        socket.end('{"ok":false,"error":"thanks"}\n');
      });
    });
    await new Promise<void>((resolve) => thief.listen(path, resolve));
    defer(() => new Promise((resolve) => thief.close(resolve)));
    chmodSync(path, 0o666);
    chownSync(path, 65_533, 65_533);
    const child = spawn(
      process.execPath,
      [join(repositoryRoot, 'bin/xoauth2-relay.js'), 'token', '--git', 'erase', '--token-socket', path],
      { uid: 65_534, gid: 65_534, cwd: '/', stdio: ['pipe', 'pipe', 'pipe'] },
    );
    child.stdin.end(`protocol=smtp\nhost=smtp.gmail.com\nusername=${ALICE}\npassword=still-good\n`);
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
    assert.equal(heard, '');
    assert.equal(stdout, '');
    assert.match(stderr, /token\.sock belongs to another user \(uid 65533; this is uid 65534\)/);
  }),
);
