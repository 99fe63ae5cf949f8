/** Built-in providers: their hosts belong together, and the page of them is whole. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseAccounts } from '../../src/accounts/accounts-file.ts';
import { builtInProviders } from '../../src/accounts/providers.ts';
import { repositoryRoot } from '../support/relay-process.ts';

test('a national cloud is whole: SMTP, sign-in, tokens, scopes and Graph are its own', async () => {
  for (const [provider, domains] of [
    [
      'outlook-us',
      /^(smtp\.office365\.us|login\.microsoftonline\.us|outlook\.office365\.us|graph\.microsoft\.us)$/,
    ],
    [
      'outlook-china',
      /^(smtp\.partner\.outlook\.cn|login\.partner\.microsoftonline\.cn|partner\.outlook\.cn|microsoftgraph\.chinacloudapi\.cn)$/,
    ],
  ] as const) {
    const text = JSON.stringify([
      {
        email: 'a@x.test',
        provider,
        client_id: 'c',
        refresh_token: 'r'.repeat(20),
        transport: 'smtp_then_graph',
      },
    ]);
    const { accounts, problems } = await parseAccounts(text, { env: {}, directory: '.' });
    assert.deepEqual(problems, []);
    const [{ account, credential } = assert.fail()] = accounts;
    const scopes = [credential.scope, ...Object.values(credential.scopes ?? {})].join(' ');
    const hosts = [
      account.upstream.host,
      new URL(credential.tokenUrl).hostname,
      new URL(account.graph?.url ?? '').hostname,
      ...scopes
        .split(' ')
        .filter((s) => s.startsWith('https:'))
        .map((s) => new URL(s).hostname),
    ];
    assert(hosts.length >= 5);
    for (const host of hosts) assert.match(host, domains);
    const profile = builtInProviders.get(provider);
    for (const url of [profile?.authorizeUrl, profile?.deviceUrl])
      assert.match(new URL(url ?? '').hostname, domains);
  }
});

test('every built-in provider is listed in docs/accounts.md and asks over https', () => {
  const page = readFileSync(join(repositoryRoot, 'docs/accounts.md'), 'utf8');
  for (const { name, smtp, tokenUrl, authorizeUrl } of builtInProviders.values()) {
    assert(page.includes(`\`${name}\``), name);
    assert(page.includes(`\`${smtp.host}:${smtp.port}\``), smtp.host);
    for (const url of [tokenUrl, authorizeUrl ?? tokenUrl]) assert.match(url, /^https:\/\//);
  }
});

test('an IMAP token has the scope of its cloud and grant, of the entry where it names one, of nobody where none is known', async () => {
  const client = { client_id: 'c', refresh_token: 'r' };
  const app = { client_id: 'c', client_secret: 's', grant: 'client_credentials', tenant: 'example.org' };
  const custom = { smtp: 'starttls://mail.example.org:587', token_url: 'https://id.example.org/token' };
  const imapScope = async (entry: object, providers = {}): Promise<string | undefined> => {
    const accounts = [{ email: 'a@example.org', ...entry }];
    const parsed = await parseAccounts(JSON.stringify({ providers, accounts }), { env: {}, directory: '/' });
    assert.deepEqual(parsed.problems, []);
    return parsed.accounts[0]?.credential.scopes?.imap;
  };
  const person = 'IMAP.AccessAsUser.All offline_access';
  assert.equal(await imapScope({ provider: 'outlook', ...client }), `https://outlook.office.com/${person}`);
  assert.equal(
    await imapScope({ provider: 'outlook-us', ...client }),
    `https://outlook.office365.us/${person}`,
  );
  assert.equal(await imapScope({ provider: 'outlook', ...app }), 'https://outlook.office365.com/.default');
  assert.equal(await imapScope({ provider: 'gmail', ...client }), '', 'that of the consent');
  assert.equal(await imapScope({ provider: 'yandex', ...client }), undefined);
  assert.equal(await imapScope({ provider: 'own', ...client }, { own: custom }), undefined);
  assert.equal(
    await imapScope({ provider: 'own', ...client }, { own: { ...custom, imap_scope: 'read' } }),
    'read',
  );
  assert.equal(await imapScope({ provider: 'own', ...client, imap_scope: 'mine' }, { own: custom }), 'mine');
});
