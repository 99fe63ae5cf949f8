import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
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

/** A request no browser makes. */
async function strange(port: number, target: string): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  socket.end(`GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  socket.resume();
  await once(socket, 'close');
}

test(
  'with a browser on this machine: code, PKCE, state and nonce on a loopback redirect',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer, 'smtp openid email');
    const run = startCli([...setup.args, '--sign-in', 'browser'], { env: setup.env });
    // Whoever talks to the port meanwhile does not end the sign-in.
    const [, port = ''] = await run.seen(/127\.0\.0\.1(?::|%3A)(\d+)/);
    for (const target of ['//', '//[', '/\\', 'http://[', '*']) await strange(Number(port), target);
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
  'with a refresh token that the provider has replaced before the login failed, the new one is kept',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer);
    setup.provider.token.rotation = 'revoke-old';
    const given = setup.provider.token.account(USER)?.refreshToken ?? '';
    setup.provider.smtp.script('AUTH', {}, { reply: '535 5.7.8 not now' });
    const { code, stderr } = await runCli([...setup.args, '--sign-in', 'refresh-token'], {
      env: { ...setup.env, XOAUTH2_RELAY_REFRESH_TOKEN: given },
    });
    assert.equal(code, 1);
    assert.match(stderr, /failed auth[\s\S]*the new one is kept/);
    const now = setup.provider.token.account(USER)?.refreshToken;
    assert.notEqual(now, given);
    assert.equal(setup.entries()[0]?.refresh_token, now);
    noSecrets(setup, stderr);
  }),
);

test(
  'nobody is asked to sign in where the accounts file cannot be written',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer);
    const file = join(dirname(setup.file), 'none', 'accounts.json');
    const args = setup.args.map((word) => (word === setup.file ? file : word));
    const { code, stderr } = await runCli([...args, '--sign-in', 'refresh-token', '--provider', 'gmail'], {
      env: { ...setup.env, XOAUTH2_RELAY_REFRESH_TOKEN: 'given' },
    });
    assert.equal(code, 1);
    assert.match(stderr, /^cannot write .*accounts\.json: /);
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

test(
  'with --replace it is the given grant that is proved, whatever the entry was asked with before',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer);
    const { token, smtp } = setup.provider;
    const { clientId = '', clientSecret = '', refreshToken = '' } = token.account(USER) ?? {};
    const place = { smtp: `starttls://localhost:${smtp.port}`, token_url: token.url };
    const client = { client_id: clientId, client_secret: clientSecret };
    const { accessToken, expiresAt } = token.issue(USER);
    const access = { access_token: accessToken, expires_at: new Date(expiresAt).toISOString() };
    const secrets = { XOAUTH2_RELAY_CLIENT_SECRET: clientSecret };
    for (const entry of [
      { ...client, provider: 'gmail', refresh_token: 'old', ...access },
      { ...client, provider: 'outlook', tenant: 'example.com', grant: 'client_credentials', ...access },
      {
        ...client,
        provider: 'gmail',
        grant: 'jwt_bearer',
        service_account_file: '/gone.json',
        subject: USER,
      },
    ]) {
      const text = JSON.stringify([{ email: USER, ...place, max_connections: 2, ...entry }]);
      const entries = () => JSON.parse(readFileSync(setup.file, 'utf8')) as Record<string, unknown>[];
      const run = (given: string, ...words: readonly string[]) => {
        writeFileSync(setup.file, text, { mode: 0o600 });
        return runCli(
          ['account', 'add', USER, '--replace', '--sign-in', 'refresh-token', '--accounts', setup.file]
            .concat(['--admin-port', '1', '--client-id', clientId])
            .concat(words),
          { env: { ...setup.env, ...secrets, XOAUTH2_RELAY_REFRESH_TOKEN: given } },
        );
      };
      const wrong = await run('nonsense');
      assert.equal(wrong.code, 1, wrong.stderr);
      assert.match(wrong.stderr, /failed token/);
      assert.equal(readFileSync(setup.file, 'utf8'), text);
      for (const words of [[], ['--no-verify']]) {
        const right = await run(refreshToken, ...words);
        assert.equal(right.code, 0, right.stderr);
        const { tenant: _, ...kept } = entries()[0] ?? {};
        assert.deepEqual(kept, {
          email: USER,
          ...place,
          max_connections: 2,
          provider: entry.provider,
          ...client,
          refresh_token: refreshToken,
        });
      }
    }
  }),
);

test(
  'a running relay is told, and serves the new account at once',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [USER, 'first@example.com'] });
    defer(() => provider.close());
    const relay = await startRelay({
      accounts: [provider.entry('first@example.com')],
      caFile: provider.caFile,
    });
    defer(() => relay.stop());
    const account = provider.token.account(USER);
    const { code, stderr } = await runCli(
      [
        ...['account', 'add', USER, '--provider', 'gmail', '--sign-in', 'refresh-token'],
        ...['--client-id', account?.clientId ?? '', '--accounts', relay.accountsFile],
        ...['--smtp', `starttls://localhost:${provider.smtp.port}`, '--token-url', provider.token.url],
        ...['--admin-port', String(relay.adminPort)],
      ],
      {
        env: {
          NODE_EXTRA_CA_CERTS: provider.caFile,
          XOAUTH2_RELAY_CLIENT_SECRET: account?.clientSecret,
          XOAUTH2_RELAY_REFRESH_TOKEN: account?.refreshToken,
        },
      },
    );
    assert.equal(code, 0, stderr);
    assert.match(stderr, /reloaded: 1 added, 0 changed, 0 removed/);
    const sent = await runCli([
      'send',
      'to@y.org',
      '--from',
      USER,
      '--port',
      String(relay.smtpPort),
      '--accounts',
      relay.accountsFile,
    ]);
    assert.equal(sent.code, 0, sent.stdout + sent.stderr);
    assert.equal((await provider.received(1))[0]?.user, USER);
  }),
);

test(
  'with the key file of a service account, and as the application itself',
  leakless(async (_t, defer) => {
    const setup = await setUp(defer);
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const key = join(dirname(setup.file), 'key.json');
    const client_email = 'relay@project.iam.gserviceaccount.com';
    const private_key = privateKey.export({ type: 'pkcs8', format: 'pem' });
    writeFileSync(key, JSON.stringify({ client_email, private_key }));
    const publicKeyPem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
    setup.provider.token.add('svc@example.com', { clientId: client_email, publicKeyPem });
    const common = ['--provider', 'gmail', '--accounts', setup.file, '--admin-port', '1'];
    const place = [
      '--smtp',
      `starttls://localhost:${setup.provider.smtp.port}`,
      '--token-url',
      setup.provider.token.url,
    ];
    const service = await runCli(
      [
        'account',
        'add',
        'svc@example.com',
        '--sign-in',
        'service-account',
        '--service-account-file',
        key,
        ...common,
        ...place,
      ],
      { env: setup.env },
    );
    assert.equal(service.code, 0, service.stderr);
    assert.deepEqual(setup.entries()[0]?.grant, 'jwt_bearer');
    assert.doesNotMatch(readFileSync(setup.file, 'utf8'), /PRIVATE KEY/);

    const app = setup.provider.token.add('app@example.com', {
      clientId: 'app-1',
      clientSecret: 'app-secret',
    });
    const credentials = await runCli(
      [
        ...['account', 'add', 'app@example.com', '--provider', 'outlook', '--tenant', 'example.com'],
        ...['--sign-in', 'client-credentials', '--client-id', app.clientId, '--accounts', setup.file],
        ...['--admin-port', '1', ...place],
      ],
      { env: { ...setup.env, XOAUTH2_RELAY_CLIENT_SECRET: 'app-secret' } },
    );
    assert.equal(credentials.code, 0, credentials.stderr);
    assert.equal(setup.entries()[1]?.grant, 'client_credentials');
  }),
);
