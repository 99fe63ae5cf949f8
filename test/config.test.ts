import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, test } from 'node:test';
import { inspect } from 'node:util';
import { loadSettings, SettingsError, unknownVariables } from '../src/config.ts';
import { repositoryRoot } from './support/relay-process.ts';

const directory = mkdtempSync(join(tmpdir(), 'config-'));
after(() => rmSync(directory, { recursive: true }));
const config = (value: unknown): string => {
  const path = join(directory, 'config.json');
  writeFileSync(path, typeof value === 'string' ? value : JSON.stringify(value));
  return path;
};
const load = (flags: Record<string, unknown> = {}, env: Record<string, string> = {}) =>
  loadSettings({ flags, env });

test('defaults are those of the contract', async () => {
  const settings = await load();
  assert.equal(settings.accounts, resolve('accounts.json'));
  assert.deepEqual(
    settings.listeners.map((l) => [l.host, l.port, l.tls]),
    [['127.0.0.1', 2525, 'none']],
  );
  assert.deepEqual([settings.adminHost, settings.adminPort], ['127.0.0.1', 9090]);
  assert.deepEqual([settings.logLevel, settings.precache, settings.stateDir], ['info', true, undefined]);
});

test('flags go before environment, environment before file, file before default', async () => {
  const path = config({ port: 1001, admin_port: 1002, log_level: 'warn', host: '127.0.0.9' });
  const settings = await load(
    { config: path, port: '3001' },
    { XOAUTH2_RELAY_PORT: '2001', XOAUTH2_RELAY_ADMIN_PORT: '2002' },
  );
  assert.equal(settings.listeners[0]?.port, 3001);
  assert.equal(settings.adminPort, 2002);
  assert.equal(settings.logLevel, 'warn');
  assert.equal(settings.listeners[0]?.host, '127.0.0.9');
});

test('the environment may name the config file', async () => {
  const path = config({ log_level: 'error' });
  assert.equal((await load({}, { XOAUTH2_RELAY_CONFIG: path })).logLevel, 'error');
});

test('paths start where they are written', async () => {
  const path = config({ accounts: 'a.json', state_dir: 'state' });
  const settings = await load({ config: path });
  assert.equal(settings.accounts, join(directory, 'a.json'));
  assert.equal(settings.stateDir, join(directory, 'state'));
  assert.equal((await load({ config: path, accounts: 'b.json' })).accounts, resolve('b.json'));
});

test('pre-caching is switched off by flag and by either variable', async () => {
  assert.equal((await load({ precache: false })).precache, false);
  assert.equal((await load({}, { XOAUTH2_RELAY_PRECACHE: 'off' })).precache, false);
  assert.equal((await load({}, { XOAUTH2_RELAY_NO_PRECACHE: '1' })).precache, false);
});

test('secrets come by value, file and reference, and cannot be printed', async () => {
  writeFileSync(join(directory, 'key'), 'key-from-file\n');
  const path = config({ admin_token: { env: 'TOKEN' }, admin_read_token: { file: 'key' } });
  const settings = await load(
    { config: path, stateKeyFile: join(directory, 'key') },
    { TOKEN: 'token-from-env', XOAUTH2_RELAY_STORE: 'redis://:hunter2@localhost' },
  );
  assert.equal(settings.adminToken?.reveal(), 'token-from-env');
  assert.equal(settings.adminReadToken?.reveal(), 'key-from-file');
  assert.equal(settings.stateKey?.reveal(), 'key-from-file');
  assert.equal(settings.store?.reveal(), 'redis://:hunter2@localhost');
  assert.doesNotMatch(inspect(settings) + JSON.stringify(settings), /from-|hunter2/);
  const byVariable = await load({}, { XOAUTH2_RELAY_STATE_KEY_FILE: join(directory, 'key') });
  assert.equal(byVariable.stateKey?.reveal(), 'key-from-file');
});

test('several listeners, each completed by the settings of the same name', async () => {
  const path = config({
    received: true,
    max_sessions: 7,
    listeners: [
      { port: 25 },
      {
        host: '0.0.0.0',
        port: 587,
        tls: 'starttls',
        cert_file: 'c.pem',
        key_file: 'k.pem',
        allow: ['10.0.0.0/8'],
      },
      { path: 'relay.sock', path_mode: '600', lmtp: true },
    ],
  });
  const { listeners } = await load({ config: path });
  const [plain, tls, socket] = listeners;
  assert.deepEqual([plain?.host, plain?.port, plain?.received], ['127.0.0.1', 25, true]);
  assert.equal(tls?.certFile, join(directory, 'c.pem'));
  assert.deepEqual(tls?.allow, ['10.0.0.0/8']);
  assert.equal(socket?.path, join(directory, 'relay.sock'));
  assert.equal(socket?.pathMode, 0o600);
  assert.equal(socket?.limits.maxSessions, 7);
});

test('lists are separated by commas', async () => {
  const settings = await load(
    { allow: '10.0.0.0/8, ::1' },
    { XOAUTH2_RELAY_ALERT_COMMAND: '["mail","-s","a b"]' },
  );
  assert.deepEqual(settings.listeners[0]?.allow, ['10.0.0.0/8', '::1']);
  assert.deepEqual(settings.alertCommand, ['mail', '-s', 'a b']);
});

for (const [name, flags, env, file, source, words] of [
  ['no number', { port: 'smtp' }, {}, undefined, '--port', /whole number/],
  ['out of range', { port: '70000' }, {}, undefined, '--port', /65535/],
  ['unit', {}, { XOAUTH2_RELAY_MAX_HOLD_MS: '20s' }, undefined, 'XOAUTH2_RELAY_MAX_HOLD_MS', /without unit/],
  ['no level', {}, { XOAUTH2_RELAY_LOG_LEVEL: 'loud' }, undefined, 'XOAUTH2_RELAY_LOG_LEVEL', /debug/],
  [
    'no boolean',
    {},
    { XOAUTH2_RELAY_RECEIVED: 'maybe' },
    undefined,
    'XOAUTH2_RELAY_RECEIVED',
    /true or false/,
  ],
  ['unknown key', {}, {}, { prot: 1 }, 'FILE:1 prot', /unknown setting: remove/],
  ['wrong type', {}, {}, { port: '25x' }, 'FILE:1 port', /whole number/],
  ['key in a listener', {}, {}, { listeners: [{ prot: 1 }] }, 'FILE:1 listeners.0', /unknown key.*prot/],
  ['TLS without key', { tls: 'starttls' }, {}, undefined, 'tls', /cert_file and key_file/],
  [
    'no store',
    {},
    { XOAUTH2_RELAY_STORE: 'mysql://hunter2' },
    undefined,
    'XOAUTH2_RELAY_STORE',
    /memory, file, redis/,
  ],
  ...['redis://u:hunter2@h:port', 'redis://u:%hunter2@h', 'redis://u:hunter2@h/db', 'redis://:hunter2@'].map(
    (store) =>
      [
        'no Redis',
        {},
        { XOAUTH2_RELAY_STORE: store },
        undefined,
        'XOAUTH2_RELAY_STORE',
        /redis:\/\/user/,
      ] as const,
  ),
  ['no secret file', { adminTokenFile: '/nowhere' }, {}, undefined, '--admin-token-file', /no such file/],
  ['secret variable', {}, {}, { admin_token: { env: 'NOPE' } }, 'FILE:1 admin_token', /NOPE is not set/],
] as const) {
  test(`names source and expectation: ${name}`, async () => {
    const path = file === undefined ? undefined : config(file);
    await assert.rejects(
      load({ ...flags, ...(path === undefined ? {} : { config: path }) }, env),
      (error) => {
        assert(error instanceof SettingsError);
        assert.equal(error.problems.length, 1);
        assert.equal(error.problems[0]?.source, source.replace('FILE', path ?? ''));
        assert.match(error.message, words);
        assert.doesNotMatch(error.message, /hunter2/);
        return true;
      },
    );
  });
}

test('a mistake in the config file is told with its line', async () => {
  const path = join(directory, 'lines.json');
  writeFileSync(path, '{\n  "port": 25,\n\n  "log_level": "loud"\n}\n');
  await assert.rejects(load({ config: path }), (error) => {
    assert(error instanceof SettingsError);
    assert.equal(error.problems[0]?.source, `${path}:4 log_level`);
    return true;
  });
});

test('all that is wrong is told at once', async () => {
  await assert.rejects(load({ port: 'x', adminPort: 'y' }), (error) => {
    assert(error instanceof SettingsError);
    assert.equal(error.problems.length, 2);
    return true;
  });
});

test('a config file that is none is told with the place', async () => {
  await assert.rejects(load({ config: config('{"port": 1,}') }), /line 1, column 11.*remove the comma/);
  await assert.rejects(
    load({ config: join(directory, 'nope.json') }),
    /nope\.json: no such file: .*--config/,
  );
  await assert.rejects(load({ config: directory }), (error: Error) => {
    assert.equal(error.message, `${directory}: is a directory: name the config file in it`);
    return true;
  });
});

test('every variable that code or documentation names is a setting or declared, and read as such', () => {
  const texts = ['src', 'docs', 'deploy'].flatMap((directory) =>
    readdirSync(join(repositoryRoot, directory), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.(ts|md|ya?ml|service|env)$|Dockerfile/.test(entry.name))
      .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8')),
  );
  const names = texts.flatMap((text) => text.match(/XOAUTH2_RELAY_[A-Z_]*[A-Z]/g) ?? []);
  assert(names.includes('XOAUTH2_RELAY_ALIASES'));
  assert.deepEqual(unknownVariables(Object.fromEntries(names.map((name) => [name, '1']))), []);
  assert.deepEqual(
    texts.flatMap((text) => text.match(/\benv(\.|\[['"`])XOAUTH2_RELAY_\w+/g) ?? []),
    [],
    'readVariable reads what is declared',
  );
});

test('a variable that is no setting is found', () => {
  const env = {
    XOAUTH2_RELAY_PROT: '1',
    XOAUTH2_RELAY_PORT: '1',
    XOAUTH2_RELAY_STATE_KEY_FILE: 'x',
    PATH: '/',
  };
  assert.deepEqual(unknownVariables(env), ['XOAUTH2_RELAY_PROT']);
});
