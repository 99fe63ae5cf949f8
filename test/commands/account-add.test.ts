import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { type CliRun, runCli, startCli } from '../support/run-cli.ts';
import { type SignInServer, startSignInServer } from '../support/sign-in-server.ts';

const USER = 'alice@example.com';

interface Setup {
  readonly provider: Provider;
  readonly signIn: SignInServer;
  readonly file: string;
  readonly env: Record<string, string>;
  readonly args: readonly string[];
  entries(): Record<string, unknown>[];
}

async function setUp(defer: Defer, scope = 'smtp offline_access'): Promise<Setup> {
  const provider = await startProvider({ users: [USER] });
  defer(() => provider.close());
  const signIn = await startSignInServer(provider, USER);
  defer(() => signIn.close());
  const directory = mkdtempSync(join(tmpdir(), 'account-add-'));
  defer(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'accounts.json');
  const sim = {
    smtp: `starttls://localhost:${provider.smtp.port}`,
    token_url: signIn.tokenUrl,
    authorize_url: signIn.authorizeUrl,
    device_url: signIn.deviceUrl,
    scope,
  };
  writeFileSync(file, `{\n\t"providers": ${JSON.stringify({ sim })},\n\t"accounts": []\n}\n`);
  const account = provider.token.account(USER);
  writeFileSync(join(directory, 'secret'), `${account?.clientSecret}\n`);
  return {
    provider,
    signIn,
    file,
    env: { NODE_EXTRA_CA_CERTS: provider.caFile },
    args: [
      'account',
      'add',
      USER,
      '--provider',
      'sim',
      '--accounts',
      file,
      '--admin-port',
      '1',
      '--client-id',
      account?.clientId ?? '',
      '--client-secret-file',
      join(directory, 'secret'),
    ],
    entries: () =>
      (JSON.parse(readFileSync(file, 'utf8')) as { accounts: Record<string, unknown>[] }).accounts,
  };
}

const noSecrets = ({ provider, signIn }: Setup, output: string): void => {
  const account = provider.token.account(USER);
  const planted = [
    account?.clientSecret,
    account?.refreshToken,
    ...signIn.tokenRequests.map((f) => f.get('code_verifier')),
  ];
  for (const secret of planted) if (secret) assert(!output.includes(secret), 'a secret on the screen');
};

test(
  'with a device code: waits as told, verifies without sending, writes 0600',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer);
    setup.signIn.devicePolls = ['authorization_pending'];
    const { code, stdout, stderr } = await runCli([...setup.args, '--sign-in', 'device'], { env: setup.env });
    assert.equal(code, 0, stderr);
    assert.match(stderr, /https:\/\/login\.example\/device[\s\S]*ABCD-1234/);
    assert.match(stderr, /ok\s+auth 235/);
    assert.match(stderr, /no running relay to reload/);
    const [entry] = setup.entries();
    assert.equal(entry?.refresh_token, setup.provider.token.account(USER)?.refreshToken);
    assert.equal(entry?.access_token, undefined);
    assert.equal(statSync(setup.file).mode & 0o777, 0o600);
    assert.equal(setup.provider.submissions.length, 0);
    assert.match(readFileSync(setup.file, 'utf8'), /^\{\n\t"providers"/);
    noSecrets(setup, stdout + stderr);
  }),
);

test(
  'a declined device sign-in writes nothing',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer);
    setup.signIn.devicePolls = ['authorization_declined'];
    const { code, stderr } = await runCli([...setup.args, '--sign-in', 'device'], { env: setup.env });
    assert.equal(code, 1);
    assert.match(stderr, /the sign-in was declined/);
    assert.deepEqual(setup.entries(), []);
  }),
);

/** What a browser does with the printed address; the redirect is followed or returned. */
async function browse(run: CliRun, follow: boolean): Promise<string> {
  const [, url = ''] = await run.seen(/^ {2}(http\S+)$/m);
  const response = await fetch(url, { redirect: follow ? 'follow' : 'manual' });
  if (follow) assert.match(await response.text(), /go back to the terminal/);
  return response.headers.get('location') ?? '';
}

test(
  'with a browser on this machine: code, PKCE, state and nonce on a loopback redirect',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer, 'smtp openid email');
    const run = startCli([...setup.args, '--sign-in', 'browser'], { env: setup.env });
    await browse(run, true);
    const { code, stdout, stderr } = await run.exited;
    assert.equal(code, 0, stderr);
    assert.equal(setup.entries().length, 1);
    assert.match(stderr, /ssh -L/);
    noSecrets(setup, stdout + stderr);
  }),
);

test(
  'with a browser elsewhere: the address it ended on is pasted',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer);
    const run = startCli([...setup.args, '--sign-in', 'browser'], { env: setup.env });
    run.write(`${await browse(run, false)}\n`);
    const { code, stderr } = await run.exited;
    assert.equal(code, 0, stderr);
    assert.equal(setup.entries().length, 1);
  }),
);

for (const [name, spoil, words] of [
  ['another state', (s: SignInServer) => (s.spoilState = true), /state/],
  ['another nonce', (s: SignInServer) => (s.claims = { nonce: 'another' }), /nonce/],
  [
    'another mailbox',
    (s: SignInServer) => (s.claims = { email: 'bob@example.com' }),
    /signed in as bob@example.com/,
  ],
  ['an ID token for somebody else', (s: SignInServer) => (s.claims = { aud: 'other' }), /JWT claim/],
] as const) {
  test(
    `a browser sign-in with ${name} is refused and writes nothing`,
    leakless(async (_t, defer) => {
      const setup = await setUp(defer, 'smtp openid email');
      spoil(setup.signIn);
      const run = startCli([...setup.args, '--sign-in', 'browser'], { env: setup.env });
      await browse(run, true);
      const { code, stderr } = await run.exited;
      assert.equal(code, 1);
      assert.match(stderr, words);
      assert.deepEqual(setup.entries(), []);
    }),
  );
}

test(
  'with a refresh token: verified first, the rotated one is kept',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer);
    setup.provider.token.rotation = 'revoke-old';
    const before = setup.provider.token.account(USER)?.refreshToken ?? '';
    const args = [...setup.args, '--sign-in', 'refresh-token'];
    const { code, stdout, stderr } = await runCli(args, {
      env: { ...setup.env, XOAUTH2_RELAY_REFRESH_TOKEN: before },
    });
    assert.equal(code, 0, stderr);
    const after = setup.provider.token.account(USER)?.refreshToken;
    assert.notEqual(after, before);
    assert.equal(setup.entries()[0]?.refresh_token, after);
    noSecrets(setup, stdout + stderr);
  }),
);

test(
  'an account that cannot log in is explained and not written; --force writes it',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer);
    const args = [...setup.args, '--sign-in', 'refresh-token'];
    const env = { ...setup.env, XOAUTH2_RELAY_REFRESH_TOKEN: 'wrong-refresh-token' };
    const refused = await runCli(args, { env });
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /failed token[\s\S]*cure: sign in again/);
    assert.deepEqual(setup.entries(), []);
    const forced = await runCli([...args, '--force'], { env });
    assert.equal(forced.code, 0, forced.stderr);
    assert.equal(setup.entries().length, 1);
    assert.doesNotMatch(refused.stderr + forced.stderr, /wrong-refresh-token/);
  }),
);

test(
  'an account that is there is signed in to again with --replace only; its other keys stay',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer);
    const args = [...setup.args, '--sign-in', 'device'];
    assert.equal((await runCli(args, { env: setup.env })).code, 0);
    const text = readFileSync(setup.file, 'utf8');
    writeFileSync(setup.file, text.replace('"provider"', '"max_connections":   2, "provider"'));
    const again = await runCli(args, { env: setup.env });
    assert.equal(again.code, 2);
    assert.match(again.stderr, /--replace/);
    const replaced = await runCli(
      [
        'account',
        'add',
        USER,
        '--replace',
        '--sign-in',
        'device',
        '--accounts',
        setup.file,
        '--admin-port',
        '1',
      ],
      { env: setup.env },
    );
    assert.equal(replaced.code, 0, replaced.stderr);
    assert.equal(setup.entries().length, 1);
    assert.match(readFileSync(setup.file, 'utf8'), /"max_connections": {3}2/);
  }),
);
