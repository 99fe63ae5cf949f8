import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { inspect } from 'node:util';
import {
  AccountsFileError,
  parseAccounts,
  readAccountsFile,
  readAccountsText,
} from '../../src/accounts/accounts-file.ts';
import { createAccountDirectory } from '../../src/accounts/directory.ts';
import { diffAccounts, missingAccounts } from '../../src/accounts/reload-diff.ts';
import { accountsJsonSchema, formatPlaceIn } from '../../src/accounts/schema.ts';
import { verifyPassword } from '../../src/accounts/scrypt.ts';

const directory = mkdtempSync(join(tmpdir(), 'accounts-'));
after(() => rmSync(directory, { recursive: true }));
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const PEM = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

const gmail = {
  email: 'Alice@Example.com',
  provider: 'gmail',
  client_id: 'cid',
  client_secret: 'csecret',
  refresh_token: 'rtoken',
};
const app = {
  email: 'app@example.org',
  provider: 'outlook',
  grant: 'client_credentials',
  tenant: 'example.org',
  client_id: 'cid',
  client_secret: 'csecret',
};
const service = {
  email: 'svc@example.com',
  provider: 'gmail',
  grant: 'jwt_bearer',
  client_email: 'x@y.iam',
  private_key: PEM,
};

const parse = (value: unknown, env: Record<string, string> = {}) =>
  parseAccounts(typeof value === 'string' ? value : JSON.stringify(value, null, 2), { env, directory });
const one = async (entry: object, env: Record<string, string> = {}) => {
  const parsed = await parse({ accounts: [entry] }, env);
  assert.deepEqual(parsed.problems, []);
  const [loaded] = parsed.accounts;
  assert(loaded !== undefined);
  return loaded;
};

test('a Gmail account needs four keys and takes the rest from its profile', async () => {
  const { account, credential } = await one(gmail);
  assert.equal(account.id, 'alice@example.com');
  assert.equal(account.user, 'Alice@Example.com');
  assert.deepEqual(account.senders, ['alice@example.com']);
  assert.deepEqual(account.upstream, { host: 'smtp.gmail.com', port: 587, tls: 'starttls' });
  assert.equal(account.limits.maxConnections, 5);
  assert.equal(account.limits.maxRecipients, 100);
  assert(credential.grant === 'refresh_token');
  assert.equal(credential.tokenUrl, 'https://oauth2.googleapis.com/token');
  assert.equal(credential.refreshToken.reveal(), 'rtoken');
  assert.equal(credential.clientSecret?.reveal(), 'csecret');
  assert.equal(credential.safetyBufferMs, 300_000);
});

test('a Microsoft public client has no secret; tenant and scope are filled in', async () => {
  const { account, credential } = await one({
    email: 'bob@example.org',
    provider: 'outlook',
    client_id: 'cid',
    refresh_token: 'r',
  });
  assert(credential.grant === 'refresh_token');
  assert.equal('clientSecret' in credential, false);
  assert.equal(credential.tokenUrl, 'https://login.microsoftonline.com/common/oauth2/v2.0/token');
  assert.equal(credential.scope, 'https://outlook.office.com/SMTP.Send offline_access');
  assert.equal(credential.safetyBufferMs, 600_000);
  assert.equal(account.limits.maxConnections, 3);
  assert.equal(account.limits.messagesPerMinute, 28);
});

test('Outlook.com signs in at the consumers tenant', async () => {
  const { credential, account } = await one({
    email: 'c@outlook.com',
    provider: 'outlook-personal',
    client_id: 'cid',
    refresh_token: 'r',
  });
  assert.match(credential.tokenUrl, /\/consumers\//);
  assert.equal(account.upstream.host, 'smtp-mail.outlook.com');
});

test('an application signs in with a secret at its own tenant', async () => {
  const { credential } = await one(app);
  assert(credential.grant === 'client_credentials');
  assert.equal(credential.scope, 'https://outlook.office365.com/.default');
  assert.equal(credential.tokenUrl, 'https://login.microsoftonline.com/example.org/oauth2/v2.0/token');
});

test('a service account acts for the user it is told to', async () => {
  const { credential } = await one({ ...service, user: 'boss@example.com' });
  assert(credential.grant === 'jwt_bearer');
  assert.equal(credential.subject, 'boss@example.com');
  assert.equal(credential.scope, 'https://mail.google.com/');
  writeFileSync(
    join(directory, 'key.json'),
    JSON.stringify({ client_email: 'f@g.iam', private_key: PEM, private_key_id: 'kid1' }),
  );
  const fromFile = await one({
    email: 'svc@example.com',
    provider: 'gmail',
    grant: 'jwt_bearer',
    service_account_file: 'key.json',
  });
  assert(fromFile.credential.grant === 'jwt_bearer');
  assert.equal(fromFile.credential.clientId, 'f@g.iam');
  assert.equal(fromFile.credential.privateKeyId, 'kid1');
  assert.equal(fromFile.credential.subject, 'svc@example.com');
});

test('keys of earlier tools are understood', async () => {
  const { account, credential } = await one({
    ...gmail,
    account_id: 'acc_1',
    oauth_endpoint: 'mail.example.net:465',
    oauth_token_url: 'https://login.example.net/token',
  });
  assert.equal(account.id, 'acc_1');
  assert.deepEqual(account.upstream, { host: 'mail.example.net', port: 465, tls: 'implicit' });
  assert.equal(credential.tokenUrl, 'https://login.example.net/token');
});

test('a bare array is a file too', async () => {
  const parsed = await parse([gmail, { ...gmail, email: 'x@y', clientid: 'typo' }]);
  assert.equal(parsed.accounts.length, 1);
  assert.deepEqual([parsed.problems[0]?.entry, parsed.problems[0]?.key], [1, 'clientid']);
});

test('secrets come by value, environment and file; one line break at the end is dropped', async () => {
  writeFileSync(join(directory, 'token'), 'from-file\n');
  const { credential } = await one(
    { ...gmail, client_secret: { env: 'CS' }, refresh_token: { file: 'token' } },
    { CS: 'from-env' },
  );
  assert(credential.grant === 'refresh_token');
  assert.equal(credential.clientSecret?.reveal(), 'from-env');
  assert.equal(credential.refreshToken.reveal(), 'from-file');
});

test('a client password is kept as a hash, by hash and by secret reference', async () => {
  const { account } = await one({ ...gmail, password: { env: 'PW' } }, { PW: 'open sesame' });
  assert.doesNotMatch(JSON.stringify(account), /sesame/);
  assert.equal(await verifyPassword(account.clientPassword?.hash ?? '', 'open sesame'), true);
  const again = await one({ ...gmail, password: account.clientPassword?.hash });
  assert.equal(again.account.clientPassword?.hash, account.clientPassword?.hash);
});

test('pacing is set per account and per provider; 0 lifts a rate', async () => {
  const parsed = await parse({
    providers: {
      mine: { smtp: 'smtps://m.example:465', token_url: 'https://t.example/', max_connections: 9 },
      us: { extends: 'outlook', smtp: 'starttls://smtp.office365.us' },
    },
    accounts: [
      { email: 'a@x', provider: 'mine', client_id: 'c', refresh_token: 'r', max_connections: 2 },
      { email: 'b@x', provider: 'us', client_id: 'c', refresh_token: 'r', messages_per_minute: 0 },
      { email: 'c@x', provider: 'mine', client_id: 'c', refresh_token: 'r', idle_timeout_ms: 30_000 },
    ],
  });
  assert.deepEqual(parsed.problems, []);
  const [a, b, c] = parsed.accounts.map((loaded) => loaded.account);
  assert.equal(a?.limits.maxConnections, 2);
  assert.deepEqual(b?.upstream, { host: 'smtp.office365.us', port: 587, tls: 'starttls' });
  assert.equal(b?.limits.messagesPerMinute, undefined);
  assert.equal(b?.limits.maxRecipients, 500);
  assert.equal(c?.limits.maxConnections, 9);
  assert.equal(c?.limits.idleMs, 30_000);
});

test('an access token may be brought along', async () => {
  for (const expires_at of ['2030-01-02T03:04:05Z', 1893553445, 1893553445000]) {
    const { credential } = await one({ ...gmail, access_token: 'at', expires_at });
    assert.equal(credential.initial?.accessToken.reveal(), 'at');
    assert.equal(credential.initial?.expiresAt, Date.UTC(2030, 0, 2, 3, 4, 5));
  }
});

const LEAK = 'S3cretValue';
for (const [name, entry, path, words] of [
  ['unknown key', { ...gmail, client_idd: LEAK }, 'client_idd', /unknown key/],
  ['missing e-mail', { provider: 'gmail' }, 'email', /is missing/],
  ['wrong type', { ...gmail, client_id: 7 }, 'client_id', /expected a text/],
  ['no address', { ...gmail, email: 'nobody' }, 'email', /e-mail address/],
  ['line break in the address', { ...gmail, email: 'a@b\r\nRCPT' }, 'email', /e-mail address/],
  ['unknown provider', { ...gmail, provider: 'gmial' }, 'provider', /gmail, outlook/],
  ['unknown grant', { ...gmail, grant: LEAK }, 'grant', /refresh_token, client_credentials/],
  ['grant the provider lacks', { ...app, provider: 'gmail' }, 'grant', /gmail has no client_credentials/],
  ['id that steers', { ...gmail, account_id: '\u001b[31mred' }, 'account_id', /control characters/],
  ['id that no path has', { ...gmail, account_id: '..' }, 'account_id', /not \. or \.\./],
  ['no client id', { ...gmail, client_id: undefined }, 'client_id', /is missing/],
  ['no refresh token', { ...gmail, refresh_token: undefined }, 'refresh_token', /is missing/],
  ['empty refresh token', { ...gmail, refresh_token: '' }, 'refresh_token', /not be empty/],
  ['environment not set', { ...gmail, refresh_token: { env: 'NOPE' } }, 'refresh_token', /NOPE is not set/],
  ['no such file', { ...gmail, refresh_token: { file: 'nope' } }, 'refresh_token', /no such file/],
  ['both forms of a secret', { ...gmail, refresh_token: { env: 'A', file: 'B' } }, 'refresh_token', /"env"/],
  [
    'token endpoint with a login',
    { ...gmail, token_url: 'https://u:secret@id.example/' },
    'token_url',
    /no user:password@/,
  ],
  ['clear-text token endpoint', { ...gmail, token_url: 'http://evil.example/' }, 'token_url', /https/],
  ['no scheme in smtp', { ...gmail, smtp: 'smtp.example' }, 'smtp', /starttls:\/\/host:587/],
  ['port out of range', { ...gmail, smtp: 'smtps://h:70000' }, 'smtp', /smtps:\/\/host:465/],
  [
    'two endpoints',
    { ...gmail, smtp: 'smtps://h', oauth_endpoint: 'h:1' },
    'oauth_endpoint',
    /one of the two/,
  ],
  ['sender that is no address', { ...gmail, senders: ['x@y', 'zzz'] }, 'senders[1]', /\*@domain/],
  ['number out of range', { ...gmail, max_connections: 0 }, 'max_connections', /at least 1/],
  ['fraction', { ...gmail, max_connections: 1.5 }, 'max_connections', /whole number/],
  [
    'min over max',
    { ...gmail, min_connections: 6, max_connections: 2 },
    'min_connections',
    /must not exceed/,
  ],
  ['any tenant for an application', { ...app, tenant: 'common' }, 'tenant', /your own tenant/],
  ['application without secret', { ...app, client_secret: undefined }, 'client_secret', /certificate/],
  ['no key file', { ...service, private_key: undefined }, 'service_account_file', /key file/],
  ['broken key', { ...service, private_key: LEAK }, 'private_key', /PEM private key/],
  ['token without end', { ...gmail, access_token: LEAK }, 'expires_at', /is missing/],
  ['no time', { ...gmail, access_token: LEAK, expires_at: 'soon' }, 'expires_at', /2030/],
  ['damaged hash', { ...gmail, password: `scrypt$${LEAK}` }, 'password', /scrypt/],
  ['hash with a sign too many', { ...gmail, password: `$scrypt$${LEAK}` }, 'password', /hash-password/],
  ['hash of another program', { ...gmail, password: `$2b$10$${LEAK}` }, 'password', /hash-password/],
  ['hash in an environment variable', { ...gmail, password: { env: 'HASH' } }, 'password', /hash-password/],
  ['no source address', { ...gmail, local_address: 'eth0' }, 'local_address', /IP address/],
] as const) {
  test(`reported with its path, the rest is served: ${name}`, async () => {
    const parsed = await parse(
      { accounts: [{ ...gmail, email: 'first@example.com' }, entry] },
      { HASH: '{SSHA}x' },
    );
    assert.equal(parsed.accounts.length, 1);
    const problem = parsed.problems.find((p) => formatPlaceIn(p) === `accounts[1].${path}`);
    assert.match(problem?.message ?? `only ${JSON.stringify(parsed.problems)}`, words);
    assert((problem?.line ?? 0) > 8);
    assert.doesNotMatch(inspect(parsed, { depth: 9 }), new RegExp(`'${LEAK}'`));
    assert.doesNotMatch(JSON.stringify([parsed.problems, parsed.warnings]), new RegExp(LEAK));
  });
}

test('a wrong entry with an address stays known, so its mail can be deferred', async () => {
  const parsed = await parse([{ ...gmail, nope: 1, senders: ['Other@Example.com'], password: 'pw' }]);
  assert.equal(parsed.accounts.length, 0);
  const known = createAccountDirectory(parsed.unusable.map((u) => u.account));
  const account = known.candidates('other@example.com')[0]?.account;
  assert.equal(account?.email, 'Alice@Example.com');
  assert.equal(await verifyPassword(account?.clientPassword?.hash ?? '', 'pw'), false);
});

test('an entry that does not say whose it is stays in the list under its place', async () => {
  const parsed = await parse([{ ...gmail }, { ...gmail, email: undefined, emial: 'bob@example.com' }]);
  assert.equal(parsed.isComplete, false);
  assert.deepEqual(
    parsed.unusable.map((u) => [u.account.id, u.account.senders.length, u.isNamed]),
    [['accounts[1]', 1, false]],
  );
  assert.equal((await parse([{ ...gmail }])).isComplete, true);
});

test('an entry of which it is not known what it may send as hides senders', async () => {
  const rows: readonly [boolean, object][] = [
    [false, { ...gmail, email: 'bob@example.com' }],
    // Known, though it cannot be used: its own mail waits, nobody else's has to.
    [false, { ...gmail, email: 'bob@example.com', provider: 'nobody', senders: ['*@b.test'] }],
    [true, { ...gmail, email: 'bob at example.com' }],
    [true, { ...gmail, email: undefined, account_id: 'bob' }],
    [true, { ...gmail, email: 'bob@example.com', senders: 'boss@example.com' }],
    [true, { ...gmail, email: 'bob@example.com', senders: ['boss@example.com', 'x'] }],
    [true, { ...gmail, email: 'bob@example.com', sendres: ['boss@example.com'] }],
    [true, { ...gmail, email: 'bob@example.com', account_id: 'alice@example.com' }],
    [true, { ...gmail, user: 'bob@example.com', senders: ['bob@example.com'] }],
  ];
  for (const [expected, entry] of rows)
    assert.equal((await parse([{ ...gmail }, entry])).hidesSenders, expected, JSON.stringify(entry));
});

test('what is taken twice is reported; the first keeps it', async () => {
  const parsed = await parse([
    { ...gmail, account_id: 'one' },
    { ...gmail, email: 'ALICE@example.com', account_id: 'two' },
    { ...gmail, email: 'b@example.com', account_id: 'ONE' },
    { ...gmail, email: 'c@example.com', senders: ['alice@example.com'] },
  ]);
  assert.deepEqual(parsed.problems.map(formatPlaceIn), ['accounts[1].email', 'accounts[2].account_id']);
  // Senders may overlap: such accounts share the mail.
  assert.deepEqual(parsed.warnings, []);
});

test('a sender pattern that can never match is an error', async () => {
  const senders = [
    '*@',
    'a..b@x.test',
    '*@*',
    '*x@y.test',
    'a*@y.test',
    '*+*@y.test',
    '*@*.*.test',
    '+*@x.test',
    '"a>b"@x.test',
    'x',
  ];
  const parsed = await parse([
    { ...gmail, senders },
    {
      ...gmail,
      email: 'b@example.com',
      senders: ['*', '<>', '*@x.test', '*@*.x.test', 'a+*@x.test', 'A@x.test'],
    },
    { ...gmail, email: 'c@example.com', senders: ['*@X.test'], deny: ['*@x.TEST'] },
  ]);
  assert.deepEqual(parsed.problems.map(formatPlaceIn), [
    ...senders.map((_, i) => `accounts[0].senders[${i}]`),
    'accounts[2].senders[0]',
  ]);
  for (const { message } of parsed.problems) assert.match(message, /never match/);
});

test('a file of the earlier Python tool is served as it is, its own keys are named once', async () => {
  const parsed = await parse({
    accounts: ['1', '2'].map((n) => ({
      account_id: `gmail_${n}`,
      email: `sales${n}@gmail.com`,
      ip_address: '192.0.2.1',
      vmta_name: `vmta-gmail-${n}`,
      provider: 'gmail',
      client_id: 'c',
      client_secret: '',
      refresh_token: 'r',
      oauth_endpoint: 'smtp.gmail.com:587',
      oauth_token_url: 'https://oauth2.googleapis.com/token',
      max_concurrent_connections: 10,
      max_messages_per_hour: 10_000,
      warmup: { day: 1 },
    })),
  });
  assert.deepEqual(parsed.problems, []);
  assert.equal(parsed.accounts.length, 2);
  assert.deepEqual(
    parsed.warnings.map(formatPlaceIn).filter((path) => path.startsWith('accounts')),
    ['ip_address', 'vmta_name', 'max_concurrent_connections', 'max_messages_per_hour', 'warmup'].map(
      (key) => `accounts[0].${key}`,
    ),
  );
  const { message } = parsed.warnings.find(({ key }) => key === 'ip_address') ?? assert.fail();
  assert.equal(message, 'is a key of the earlier tool and ignored: local_address says it here');
  // Not this machine's: it would hold up all mail.
  assert.equal(parsed.accounts[0]?.account.localAddress, undefined);
  // A mistyped key of our own stays an error.
  assert.equal((await parse([{ ...gmail, refresh_tokne: 'x' }])).problems.length, 1);
});

test('a wrong provider costs its accounts only', async () => {
  const parsed = await parse({
    providers: { mine: { smtp: 'starttls://x' }, gmail: { smtp: 'starttls://x' }, no: 3 },
    accounts: [gmail, { ...gmail, email: 'm@x', provider: 'mine' }],
  });
  assert.deepEqual(parsed.problems.map(formatPlaceIn), [
    'providers.mine.token_url',
    'providers.gmail',
    'providers.no',
    'accounts[1].provider',
  ]);
  assert.equal(parsed.accounts.length, 1);
});

for (const [text, words] of [
  ['', /is empty: write/],
  [' \n', /is empty/],
  ['{"accounts": [],}', /line 1, column 16: .*remove the comma/],
  ['{"accounts": {}}', /expected \{ "accounts"/],
  ['7', /expected/],
] as const) {
  test(`the whole file is refused: ${JSON.stringify(text)}`, async () => {
    await assert.rejects(parse(text), (error) => {
      assert(error instanceof AccountsFileError);
      assert.match(error.message, words);
      return true;
    });
  });
}

test('files that cannot be read name the cure', async () => {
  await assert.rejects(readAccountsFile(directory), /is a directory: name the accounts file/);
  await assert.rejects(readAccountsFile(join(directory, 'none')), /no such file: create it with/);
  // Opening it would wait for a writer for ever.
  execFileSync('mkfifo', [join(directory, 'fifo')]);
  await assert.rejects(readAccountsFile(join(directory, 'fifo')), /is no file/);
  const utf16 = join(directory, 'utf16.json');
  writeFileSync(utf16, Buffer.from('\ufeff{"accounts":[]}', 'utf16le'));
  await assert.rejects(readAccountsFile(utf16), /UTF-16: save it as UTF-8/);
  const latin = join(directory, 'latin1.json');
  writeFileSync(latin, Buffer.from('["\xe9"]', 'latin1'));
  await assert.rejects(readAccountsFile(latin), /not UTF-8/);
});

test('a file open to others is warned about; a byte order mark and CRLF are fine', async () => {
  const path = join(directory, 'accounts.json');
  mkdirSync(directory, { recursive: true });
  writeFileSync(path, `\ufeff${JSON.stringify([gmail], null, 2).replaceAll('\n', '\r\n')}`);
  chmodSync(path, 0o640);
  const parsed = await readAccountsFile(path);
  assert.equal(parsed.accounts.length, 1);
  assert.match(parsed.warnings[0]?.message ?? '', /chmod 600/);
  chmodSync(path, 0o600);
  assert.deepEqual((await readAccountsFile(path)).warnings, []);
});

test('a reload tells added, changed and untouched apart, by their secrets too', async () => {
  const others = ['b@x', 'c@x', 'd@x', 'e@x'].map((email) => ({ ...gmail, email, password: 'pw' }));
  const [b, c, d, e] = others;
  const before = await parse([b, c, d, e]);
  const after = await parse([
    e,
    { ...c, refresh_token: 'another' },
    { ...d, max_connections: 1 },
    { ...gmail, email: 'new@x' },
  ]);
  const diff = await diffAccounts(before.accounts, after.accounts);
  assert.deepEqual(
    diff.added.map((l) => l.account.id),
    ['new@x'],
  );
  assert.deepEqual(
    diff.changed.map((l) => l.account.id),
    ['c@x', 'd@x'],
  );
  assert.deepEqual(diff.untouched, [before.accounts[3]]);
});

test('the example passes, and every key of the schema stands in it or is a pacing key', async () => {
  const text = readFileSync('accounts.example.json', 'utf8');
  const parsed = await parse(text, {
    SHOP_PRIVATE_KEY: PEM,
    BOB_REFRESH_TOKEN: 'r',
    BOB_RELAY_PASSWORD: 'p',
    APP_SECRET: 's',
    GRAPH_APP_SECRET: 's',
    HVE_APP_SECRET: 's',
    SMTP_PROXY: 'socks5://user:secret@proxy.example:1080',
  });
  assert.deepEqual([parsed.problems, parsed.warnings], [[], []]);
  assert.equal(parsed.accounts.length, 9);
});

test('the shipped JSON Schema is the generated one', () => {
  assert.deepEqual(
    JSON.parse(readFileSync('accounts.schema.json', 'utf8')),
    JSON.parse(JSON.stringify(accountsJsonSchema())),
    'write it anew: npm run schema',
  );
  const example = JSON.parse(readFileSync('accounts.example.json', 'utf8')) as { $schema: string };
  assert.equal(example.$schema, './accounts.schema.json');
});

test('keys that JavaScript knows are unknown keys like any other', async () => {
  const good = JSON.stringify(gmail).slice(0, -1);
  for (const [text, path] of [
    [`{"__proto__":{"x":1},"accounts":[${good}}]}`, '__proto__'],
    [`{"constructor":1,"accounts":[${good}}]}`, 'constructor'],
    [`{"accounts":[${good},"__proto__":null}]}`, 'accounts[0].__proto__'],
    [`[${good},"toString":1}]`, 'accounts[0].toString'],
    [`{"accounts":[${good},"password":{"env":"A","__proto__":1}}]}`, 'accounts[0].password.__proto__'],
    [`{"providers":{"p":{"__proto__":1,"smtp":"smtps://h"}},"accounts":[${good}}]}`, 'providers.p.__proto__'],
  ] as const)
    assert.deepEqual(
      (await parse(text)).problems.map((p) => [formatPlaceIn(p), p.message.replace(/:.*/, '')])[0],
      [path, 'unknown key'],
      text,
    );
});

test('a file that is written in place while it is read is the one or the other, and no account is lost between', async () => {
  const path = join(directory, 'in-place.json');
  const names = Array.from({ length: 40_000 }, (_, i) => `user${String(i).padStart(6, '0')}@example.com`);
  const textOf = (list: readonly string[]): string =>
    JSON.stringify(list.map((email) => ({ ...gmail, email })));
  const before = textOf(names);
  const after = textOf(names.slice(1));
  for (let turns = 0; turns < 12; turns++) {
    writeFileSync(path, before, { mode: 0o600 });
    utimesSync(path, 1, 1);
    const reading = readAccountsText(path);
    for (let turn = 0; turn < turns; turn++) await new Promise((resume) => setImmediate(resume));
    writeFileSync(path, after);
    const { text } = await reading;
    assert.ok(text === before || text === after, `mixed after ${turns} turns`);
  }
});

test('who is gone while an entry does not say whose it is stays known, at the second reading too', async () => {
  const whole = await parse([{ ...gmail }, { ...gmail, email: 'bob@example.com' }]);
  const broken = await parse([{ ...gmail }, { ...gmail, email: 'bob at example.com' }]);
  let known = new Map(whole.accounts.map(({ account }) => [account.id, account]));
  for (let reading = 1; reading <= 2; reading++) {
    const kept = missingAccounts(broken, known);
    assert.deepEqual(
      kept.map((u) => u.account.id),
      ['bob@example.com'],
    );
    const all = [...broken.accounts, ...broken.unusable, ...kept];
    known = new Map(all.map(({ account }) => [account.id, account]));
  }
});
