/** `account add` with a refresh token that the provider replaces when it is proved: the new one lasts, whatever comes. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { editAccounts, tryEditing } from '../../src/enrol/accounts-on-disk.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startCli } from '../support/run-cli.ts';
import { waitFor } from '../support/wait-for.ts';

const USER = 'alice@example.com';

async function setUp(defer: Defer) {
  const provider = await startProvider({ users: [USER] });
  defer(() => provider.close());
  provider.token.rotation = 'revoke-old';
  const account = provider.token.account(USER);
  const given = account?.refreshToken ?? '';
  const directory = mkdtempSync(join(tmpdir(), 'account-replaced-'));
  defer(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'accounts.json');
  writeFileSync(file, '{ "accounts": [] }\n', { mode: 0o600 });
  return {
    provider,
    directory,
    file,
    entry: () =>
      (JSON.parse(readFileSync(file, 'utf8')) as { accounts: Record<string, unknown>[] }).accounts[0],
    newest: () => provider.token.account(USER)?.refreshToken ?? '',
    isReplaced: () => provider.token.account(USER)?.refreshToken !== given,
    clientSecret: account?.clientSecret ?? '',
    /** `isSecretGiven`: in the environment. */
    add: (isSecretGiven: boolean, ...words: readonly string[]) =>
      startCli(
        ['account', 'add', USER, '--provider', 'gmail', '--sign-in', 'refresh-token', '--accounts', file]
          .concat(words)
          .concat(['--client-id', account?.clientId ?? '', '--token-url', provider.token.url])
          .concat(['--smtp', `starttls://localhost:${provider.smtp.port}`, '--admin-port', '1']),
        {
          input: '',
          env: {
            NODE_EXTRA_CA_CERTS: provider.caFile,
            ...(isSecretGiven && { XOAUTH2_RELAY_CLIENT_SECRET: account?.clientSecret }),
            XOAUTH2_RELAY_REFRESH_TOKEN: given,
          },
        },
      ),
  };
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const)
  test(
    `${signal} while the rest of the way is proved: the refresh token that came is in the accounts file`,
    leakless(async (_t, defer) => {
      const { provider, add, entry, newest, isReplaced } = await setUp(defer);
      provider.smtp.script('AUTH', {}, { delayMs: 20_000 });
      const run = add(true);
      await run.seen(/^ok +token/m);
      assert.equal(isReplaced(), true);
      run.signal(signal);
      assert.equal((await run.exited).code, null);
      assert.equal(entry()?.refresh_token, newest());
      assert.equal(entry()?.access_token, undefined);
    }),
  );

test(
  'a signal while the token endpoint is asked waits for what it answers',
  leakless(async (_t, defer) => {
    const { provider, add, entry, newest, isReplaced } = await setUp(defer);
    provider.token.delayMs = 500;
    const run = add(true);
    await waitFor(() => provider.token.count() === 1, { what: 'the request' });
    run.signal('SIGINT');
    assert.equal((await run.exited).code, null);
    assert.equal(isReplaced(), true);
    assert.equal(entry()?.refresh_token, newest());
  }),
);

test(
  'where the accounts file takes it no more, it is said in which file the newest refresh token is',
  leakless(async (_t, defer) => {
    const { provider, directory, file, add, newest, isReplaced } = await setUp(defer);
    provider.token.delayMs = 300;
    const run = add(true);
    await waitFor(() => provider.token.count() === 1, { what: 'the request' });
    const other = JSON.stringify({ accounts: [provider.entry(USER)] });
    writeFileSync(`${file}.editor`, other);
    renameSync(`${file}.editor`, file);
    const { code, stdout, stderr } = await run.exited;
    assert.equal(code, 1);
    assert.equal(isReplaced(), true);
    const [line = '', path = ''] =
      /^alice.* by somebody else meanwhile.*is in (\S+): give it with --refresh-token-file.*$/m.exec(
        stderr,
      ) ?? [];
    assert.equal(readFileSync(path, 'utf8'), `${newest()}\n`, stderr);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(stderr.split(line).length, 2, 'told more than once');
    assert.equal(readFileSync(file, 'utf8'), other);
    assert.equal(readdirSync(directory).length, 2);
    assert.ok(!`${stdout}${stderr}`.includes(newest()), 'a secret on the screen');
  }),
);

test(
  'a grant that is there stays until the one that is given is proved',
  leakless(async (_t, defer) => {
    const { provider, directory, file, add, entry, newest, isReplaced } = await setUp(defer);
    const before = JSON.stringify({ accounts: [provider.entry(USER, { refresh_token: 'another one' })] });
    writeFileSync(file, before, { mode: 0o600 });
    provider.smtp.script('AUTH', {}, { reply: '535 5.7.8 not now' });
    const { code, stdout, stderr } = await add(true, '--replace').exited;
    assert.equal(code, 1);
    assert.equal(isReplaced(), true);
    assert.equal(readFileSync(file, 'utf8'), before);
    const [, path = ''] =
      /failed auth[\s\S]*^alice@example\.com stays as it is.*is in (\S+): give it/m.exec(stderr) ?? [];
    assert.equal(readFileSync(path, 'utf8'), `${newest()}\n`, stderr);
    assert.ok(!`${stdout}${stderr}`.includes(newest()), 'a secret on the screen');
    // As it is told.
    const again = await add(true, '--replace', '--refresh-token-file', path).exited;
    assert.equal(again.code, 0, again.stderr);
    assert.equal(entry()?.refresh_token, newest());
    assert.deepEqual(readdirSync(directory).sort(), ['accounts.json', path.slice(directory.length + 1)]);
  }),
);

test('nobody is asked where a file could be made and the accounts file not be replaced by it', {
  skip: process.getuid?.() === 0 ? false : 'needs root',
}, async (t) => {
  const somebody = 65_534;
  const directory = mkdtempSync(join(tmpdir(), 'account-replaced-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'accounts.json');
  const ground = (owner: number, group: number): void => {
    rmSync(file, { force: true });
    writeFileSync(file, '{ "accounts": [] }\n', { mode: 0o660 });
    chmodSync(file, 0o660);
    chownSync(file, owner, group);
  };
  const attempt = async (): Promise<void> => {
    process.setegid?.(somebody);
    process.seteuid?.(somebody);
    try {
      await tryEditing(file);
    } finally {
      process.seteuid?.(0);
      process.setegid?.(0);
    }
  };
  chownSync(directory, somebody, somebody);
  ground(somebody, somebody);
  await attempt();
  for (const [owner, group] of [
    [somebody, somebody - 1],
    [0, somebody],
  ] as const) {
    ground(owner, group);
    await assert.rejects(attempt(), { name: 'OperatorError', message: /^cannot write .*not permitted/ });
  }
  assert.deepEqual(readdirSync(directory), ['accounts.json']);
});

test(
  'nobody is asked where the accounts file is mounted as a single file, as in a container: the cure is told first',
  leakless(async (t, defer) => {
    const { provider, directory, file, add } = await setUp(defer);
    try {
      execFileSync('mount', ['--bind', file, file], { stdio: 'pipe' });
    } catch {
      t.skip('needs the right to mount');
      return;
    }
    defer(() => execFileSync('umount', ['-l', file]));
    const { code, stderr } = await add(true).exited;
    assert.equal(code, 1);
    assert.match(stderr, /^cannot write .*: it is mounted as a single file.*: mount the directory/);
    assert.equal(provider.token.count(), 0);
    assert.deepEqual(readdirSync(directory), ['accounts.json']);
    // Whoever edits it hears the same.
    await assert.rejects(
      editAccounts(file, (text) => `${text} `),
      { message: /mount the directory/ },
    );
  }),
);

const SECRETS = {
  'a file': () => ({ file: 'secret' }),
  'a program': (directory: string) => ({ command: ['/bin/cat', join(directory, 'secret')] }),
  'the environment': () => ({ env: 'HOME' }),
  'a file that is missing': () => ({ file: 'nowhere' }),
};

for (const [place, sourceIn] of Object.entries(SECRETS))
  test(
    `a client secret that stands in ${place} serves for a new sign-in and stays there, or it is said before anybody signs in`,
    leakless(async (_t, defer) => {
      const { provider, directory, file, add, entry, newest, clientSecret } = await setUp(defer);
      const source = sourceIn(directory);
      writeFileSync(join(directory, 'secret'), `${clientSecret}\n`, { mode: 0o600 });
      const before = { ...provider.entry(USER), client_secret: source };
      writeFileSync(file, JSON.stringify({ accounts: [before] }), { mode: 0o600 });
      const { code, stderr } = await add(false, '--replace').exited;
      assert.deepEqual(entry()?.client_secret, source);
      if (place === 'a file' || place === 'a program') {
        assert.equal(code, 0, stderr);
        assert.equal(entry()?.refresh_token, newest());
      } else if (place === 'the environment') {
        // What stands in HOME is no client secret.
        assert.equal(code, 1, stderr);
        assert.match(stderr, /client_secret/);
      } else {
        assert.equal(code, 2, stderr);
        assert.match(stderr, /client_secret of the account: .*nowhere.*run this where it can be had/);
        assert.equal(provider.token.count(), 0);
        const given = await add(false, '--replace', '--client-secret-file', join(directory, 'secret')).exited;
        assert.equal(given.code, 0, given.stderr);
        assert.equal(entry()?.client_secret, clientSecret);
      }
    }),
  );

test(
  'an entry whose client secret is null is one without',
  leakless(async (_t, defer) => {
    const { provider, file, add } = await setUp(defer);
    const before = { ...provider.entry(USER), client_secret: null, ip_address: '' };
    writeFileSync(file, JSON.stringify({ accounts: [before] }), { mode: 0o600 });
    const { stderr } = await add(false, '--replace').exited;
    assert.doesNotMatch(stderr, /client_secret of the account/);
  }),
);

test(
  'the client secret of another client is not sent with the new one, and leaves the entry',
  leakless(async (_t, defer) => {
    const { provider, file, add, entry } = await setUp(defer);
    const before = { ...provider.entry(USER), client_id: 'another', client_secret: 'of another' };
    writeFileSync(file, JSON.stringify({ accounts: [before] }), { mode: 0o600 });
    await add(false, '--replace', '--force').exited;
    assert.equal(entry()?.client_secret, undefined);
    assert.ok(provider.token.requests.length > 0);
    for (const { form } of provider.token.requests) assert.notEqual(form.get('client_secret'), 'of another');
  }),
);

test(
  'where another account has taken the name of the new one it is said which is in its way',
  leakless(async (_t, defer) => {
    const { provider, file, add } = await setUp(defer);
    const other = { ...provider.entry(USER), email: 'other@example.com', account_id: USER };
    writeFileSync(file, JSON.stringify({ accounts: [other, provider.entry(USER)] }), { mode: 0o600 });
    const { code, stderr } = await add(false, '--replace').exited;
    assert.equal(code, 2, stderr);
    assert.match(stderr, /accounts\[1\].*taken/);
  }),
);
