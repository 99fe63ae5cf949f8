/** The commands around a running relay and its accounts file, as a person runs them. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { accountSchemaKeys } from '../../src/accounts/schema.ts';
import { verifyPassword } from '../../src/accounts/scrypt.ts';
import { sendMail } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { repositoryRoot, startRelay } from '../support/relay-process.ts';
import { runCli, startCli } from '../support/run-cli.ts';
import { waitFor, within } from '../support/wait-for.ts';

function temporary(defer: Defer): string {
  const directory = mkdtempSync(join(tmpdir(), 'commands-'));
  defer(() => rmSync(directory, { recursive: true }));
  return directory;
}

test('hash-password reads a pipe and prints a hash of it', async () => {
  const { code, stdout } = await runCli(['hash-password'], { input: 'open sesame\n' });
  assert.equal(code, 0);
  assert.equal(await verifyPassword(stdout.trim(), 'open sesame'), true);
  assert.equal((await runCli(['hash-password'], { input: '' })).code, 2);
});

test(
  'a password typed at a terminal is not echoed, and two that differ are refused',
  leakless(async () => {
    const type = async (first: string, second: string): Promise<string> => {
      // util-linux gives the command a terminal of its own.
      const command = `${process.execPath} ${join(repositoryRoot, 'bin/xoauth2-relay.js')} hash-password`;
      const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
      let screen = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        screen += text;
      });
      const ended = new Promise((resolve) => child.once('close', resolve));
      for (const [question, answer] of [
        ['Password:', first],
        ['Again:', second],
      ] as const) {
        await waitFor(() => screen.includes(question), { what: question });
        child.stdin.write(`${answer}\n`);
      }
      await within(ended, 20_000, 'hash-password at a terminal');
      child.stdin.destroy();
      return screen;
    };
    const same = await type('hunter2-typed', 'hunter2-typed');
    const [hash = ''] = /scrypt\$\S+/.exec(same) ?? [];
    assert.equal(await verifyPassword(hash, 'hunter2-typed'), true);
    assert.doesNotMatch(same, /hunter2/);
    assert.match(await type('hunter2-typed', 'another'), /the two differ/);
  }),
);

test('wrong usage and wrong settings exit 2 and say what was expected', async () => {
  for (const [args, words] of [
    [['serv'], /unknown command/],
    [['serve', '--port', 'x'], /--port: expected a whole number/],
    [['serve', '--accounts', '/nowhere/a.json'], /no such file: create it with/],
    [['check', '--offline', '--colour', 'x'], /unknown option/],
    [
      ['serve', '--state-dir', '/tmp', '--state-key-file', '/etc/hostname'],
      /a state key is 32 random octets/,
    ],
    [['serve', '--accounts', 'accounts.example.json', '--admin-host', '0.0.0.0'], /set an admin token/],
    [['completion', 'fish'], /bash or zsh/],
    [['account', 'remove'], /missing required argument/],
  ] as const) {
    const { code, stderr } = await runCli(args);
    assert.equal(code, 2, args.join(' '));
    assert.match(stderr, words);
  }
});

test('every command explains itself with an example and its exit codes', async () => {
  const { stdout } = await runCli(['--help']);
  const names = [...stdout.matchAll(/^ {2}([a-z][a-z-]+)/gm)].map(([, name]) => name ?? '');
  assert(names.length > 10);
  for (const name of names) {
    const help = await runCli([name, '--help']);
    // A group only lists its commands.
    if (/\nCommands:\n/.test(help.stdout)) continue;
    assert.match(
      help.stdout,
      new RegExp(`Examples:\\n.*xoauth2-relay ${name}[\\s\\S]*Exit codes:\\n {2}0`),
      name,
    );
  }
});

test(
  'check walks the way of each account, in parallel, and sends nothing',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['good@x.org', 'revoked@x.org'], flavour: 'microsoft' });
    defer(() => provider.close());
    provider.token.revoke('revoked@x.org');
    provider.smtp.script(
      'MAIL',
      { line: /alias@x\.org/ },
      {
        reply: '550 5.7.60 SMTP; Client does not have permissions to send as this sender',
      },
    );
    const directory = temporary(defer);
    const file = join(directory, 'accounts.json');
    const good = provider.entry('good@x.org');
    const write = (accounts: readonly object[]): void =>
      writeFileSync(file, JSON.stringify(accounts), { mode: 0o600 });
    const env = { NODE_EXTRA_CA_CERTS: provider.caFile };

    write([good]);
    const well = await runCli(['check', '--accounts', file], { env });
    assert.equal(well.code, 0, well.stdout + well.stderr);
    assert.match(well.stdout, /1 of 1 accounts can send/);

    write([provider.entry('good@x.org', { senders: ['alias@x.org'] }), provider.entry('revoked@x.org')]);
    const failing = await runCli(['check', '--accounts', file], { env });
    assert.equal(failing.code, 1);
    assert.match(
      failing.stdout,
      /failed good@x\.org at sender: good@x\.org may not send as alias@x\.org[\s\S]*Add-RecipientPermission/,
    );
    assert.match(failing.stdout, /failed revoked@x\.org at token[\s\S]*cure:/);

    const asJson = await runCli(['check', 'good@x.org', '--json', '--accounts', file], { env });
    const { accounts } = JSON.parse(asJson.stdout) as {
      accounts: { id: string; steps: { stage: string; ok: boolean }[] }[];
    };
    assert.deepEqual(
      accounts.map((a) => a.steps.map((s) => s.stage)),
      [['token', 'dns', 'tcp', 'tls', 'ehlo', 'auth', 'sender', 'sender']],
    );

    write([good, { ...good, email: 'x@x.org', nonsense: 1 }]);
    const wrong = await runCli(['check', '--offline', '--accounts', file]);
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /accounts\[1\]\.nonsense unknown key/);
    assert.equal(provider.submissions.length, 0);
    const output = [well, failing, asJson, wrong].map((r) => r.stdout + r.stderr).join();
    for (const key of ['client_secret', 'refresh_token']) {
      const secret = good[key];
      if (typeof secret === 'string') assert(!output.includes(secret));
    }
  }),
);

test(
  'check tells what a server that knows OAUTHBEARER alone said, and who offers no login with a token',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    const file = join(directory, 'accounts.json');
    for (const [mechanisms, words] of [
      ['OAUTHBEARER', /at auth: [^\n]*\n[^\n]*454 4\.7\.0 Too many login attempts/],
      ['LOGIN PLAIN', /no XOAUTH2 or OAUTHBEARER offered, but LOGIN PLAIN/],
    ] as const) {
      const provider = await startProvider({ users: ['a@x.org'], flavour: 'gmail', mechanisms });
      defer(() => provider.close());
      provider.smtp.script(
        'AUTH',
        {},
        { reply: '454 4.7.0 Too many login attempts, please try again later.' },
      );
      writeFileSync(file, JSON.stringify([provider.entry('a@x.org')]), { mode: 0o600 });
      const { code, stdout } = await runCli(['check', '--accounts', file], {
        env: { NODE_EXTRA_CA_CERTS: provider.caFile },
      });
      assert.equal(code, 1);
      assert.match(stdout, words);
    }
  }),
);

test(
  'a cure names the account as commands take it, not the user it logs in as',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['ann@x.org'], flavour: 'gmail' });
    defer(() => provider.close());
    const times = Number.POSITIVE_INFINITY;
    provider.smtp.script('AUTH', { times }, { reply: '534 5.7.14 Please log in via your web browser' });
    const file = join(temporary(defer), 'accounts.json');
    const entry = { ...provider.entry('ann@x.org'), email: 'desk@x.org', user: 'ann@x.org', account_id: 'd' };
    writeFileSync(file, JSON.stringify([entry]), { mode: 0o600 });
    for (const args of [['check'], ['send', 'to@y.org', '--direct', 'd']]) {
      const env = { NODE_EXTRA_CA_CERTS: provider.caFile };
      const { code, stdout, stderr } = await runCli([...args, '--accounts', file], { env });
      assert.equal(code, 1);
      assert.match(
        `${stdout}${stderr}`,
        /account invite desk@x\.org\), or xoauth2-relay account add desk@x\.org /,
      );
    }
  }),
);

test(
  'check keeps a rotated refresh token where the relay keeps it',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['a@x.org'], flavour: 'microsoft' });
    defer(() => provider.close());
    provider.token.rotation = 'revoke-old';
    provider.token.expiresInS = 3;
    const directory = temporary(defer);
    const file = join(directory, 'accounts.json');
    writeFileSync(file, JSON.stringify([provider.entry('a@x.org')]), { mode: 0o600 });
    const args = ['check', '--accounts', file, '--state-dir', join(directory, 'state')];
    mkdirSync(join(directory, 'state'), { mode: 0o700 });
    const env = { NODE_EXTRA_CA_CERTS: provider.caFile };
    for (const refreshes of [1, 2]) {
      const { code, stdout } = await runCli(args, { env });
      assert.equal(code, 0, stdout);
      assert.equal(provider.token.count('a@x.org'), refreshes);
      const ended = Date.now() + 3_000;
      await waitFor(() => Date.now() > ended, { what: 'end of the access token' });
    }
  }),
);

test(
  'account list, import and remove',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    const file = join(directory, 'accounts.json');
    const old = join(directory, 'old.json');
    writeFileSync(
      old,
      JSON.stringify({
        accounts: [
          {
            account_id: 'acc_001',
            email: 'a@x.org',
            ip_address: '127.0.0.2',
            vmta_name: 'vmta-1',
            provider: 'Outlook',
            client_id: 'cid',
            client_secret: '',
            refresh_token: 'planted-token',
            oauth_endpoint: 'smtp.office365.com:587',
            oauth_token_url: 'https://login.microsoftonline.com/common/oauth2/v2.0/token',
          },
          {
            email: 'b@gmail.com',
            client_id: 'c',
            client_secret: 's',
            refresh_token: 'planted-token',
            oauth_endpoint: 'smtp.gmail.com:587',
          },
          { email: 'broken@x.org', provider: 'gmail' },
        ],
      }),
    );
    const common = ['--accounts', file, '--admin-port', '1'];
    const dry = await runCli(['account', 'import', old, '--dry-run', ...common]);
    assert.match(dry.stdout, /2 of 3 accounts would be imported/);
    assert.throws(() => readFileSync(file));
    const done = await runCli(['account', 'import', old, ...common]);
    assert.equal(done.code, 1);
    assert.match(done.stderr, /vmta_name has no counterpart/);
    assert.match(done.stderr, /ip_address became local_address/);
    assert.match(done.stderr, /broken@x\.org: (?:client_id|refresh_token) is missing/);
    const list = await runCli(['account', 'list', '--json', '--accounts', file]);
    const { accounts } = JSON.parse(list.stdout) as { accounts: { id: string; provider: string }[] };
    assert.deepEqual(
      accounts.map((a) => [a.id, a.provider]),
      [
        ['acc_001', 'outlook'],
        ['b@gmail.com', 'gmail'],
      ],
    );
    const again = await runCli(['account', 'import', old, ...common]);
    assert.match(again.stdout, /0 of 3/);
    assert.equal((await runCli(['account', 'remove', 'nobody@x.org', ...common])).code, 2);
    assert.equal((await runCli(['account', 'remove', 'acc_001', ...common], { input: 'n\n' })).code, 1);
    assert.equal((await runCli(['account', 'remove', 'ACC_001', '--yes', ...common])).code, 0);
    assert.doesNotMatch(readFileSync(file, 'utf8'), /acc_001/);
    const output = [dry, done, list, again].map((r) => r.stdout + r.stderr).join();
    assert.doesNotMatch(output, /planted-token/);
  }),
);

test(
  'account import runs no program, neither of the file that it reads nor of the accounts that are there',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    const ran = join(directory, 'ran');
    const program = { command: [process.execPath, '-e', `fs.writeFileSync(${JSON.stringify(ran)}, '')`] };
    const entry = { provider: 'gmail', client_id: 'c', client_secret: 's', refresh_token: 'r' };
    const file = join(directory, 'accounts.json');
    const ours = { ...entry, email: 'ours@gmail.com', refresh_token: program };
    writeFileSync(file, JSON.stringify([ours]), { mode: 0o600 });
    const theirs = join(directory, 'theirs.json');
    writeFileSync(
      theirs,
      JSON.stringify([
        { ...entry, email: 'token@gmail.com', refresh_token: program },
        { ...entry, email: 'proxy@gmail.com', smtp_proxy: program },
        { ...entry, email: 'good@gmail.com' },
        { ...entry, email: 'OURS@gmail.com' },
      ]),
    );
    const run = (...words: readonly string[]) =>
      runCli(['account', 'import', theirs, ...words, '--accounts', file, '--admin-port', '1']);
    for (const words of [['--dry-run'], []]) {
      const { code, stdout, stderr } = await run(...words);
      assert.equal(code, 1, stderr);
      assert.match(stdout, /^1 of 4 accounts/);
      assert.match(stderr, /^token@gmail\.com: refresh_token is \{ "command": … \}.*not run.*yourself/m);
      assert.match(stderr, /^proxy@gmail\.com: smtp_proxy is \{ "command": … \}/m);
      assert.match(stderr, /^OURS@gmail\.com: is there already/m);
    }
    const emails = (JSON.parse(readFileSync(file, 'utf8')) as { email: string }[]).map(({ email }) => email);
    assert.deepEqual(emails, ['ours@gmail.com', 'good@gmail.com']);
    assert.throws(() => readFileSync(ran));
  }),
);

test(
  'send, status and reload speak to a running relay; send also to the provider itself',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['a@x.org'] });
    defer(() => provider.close());
    const relay = await startRelay({ accounts: [provider.entry('a@x.org')], caFile: provider.caFile });
    defer(() => relay.stop());
    const admin = ['--admin-port', String(relay.adminPort)];
    const through = await runCli([
      'send',
      'to@y.org',
      '--text',
      '.dots\n..',
      '--accounts',
      relay.accountsFile,
      '--port',
      String(relay.smtpPort),
    ]);
    assert.equal(through.code, 0, through.stderr);
    assert.match(through.stdout, /S: 250[\s\S]*accepted: 250/);
    const direct = await runCli(
      ['send', 'to@y.org', '--direct', 'a@x.org', '--accounts', relay.accountsFile],
      {
        env: { NODE_EXTRA_CA_CERTS: provider.caFile },
      },
    );
    assert.equal(direct.code, 0, direct.stdout + direct.stderr);
    assert.match(direct.stdout, /C: \(access token\)/);
    const [first] = await provider.received(2);
    assert.match(String(first?.body), /\r\n\.dots\r\n\.\.\r\n/);
    const refused = await runCli([
      'send',
      'to@y.org',
      '--from',
      'other@x.org',
      '--accounts',
      relay.accountsFile,
      '--port',
      String(relay.smtpPort),
    ]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /550 5\.7\.1/);

    const status = await runCli(['status', ...admin]);
    assert.equal(status.code, 0, status.stderr);
    assert.match(status.stdout, /a@x\.org\s+ready/);
    const shown = await runCli(['account', 'show', 'A@x.org', ...admin]);
    assert.equal(shown.code, 0, shown.stderr);
    assert.match(shown.stdout, /^status\s+ready$[\s\S]*^messages\s+1 relayed/m);
    const drained = await runCli(['account', 'drain', 'a@x.org', ...admin]);
    assert.deepEqual([drained.code, /status\s+drained/.test(drained.stdout)], [0, true], drained.stderr);
    assert.match((await runCli(['status', ...admin])).stdout, /a@x\.org\s+drained/);
    assert.equal((await sendMail(relay.smtpPort, { from: 'a@x.org' })).code, 451);
    assert.equal((await runCli(['account', 'resume', 'a@x.org', ...admin])).code, 0);
    assert.equal((await sendMail(relay.smtpPort, { from: 'a@x.org' })).code, 250);
    const fetches = provider.token.count('a@x.org');
    assert.equal((await runCli(['account', 'refresh', 'a@x.org', ...admin])).code, 0);
    assert.equal(provider.token.count('a@x.org'), fetches + 1);
    const unknown = await runCli(['account', 'drain', 'nobody@x.org', ...admin]);
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /has no account nobody@x\.org.*xoauth2-relay status/);

    relay.writeAccounts([provider.entry('a@x.org'), provider.entry('b@x.org')]);
    const reloaded = await runCli(['reload', ...admin]);
    assert.equal(reloaded.code, 0, reloaded.stderr);
    assert.match(reloaded.stdout, /added: 1 b@x\.org/);
    relay.writeAccounts('{ broken');
    assert.equal((await runCli(['reload', ...admin])).code, 1);
    const nobody = await runCli(['status', '--admin-port', '1']);
    assert.equal(nobody.code, 1);
    assert.match(nobody.stderr, /no relay answers at/);
  }),
);

test(
  'start runs in the background until stop; logs reads its file',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['a@x.org'] });
    defer(() => provider.close());
    const directory = temporary(defer);
    const file = join(directory, 'accounts.json');
    writeFileSync(file, JSON.stringify([provider.entry('a@x.org')]), { mode: 0o600 });
    const env = { NODE_EXTRA_CA_CERTS: provider.caFile };
    const place = join(directory, 'state');
    const state = ['--state-dir', place];
    const umask = process.umask(0);
    const started = await runCli(
      ['start', '--accounts', file, '--port', '0', '--admin-port', '0', ...state],
      { env },
    ).finally(() => process.umask(umask));
    assert.equal(started.code, 0, started.stderr);
    const told = JSON.parse(started.stdout) as Record<string, unknown>;
    assert.deepEqual([told.event, told.accounts, told.usable], ['started', 1, 1]);
    assert.match(String(told.log), /\.log$/);
    // Whatever the umask: nobody else reads what the relay makes, but for the log, which its group may.
    assert.equal(lstatSync(place).mode & 0o777, 0o700);
    for (const name of readdirSync(place)) {
      const facts = lstatSync(join(place, name));
      const wanted = facts.isDirectory() ? 0o700 : /^relay\.\d+\.log$/.test(name) ? 0o640 : 0o600;
      if (!facts.isSymbolicLink()) assert.equal(facts.mode & 0o777, wanted, name);
    }
    const twice = await runCli(['start', '--accounts', file, ...state], { env });
    assert.equal(twice.code, 1);
    assert.match(twice.stderr, /running already/);
    const follow = startCli(['logs', '--follow', ...state]);
    await follow.seen(/INFO.*ready/);
    assert.match(follow.stdout(), /^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/m);
    const none = await runCli(['logs', '--outcome', 'rejected', ...state]);
    assert.equal(none.code, 1);
    assert.match(none.stderr, /no line of that kind/);
    const stopped = await runCli(['stop', ...state]);
    assert.equal(stopped.code, 0, stopped.stderr);
    await follow.seen(/stopped/);
    follow.signal('SIGTERM');
    await follow.exited;
    const reads = (pid: string): boolean => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(join(place, 'relay.log'));
      } catch {
        return false;
      }
    };
    await waitFor(() => !readdirSync('/proc').some(reads), {
      timeoutMs: 3000,
      what: 'nobody reading the log',
    });
    assert.equal((await runCli(['stop', ...state])).code, 1);
    // A pid file left behind, its number another program's by now: this test's own.
    writeFileSync(join(place, 'relay.pid'), `${process.pid}\n`);
    assert.equal((await runCli(['stop', ...state])).code, 1);
    const failed = await runCli(['start', '--accounts', join(directory, 'none.json'), ...state], { env });
    assert.equal(failed.code, 2);
    assert.match(failed.stderr, /no such file/);
  }),
);

test('completion and manual name every command and option', async () => {
  const [bash, zsh, manual, help] = await Promise.all([
    runCli(['completion', 'bash']),
    runCli(['completion', 'zsh']),
    runCli(['manual']),
    runCli(['serve', '--help']),
  ]);
  const flags = [...help.stdout.matchAll(/^ {2}(--[a-z-]+)/gm)].map(([, flag]) => flag ?? '');
  assert(flags.length > 30);
  for (const flag of flags) {
    assert(bash.stdout.includes(flag), `bash: ${flag}`);
    assert(zsh.stdout.includes(flag), `zsh: ${flag}`);
  }
  assert.match(manual.stdout, /\.SS account add/);
  assert.match(manual.stdout, /XOAUTH2_RELAY_STATE_DIR/);
  assert.match(manual.stdout, /\.SH ENVIRONMENT[\s\S]*XOAUTH2_RELAY_ALIASES\naliases file/);
  for (const key of accountSchemaKeys)
    assert(manual.stdout.includes(`\n.B ${key.replaceAll('-', '\\-')}\n`), `${key} in the manual`);
  assert.match(manual.stdout, /\.SH REPLIES[\s\S]*451 4\.4\.2 delivery status unknown/);
});

test('--help says of every word what it is for', async () => {
  const { stdout } = await runCli(['--help']);
  const commands = stdout.slice(stdout.indexOf('Commands:')).split('\n').slice(1);
  assert.deepEqual(
    commands.filter((line) => /^ {2}\S/.test(line) && !/^ {2}\S.* {2,}\S/.test(line)),
    [],
  );
});

test('what does not fit on the disk of standard output is told, exit 1', {
  skip: !existsSync('/dev/full'),
}, () => {
  const bin = join(repositoryRoot, 'bin/xoauth2-relay.js');
  for (const command of ['schema', 'manual']) {
    const full = openSync('/dev/full', 'w');
    const { status, stderr } = spawnSync(process.execPath, [bin, command], {
      stdio: ['ignore', full, 'pipe'],
    });
    closeSync(full);
    assert.deepEqual([status, String(stderr)], [1, 'cannot write standard output: no space left\n']);
  }
});

test(
  'account list: what stands in an entry does not steer the terminal',
  leakless(async (_t, defer) => {
    const file = join(temporary(defer), 'accounts.json');
    writeFileSync(file, '[{ "email": "a@x.org", "account_id": "\\u001b[31mred" }]', { mode: 0o600 });
    const { stdout, stderr } = await runCli(['account', 'list', '--accounts', file]);
    assert.match(stdout, /^ \[31mred/m);
    assert.ok(!`${stdout}${stderr}`.includes('\u001b'));
  }),
);
