/** `check` and the running relay for an account that sends by Microsoft Graph. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { runCli } from '../support/run-cli.ts';
import { startSignInServer } from '../support/sign-in-server.ts';

const ANN = 'ann@example.com';

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

test(
  'account add --transport graph asks for the consent Graph needs and writes the transport',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ flavour: 'microsoft', users: [ANN], graph: {} });
    defer(() => provider.close());
    const signIn = await startSignInServer(provider, ANN);
    defer(() => signIn.close());
    const directory = mkdtempSync(join(tmpdir(), 'graph-add-'));
    defer(() => rmSync(directory, { recursive: true }));
    const account = provider.token.account(ANN);
    writeFileSync(join(directory, 'secret'), `${account?.clientSecret}\n`);
    const sim = {
      extends: 'outlook',
      smtp: `starttls://localhost:${provider.smtp.port}`,
      token_url: signIn.tokenUrl,
      device_url: signIn.deviceUrl,
      graph_url: provider.graph.url,
    };
    const add = (transport: string) => {
      const file = join(directory, `${transport}.json`);
      writeFileSync(file, JSON.stringify({ providers: { sim }, accounts: [] }), { mode: 0o600 });
      const args = [
        'account',
        'add',
        ANN,
        '--provider',
        'sim',
        '--transport',
        transport,
        '--sign-in',
        'device',
      ];
      const client = [
        '--client-id',
        account?.clientId ?? '',
        '--client-secret-file',
        join(directory, 'secret'),
      ];
      const run = runCli([...args, ...client, '--accounts', file, '--admin-port', '1'], {
        env: { NODE_EXTRA_CA_CERTS: provider.caFile },
      });
      return run.then((r) => ({ ...r, entry: JSON.parse(readFileSync(file, 'utf8')).accounts[0] }));
    };
    const graph = await add('graph');
    assert.equal(graph.code, 0, graph.stderr);
    assert.equal(graph.entry.transport, 'graph');
    assert.match(graph.stderr, /ok\s+graph draft created/);
    assert.equal(
      signIn.deviceScopes[0],
      'https://graph.microsoft.com/Mail.ReadWrite https://graph.microsoft.com/Mail.Send offline_access',
    );
    const both = await add('smtp_then_graph');
    assert.equal(both.code, 0, both.stderr);
    assert.match(signIn.deviceScopes[1] ?? '', /Mail\.Send .*SMTP\.Send/);
    assert.match(signIn.tokenRequests.at(-1)?.get('scope') ?? '', /^https:\/\/(outlook|graph)/);
    assert.equal(provider.graph.delivered.length + provider.submissions.length, 0);
  }),
);
