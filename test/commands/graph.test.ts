/** `check` and the running relay for an account that sends by Microsoft Graph. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { runCli, startCli } from '../support/run-cli.ts';
import { startSignInServer } from '../support/sign-in-server.ts';

const ANN = 'ann@example.com';
const BEN = 'ben@example.com';

async function setUp(defer: Defer, more: Record<string, unknown>) {
  const provider = await startProvider({ flavour: 'microsoft', users: [ANN], graph: {} });
  defer(() => provider.close());
  const directory = mkdtempSync(join(tmpdir(), 'graph-check-'));
  defer(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'accounts.json');
  writeFileSync(file, JSON.stringify([provider.entry(ANN, { transport: 'graph', ...more })]), {
    mode: 0o600,
  });
  const check = () =>
    runCli(['check', '--json', '--accounts', file], { env: { NODE_EXTRA_CA_CERTS: provider.caFile } });
  return { provider, check };
}

test(
  'check proves token and permission by a draft that is deleted; nothing is sent',
  leakless(async (_t, defer) => {
    const { provider, check } = await setUp(defer, {});
    const { code, stdout } = await check();
    assert.equal(code, 0, stdout);
    const [account] = JSON.parse(stdout).accounts;
    assert.deepEqual(
      account.steps.map((s: { stage: string; ok: boolean }) => [s.stage, s.ok]),
      [
        ['token', true],
        ['graph', true],
      ],
    );
    assert.match(account.steps[1].doubt, /recipients are not checked/);
    assert.deepEqual(provider.graph.drafts, []);
    assert.equal(provider.graph.delivered.length, 0);
    assert.equal(provider.smtp.connections, 0);
  }),
);

test(
  'check names the permission that is missing, and the price of Mail.Send alone',
  leakless(async (_t, defer) => {
    const missing = await setUp(defer, { scope: 'https://graph.microsoft.com/Mail.Send offline_access' });
    const refused = await missing.check();
    assert.equal(refused.code, 1);
    assert.match(refused.stdout, /Mail\.ReadWrite/);
    const alone = await setUp(defer, { graph_permissions: 'send' });
    const passed = await alone.check();
    assert.equal(passed.code, 0, passed.stdout);
    assert.match(passed.stdout, /stays unclear/);
    assert.equal(alone.provider.graph.requests.length, 0);
  }),
);

test(
  'check with smtp_then_graph: switched off is no failure where Graph works',
  leakless(async (_t, defer) => {
    const { provider, check } = await setUp(defer, { transport: 'smtp_then_graph' });
    provider.smtp.script(
      'AUTH',
      {},
      {
        reply:
          '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled [x]',
      },
    );
    const { code, stdout } = await check();
    assert.equal(code, 0, stdout);
    assert.match(stdout, /mail leaves by Graph/);
  }),
);

async function setUpSignIn(defer: Defer) {
  const provider = await startProvider({ flavour: 'microsoft', users: [ANN], graph: {} });
  defer(() => provider.close());
  const signIn = await startSignInServer(provider, ANN);
  defer(() => signIn.close());
  const { clientId = '', clientSecret = '' } = provider.token.account(ANN) ?? {};
  provider.add(BEN, { clientId, clientSecret });
  const directory = mkdtempSync(join(tmpdir(), 'graph-add-'));
  defer(() => rmSync(directory, { recursive: true }));
  const secret = join(directory, 'secret');
  writeFileSync(secret, `${clientSecret}\n`);
  const add = async (more: readonly string[], base = 'outlook', accounts: readonly object[] = []) => {
    const file = join(directory, `${randomUUID()}.json`);
    const sim = {
      extends: base,
      smtp: `starttls://localhost:${provider.smtp.port}`,
      token_url: signIn.tokenUrl,
      device_url: signIn.deviceUrl,
      authorize_url: signIn.authorizeUrl,
      graph_url: provider.graph.url,
    };
    writeFileSync(file, JSON.stringify({ providers: { sim }, accounts }), { mode: 0o600 });
    const args = ['account', 'add', ANN, '--provider', 'sim', '--accounts', file, '--admin-port', '1'];
    const client = ['--client-id', clientId, '--client-secret-file', secret];
    const run = startCli([...args, ...client, ...more], { env: { NODE_EXTRA_CA_CERTS: provider.caFile } });
    if (more.includes('browser')) {
      const [, url = ''] = await run.seen(/^ {2}(http\S+)$/m);
      await (await fetch(url)).text();
    }
    const { code, stderr } = await run.exited;
    return { code, stderr, entry: JSON.parse(readFileSync(file, 'utf8')).accounts[0] };
  };
  return { provider, signIn, add };
}

test(
  'account add --transport graph asks for the consent Graph needs and writes the transport',
  leakless(async (_t, defer) => {
    const { provider, signIn, add } = await setUpSignIn(defer);
    const graph = await add(['--transport', 'graph', '--sign-in', 'device']);
    assert.equal(graph.code, 0, graph.stderr);
    assert.equal(graph.entry.transport, 'graph');
    assert.match(graph.stderr, /ok\s+graph draft created/);
    assert.equal(
      signIn.deviceScopes[0],
      'https://graph.microsoft.com/Mail.ReadWrite https://graph.microsoft.com/Mail.Send offline_access',
    );
    const both = await add(['--transport', 'smtp_then_graph', '--sign-in', 'device']);
    assert.equal(both.code, 0, both.stderr);
    assert.match(signIn.deviceScopes[1] ?? '', /Mail\.Send .*SMTP\.Send/);
    assert.match(signIn.tokenRequests.at(-1)?.get('scope') ?? '', /^https:\/\/(outlook|graph)/);
    assert.equal(provider.graph.delivered.length + provider.submissions.length, 0);
  }),
);

test(
  'account add --replace asks for the permissions of the mailbox that the entry names',
  leakless(async (_t, defer) => {
    const { signIn, add } = await setUpSignIn(defer);
    const before = { email: ANN, provider: 'sim', user: BEN, transport: 'graph' };
    const { code, stderr, entry } = await add(
      ['--replace', '--no-verify', '--sign-in', 'device'],
      'outlook',
      [{ ...before, client_id: 'earlier', client_secret: 'earlier', refresh_token: 'earlier' }],
    );
    assert.equal(code, 0, stderr);
    assert.match(signIn.deviceScopes[0] ?? '', /Mail\.Send\.Shared/);
    assert.equal(entry.user, BEN);
  }),
);

const ALONE = ['--graph-permissions', 'send'];
const UNNAMED = { preferred_username: undefined };

for (const [what, { base, who = BEN, more = [], claims = {}, isKept = false }] of [
  ['another person, Mail.Send alone', { more: ALONE }],
  ['another person, in a mailbox that Graph knows as me', { base: 'outlook-personal' }],
  [
    'another person whose tenant calls that an address of hers',
    { more: ALONE, claims: { email: ANN, ...UNNAMED } },
  ],
  ['herself, but nobody says so', { who: ANN, more: ALONE, claims: UNNAMED }],
  ['herself, but to another client', { who: ANN, more: ALONE, claims: { aud: 'other' } }],
  ['herself', { who: ANN, base: 'outlook-personal', isKept: true }],
  [
    'herself, however it is spelt',
    { who: ANN, more: ALONE, claims: { preferred_username: 'Ann@Example.COM' }, isKept: true },
  ],
  ['the user of the account', { base: 'outlook-personal', more: ['--user', BEN], isKept: true }],
] as readonly [string, Case][])
  for (const way of ['device', 'browser'] as const)
    test(
      `a sign-in for Graph (${way}) is kept only of who the account is for: ${what}`,
      leakless(async (_t, defer) => {
        const { provider, signIn, add } = await setUpSignIn(defer);
        signIn.user = who;
        signIn.claims = claims;
        const { code, stderr, entry } = await add(['--transport', 'graph', '--sign-in', way, ...more], base);
        assert.equal(code, isKept ? 0 : 1, stderr);
        if (!isKept) assert.match(stderr, /failed graph signed in as .*\n.*another person/);
        assert.equal(entry?.refresh_token, isKept ? provider.token.account(who)?.refreshToken : undefined);
        assert.equal(provider.graph.delivered.length, 0);
      }),
    );

interface Case {
  /** Default `outlook`. */
  readonly base?: string;
  readonly who?: string;
  readonly more?: readonly string[];
  readonly claims?: Record<string, unknown>;
  readonly isKept?: boolean;
}

test(
  'where SMTP has shown whose grant it is nobody is asked for a name',
  leakless(async (_t, defer) => {
    const { signIn, add } = await setUpSignIn(defer);
    signIn.claims = UNNAMED;
    const { code, stderr } = await add(['--transport', 'smtp_then_graph', '--sign-in', 'device', ...ALONE]);
    assert.equal(code, 0, stderr);
  }),
);
