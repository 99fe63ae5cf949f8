/** Accounts that send by Microsoft Graph: keys, clouds, scopes, and what cannot be. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAccounts } from '../../src/accounts/accounts-file.ts';

const person = {
  email: 'ann@example.org',
  provider: 'outlook',
  transport: 'graph',
  client_id: 'app',
  refresh_token: 'r',
};
const application = {
  email: 'ann@example.org',
  provider: 'outlook',
  transport: 'graph',
  grant: 'client_credentials',
  tenant: 'example.org',
  client_id: 'app',
  client_secret: 's',
};
const parse = (entry: object, providers = {}) =>
  parseAccounts(JSON.stringify({ providers, accounts: [entry] }), { env: {}, directory: '/' });

async function one(entry: object, providers = {}) {
  const parsed = await parse(entry, providers);
  assert.deepEqual(parsed.problems, []);
  const [loaded] = parsed.accounts;
  assert.ok(loaded);
  return loaded;
}

test('a person who sends by Graph: defaults, scopes, size', async () => {
  const { account, credential } = await one(person);
  assert.equal(account.transport, 'graph');
  assert.deepEqual(account.graph, {
    url: 'https://graph.microsoft.com/v1.0',
    mailbox: 'users/ann%40example.org',
    app: 'app',
    permissions: 'read_write',
    recipients: 'refuse',
    resource: 'https://graph.microsoft.com',
  });
  assert.equal(account.limits.maxBytes, 3_000_000);
  assert.equal(
    credential.scopes?.graph,
    'https://graph.microsoft.com/Mail.ReadWrite https://graph.microsoft.com/Mail.Send offline_access',
  );
  assert.deepEqual(credential.ahead, ['graph']);
});

test('no transport is smtp, and knows nothing of Graph', async () => {
  const { account, credential } = await one({ ...person, transport: undefined });
  assert.equal(account.transport, 'smtp');
  assert.equal(account.graph, undefined);
  assert.equal(credential.scopes?.graph, undefined);
});

test('fallback: both tokens from one grant, the size is that of SMTP', async () => {
  const { account, credential } = await one({
    ...person,
    transport: 'smtp_then_graph',
    scope: 'https://x/SMTP.Send',
  });
  assert.equal(account.limits.maxBytes, 157_286_400);
  assert.equal(credential.scope, 'https://x/SMTP.Send');
  assert.match(credential.scopes?.graph ?? '', /Mail\.Send/);
  assert.deepEqual(credential.ahead, ['smtp']);
});

test('scopes follow the permission, the mailbox and the grant', async () => {
  const graphScope = async (entry: object): Promise<string | undefined> =>
    (await one(entry)).credential.scopes?.graph;
  assert.equal(
    await graphScope({ ...person, graph_permissions: 'send' }),
    'https://graph.microsoft.com/Mail.Send offline_access',
  );
  assert.equal(
    await graphScope({ ...person, graph_permissions: 'send', user: 'shared@example.org' }),
    'https://graph.microsoft.com/Mail.Send.Shared offline_access',
  );
  assert.equal(await graphScope(application), 'https://graph.microsoft.com/.default');
  assert.equal(await graphScope({ ...person, scope: 'own' }), 'own');
});

test('national clouds: where one signs in decides which Graph it is', async () => {
  const at = async (token_url: string, more = {}) => await one({ ...application, token_url, ...more });
  const us = await at('https://login.microsoftonline.us/{tenant}/oauth2/v2.0/token');
  assert.equal(us.account.graph?.url, 'https://graph.microsoft.us/v1.0');
  assert.equal(us.credential.scopes?.graph, 'https://graph.microsoft.us/.default');
  const cn = await at('https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/token');
  assert.equal(cn.account.graph?.url, 'https://microsoftgraph.chinacloudapi.cn/v1.0');
  const dod = await at('https://login.microsoftonline.us/{tenant}/oauth2/v2.0/token', {
    graph_url: 'https://dod-graph.microsoft.us/v1.0/',
  });
  assert.equal(dod.account.graph?.url, 'https://dod-graph.microsoft.us/v1.0');
  assert.equal(dod.credential.scopes?.graph, 'https://dod-graph.microsoft.us/.default');
});

test('a personal account is "me"; a shared mailbox is named', async () => {
  const personal = await one({ ...person, provider: 'outlook-personal' });
  assert.equal(personal.account.graph?.mailbox, 'me');
  const shared = await one({ ...person, user: 'shared box@example.org' });
  assert.equal(shared.account.graph?.mailbox, 'users/shared%20box%40example.org');
});

const WRONG: readonly (readonly [string, object, string, RegExp])[] = [
  ['gmail', { provider: 'gmail' }, 'transport', /cannot be reached by Microsoft Graph/],
  ['unknown transport', { transport: 'ews' }, 'transport', /expected one of smtp, graph, smtp_then_graph/],
  ['unknown permission', { graph_permissions: 'all' }, 'graph_permissions', /expected one of/],
  [
    'key without transport',
    { transport: undefined, graph_recipients: 'rewrite' },
    'graph_recipients',
    /only with/,
  ],
  ['plain http', { graph_url: 'http://graph.example.org/v1.0' }, 'graph_url', /must be https/],
  ['a login', { graph_url: 'https://u:secret@graph.example.org/v1.0' }, 'graph_url', /no user:password@/],
  ['no address', { graph_url: 'https://' + '[' }, 'graph_url', /absolute https/],
];
for (const [name, keys, key, words] of WRONG)
  test(`refused: ${name}`, async () => {
    const { problems } = await parse({ ...person, ...keys });
    assert.deepEqual([problems[0]?.entry, problems[0]?.key], [0, key]);
    assert.match(problems[0]?.message ?? '', words);
  });

test('loopback may be http; a provider of one’s own may have a Graph', async () => {
  const { account } = await one({ ...person, graph_url: 'http://127.0.0.1:1/v1.0' });
  assert.equal(account.graph?.url, 'http://127.0.0.1:1/v1.0');
  const own = await one(
    { ...person, provider: 'mine' },
    { mine: { extends: 'outlook', graph_url: 'https://graph.example.org/v1.0' } },
  );
  assert.equal(own.account.graph?.url, 'https://graph.example.org/v1.0');
  assert.equal(own.account.graph?.resource, 'https://graph.microsoft.com');
});

test('High Volume Email is a provider of its own, for applications', async () => {
  const { account, credential } = await one({
    ...application,
    transport: undefined,
    provider: 'outlook-hve',
  });
  assert.equal(account.upstream.host, 'smtp-hve.office365.com');
  assert.equal(credential.scope, 'https://outlook.office365.com/.default');
  assert.ok(credential.safetyBufferMs > 10 * 60_000);
  const { problems } = await parse({ ...person, transport: undefined, provider: 'outlook-hve' });
  assert.match(problems[0]?.message ?? '', /has no refresh_token/);
});
