/** `account add` with a person at a terminal: a wrong answer is named and asked for again. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { runCli } from '../support/run-cli.ts';
import { startSignInServer } from '../support/sign-in-server.ts';
import { startOnTerminal } from '../support/terminal-run.ts';

const ANN = 'ann@example.com';

async function setUp(defer: Defer) {
  const provider = await startProvider({ users: [ANN] });
  defer(() => provider.close());
  const signIn = await startSignInServer(provider, ANN);
  defer(() => signIn.close());
  const directory = mkdtempSync(join(tmpdir(), 'account-dialogue-'));
  defer(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'accounts.json');
  const sim = {
    smtp: `starttls://localhost:${provider.smtp.port}`,
    token_url: signIn.tokenUrl,
    device_url: signIn.deviceUrl,
    scope: 'smtp offline_access',
  };
  writeFileSync(file, JSON.stringify({ providers: { sim }, accounts: [] }), { mode: 0o600 });
  const { clientId = '', clientSecret = '', refreshToken = '' } = provider.token.account(ANN) ?? {};
  return {
    provider,
    directory,
    file,
    clientId,
    clientSecret,
    refreshToken,
    env: { NODE_EXTRA_CA_CERTS: provider.caFile },
    args: ['account', 'add', '--accounts', file, '--admin-port', '1'],
    entries: () =>
      (JSON.parse(readFileSync(file, 'utf8')) as { accounts: Record<string, unknown>[] }).accounts,
  };
}

test(
  'every wrong answer is named and asked for again, up to a refused sign-in and a login that fails',
  leakless(async (_t, defer) => {
    const { args, env, clientId, clientSecret, refreshToken, entries } = await setUp(defer);
    const run = startOnTerminal(args, env);
    await run.answer('Address of the mailbox: ', 'ann');
    await run.answer('Address of the mailbox: ', '');
    await run.answer('Address of the mailbox: ', ANN);
    await run.answer('sim): ', 'gmial');
    await run.answer('sim): ', 'SIM');
    await run.answer('client-credentials) [device]: ', 'phone');
    await run.answer('client-credentials) [device]: ', 'device');
    await run.answer('Client id: ', '');
    await run.answer('Client id: ', 'no-such-client');
    await run.answer('Client secret (empty for a public client): ', clientSecret);
    await run.answer('Try again or stop (again, stop) [again]: ', '');
    await run.answer('client-credentials) [device]: ', 'refresh-token');
    await run.answer('Client id [no-such-client]: ', clientId);
    await run.answer('Client secret (empty for a public client): ', clientSecret);
    await run.answer('Refresh token: ', '');
    await run.answer('Refresh token: ', 'mistyped');
    await run.answer('Try again, keep it nevertheless or stop (again, keep, stop) [again]: ', 'perhaps');
    await run.answer('or stop (again, keep, stop) [again]: ', 'again');
    await run.answer('client-credentials) [device]: ', 'refresh-token');
    await run.answer(`Client id [${clientId}]: `, '');
    await run.answer('Client secret (empty for a public client): ', clientSecret);
    await run.answer('Refresh token: ', refreshToken);
    assert.equal(await run.exited, 0, run.screen());
    let at = 0;
    for (const said of [
      'ann is no address',
      'an address is needed',
      'no provider gmial: use gmail',
      'no way to sign in phone: use device, refresh-token, service-account',
      'a client id is needed',
      'this client may not sign in this way: unauthorized_client',
      'Refresh token is needed',
      'cure: sign in again',
      'no choice perhaps: use again, keep, stop',
      'added to',
    ]) {
      at = run.screen().indexOf(said, at);
      assert(at >= 0, `${said} in its place: ${run.screen()}`);
    }
    for (const secret of [clientSecret, refreshToken, 'mistyped']) assert(!run.screen().includes(secret));
    assert.equal(entries()[0]?.refresh_token, refreshToken);
  }),
);

test(
  'the key file of a service account: one that cannot be read is asked for again; who stops writes nothing',
  leakless(async (_t, defer) => {
    const { args, env, directory, entries } = await setUp(defer);
    writeFileSync(join(directory, 'key.json'), '{"half":');
    const run = startOnTerminal([...args, 'ann@gmail.com', '--sign-in', 'service-account'], env);
    await run.answer('Key file of the service account: ', join(directory, 'missing.json'));
    await run.answer('Key file of the service account: ', join(directory, 'key.json'));
    await run.answer('(again, stop) [again]: ', '');
    await run.answer('Key file of the service account: ', join(directory, 'key.json'));
    await run.answer('(again, stop) [again]: ', 'stop');
    assert.equal(await run.exited, 1, run.screen());
    assert.match(
      run.screen(),
      /cannot read \S+missing\.json[\s\S]*key\.json is not JSON[\s\S]*nothing was written/,
    );
    assert.deepEqual(entries(), []);
  }),
);

test(
  'an address that is there already is offered to be signed in again',
  leakless(async (_t, defer) => {
    const { args, env, file, provider, entries } = await setUp(defer);
    const kept = { ...provider.entry(ANN), provider: 'gmail' };
    writeFileSync(file, JSON.stringify({ accounts: [kept] }));
    const run = startOnTerminal(args, env);
    await run.answer('Address of the mailbox: ', ANN);
    await run.answer('already. Sign in again? (Y/n) [y]: ', 'n');
    await run.answer('Address of the mailbox: ', '\x03');
    assert.equal(await run.exited, 2, run.screen());
    assert.deepEqual(entries(), [kept]);
  }),
);

test(
  'a host that cannot be reached is named, with the cure; a file that cannot be read is no defect',
  leakless(async (_t, defer) => {
    const { args, file, directory } = await setUp(defer);
    const away = 'http://127.0.0.1:1';
    const sim = { smtp: 'smtps://localhost:1', token_url: away, device_url: `${away}/device`, scope: 'smtp' };
    writeFileSync(file, JSON.stringify({ providers: { sim }, accounts: [] }));
    const given = [...args, ANN, '--provider', 'sim', '--client-id', 'x', '--sign-in'];
    const device = await runCli([...given, 'device']);
    assert.equal(device.code, 1);
    assert.match(
      device.stderr,
      /^127\.0\.0\.1:1: .*cannot be reached.*ECONNREFUSED\)\n {2}cure: check DNS, firewall/,
    );
    const missing = join(directory, 'missing');
    const unreadable = await runCli([...given, 'device', '--client-secret-file', missing]);
    assert.equal(unreadable.code, 2);
    assert.match(unreadable.stderr, /^cannot read .*missing: .*\n$/);
  }),
);

test(
  'a sign-in takes the proxy that the relay takes',
  leakless(async (_t, defer) => {
    const { args, file, clientId, clientSecret } = await setUp(defer);
    const sim = {
      smtp: 'smtps://localhost:1',
      token_url: 'https://login.example/token',
      device_url: 'https://login.example/device',
      scope: 'smtp',
    };
    writeFileSync(file, JSON.stringify({ providers: { sim }, accounts: [] }));
    const given = [...args, ANN, '--provider', 'sim', '--client-id', clientId, '--sign-in', 'device'];
    const { code, stderr } = await runCli(given, {
      env: { XOAUTH2_RELAY_CLIENT_SECRET: clientSecret, HTTPS_PROXY: 'http://127.0.0.1:1' },
    });
    assert.equal(code, 1);
    // Without the proxy there would be no such host.
    assert.match(stderr, /^login\.example: .*ECONNREFUSED/);
  }),
);

test(
  'before it asks for a client it says where one is registered; nobody there to ask: the question is named',
  leakless(async (_t, defer) => {
    const { args, env } = await setUp(defer);
    for (const [provider, where] of [
      ['gmail', /console\.cloud\.google\.com\/auth\/clients, as a Desktop app/],
      ['outlook', /entra\.microsoft\.com, App registrations/],
    ] as const) {
      const run = startOnTerminal([...args, ANN, '--provider', provider, '--sign-in', 'browser'], env);
      await run.answer('Client id: ', '\x03');
      assert.equal(await run.exited, 2, run.screen());
      assert.match(run.screen(), where);
      const { code, stderr } = await runCli([...args, ANN, '--provider', provider, '--sign-in', 'browser'], {
        env,
      });
      assert.equal(code, 2);
      assert.equal(
        stderr,
        'no answer to "Client id" (nobody is there to ask: --help says how else to give it)\n',
      );
    }
  }),
);

test(
  'account add names the mistakes of its own entry, not those of the accounts that are there',
  leakless(async (_t, defer) => {
    const { args, file, refreshToken } = await setUp(defer);
    const { providers } = JSON.parse(readFileSync(file, 'utf8')) as { providers: object };
    writeFileSync(
      file,
      JSON.stringify({ providers, accounts: [{ email: 'b@x', provider: 'gmail', typo: 1 }] }),
    );
    const given = [...args, ANN, '--provider', 'sim', '--client-id', 'x', '--sign-in', 'refresh-token'];
    const { code, stderr } = await runCli([...given, '--smtp', 'localhost'], {
      env: { XOAUTH2_RELAY_REFRESH_TOKEN: refreshToken },
    });
    assert.equal(code, 2);
    assert.equal(stderr, 'smtp expected starttls://host:587 or smtps://host:465\n');
  }),
);
