/** Signing in again while the relay runs: from the API of the dashboard, and by invitation. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { sendMail } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';
import { type SignInServer, startSignInServer } from '../support/sign-in-server.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@mail.example';
const BEN = 'ben@mail.example';
const ENDED = 'a-refresh-token-that-ended';

interface Row {
  readonly state: string;
  readonly url: string | null;
  readonly code: string | null;
  readonly note: string | null;
  readonly returns: boolean;
  readonly steps: readonly { stage: string; ok: boolean }[];
}

interface House {
  readonly provider: Provider;
  readonly page: SignInServer;
  readonly relay: RelayProcess;
  readonly file: string;
  ask(method: string, path: string, body?: object, headers?: Record<string, string>): Promise<Response>;
  row(method: string, path: string, body?: object, headers?: Record<string, string>): Promise<Row>;
  until(state: string): Promise<Row>;
  /** Resolves when the proof of the sign-in under way has ended. */
  proved(): Promise<void>;
}

async function setUp(defer: Defer, args: readonly string[] = []): Promise<House> {
  const provider = await startProvider({ users: [ANN, BEN] });
  defer(() => provider.close());
  const page = await startSignInServer(provider, ANN);
  defer(() => page.close());
  const providers = {
    sim: {
      smtp: `starttls://localhost:${provider.smtp.port}`,
      token_url: page.tokenUrl,
      authorize_url: page.authorizeUrl,
      device_url: page.deviceUrl,
      scope: 'smtp openid email',
    },
  };
  const { client_id, client_secret } = provider.entry(ANN);
  const entry = { email: ANN, provider: 'sim', client_id, client_secret, refresh_token: ENDED };
  const relay = await startRelay({ accounts: [], caFile: provider.caFile, args });
  defer(async () => void (await relay.stop()));
  await relay.reload(JSON.stringify({ providers, accounts: [entry] }));
  const ask: House['ask'] = (method, path, body, headers = {}) =>
    fetch(relay.adminUrl + path, {
      method,
      headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  const row: House['row'] = async (...asked) => {
    const answer = await ask(...asked);
    assert.equal(answer.status, 200, await answer.clone().text());
    return (await answer.json()) as Row;
  };
  return {
    provider,
    page,
    relay,
    file: relay.accountsFile,
    ask,
    row,
    until: (state) =>
      waitFor(
        async () => {
          const now = await row('GET', `/admin/accounts/${ANN}/sign-in`);
          assert.ok(now.state === state || !['done', 'failed'].includes(now.state), JSON.stringify(now));
          return now.state === state ? now : undefined;
        },
        { what: `a sign-in that is ${state}` },
      ),
    async proved() {
      await waitFor(
        async () => (await row('GET', `/admin/accounts/${ANN}/sign-in`)).steps.at(-1)?.stage === 'sender',
        { what: 'the end of the proof' },
      );
      await provider.assertDisconnected();
    },
  };
}

/** Another relay with what the first has kept. */
async function restart(
  defer: Defer,
  { provider }: House,
  directory: string,
  accounts: string,
): Promise<RelayProcess> {
  const next = await startRelay({ accounts, caFile: provider.caFile, args: ['--state-dir', directory] });
  defer(async () => void (await next.stop()));
  return next;
}

const statusOf = async ({ relay }: House): Promise<string> =>
  (await relay.admin<{ status: string }>(`/admin/accounts/${ANN}`)).status;

const refreshTokenIn = (file: string): unknown =>
  (JSON.parse(readFileSync(file, 'utf8')) as { accounts: { refresh_token: string }[] }).accounts[0]
    ?.refresh_token;

function assertNoSecret(house: House, more: readonly string[] = []): void {
  const account = house.provider.token.account(ANN);
  const planted = [
    account?.clientSecret,
    account?.refreshToken,
    ...house.provider.token.issuedTokens(),
    ...house.page.tokenRequests.flatMap((form) => [form.get('code'), form.get('code_verifier')]),
    ...more,
  ];
  for (const secret of planted)
    if (secret) assert.ok(!house.relay.output().includes(secret), 'a secret in the log');
}

test(
  'with a device code: the grant is proved and kept in the accounts file, and mail flows',
  leakless(async (_t, defer) => {
    const house = await setUp(defer);
    await waitFor(async () => (await statusOf(house)) === 'needs_consent');
    assert.equal((await sendMail(house.relay.smtpPort, { from: ANN })).code, 451);
    const begun = await house.row('POST', `/admin/accounts/${ANN}/sign-in`, { way: 'device' });
    assert.equal(begun.url, 'https://login.example/device');
    assert.equal(begun.code, 'ABCD-1234');
    const done = await house.until('done');
    assert.equal(done.note, null);
    assert.deepEqual(done.steps.map(({ stage }) => stage).slice(-2), ['auth', 'sender']);
    assert.equal(house.provider.submissions.length, 0, 'the proof sends nothing');
    assert.equal(refreshTokenIn(house.file), house.provider.token.account(ANN)?.refreshToken);
    await waitFor(async () => (await statusOf(house)) === 'ready');
    assert.equal((await sendMail(house.relay.smtpPort, { from: ANN })).code, 250);
    assertNoSecret(house);
  }),
);

test(
  'with a browser whose redirect reaches the relay: kept in the state directory, over a restart',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'relay-sign-in-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    const house = await setUp(defer, ['--state-dir', directory]);
    house.provider.token.rotation = 'revoke-old';
    const begun = await house.row('POST', `/admin/accounts/${ANN}/sign-in`, { way: 'browser' });
    assert.equal(begun.returns, true);
    const seen = await house.row('GET', `/admin/accounts/${ANN}/sign-in`);
    assert.deepEqual([seen.url, seen.code], [null, null], 'a reader is not told where to sign in');
    const page = await fetch(begun.url ?? '');
    assert.match(await page.text(), /Thank you/);
    await house.until('done');
    assert.equal(refreshTokenIn(house.file), ENDED, 'the accounts file is left alone');
    await waitFor(async () => (await statusOf(house)) === 'ready');
    assert.equal((await sendMail(house.relay.smtpPort, { from: ANN })).code, 250);
    const again = await fetch(page.url);
    assert.equal(again.status, 404, 'a redirect serves once');
    const accounts = readFileSync(house.file, 'utf8');
    await house.relay.stop();
    house.provider.token.forgetAccessTokens(ANN);
    const next = await restart(defer, house, directory, accounts);
    assert.equal((await sendMail(next.smtpPort, { from: ANN })).code, 250);
    assertNoSecret(house);
  }),
);

test(
  'another mailbox’s consent changes nothing, and what went wrong is told once',
  leakless(async (_t, defer) => {
    const house = await setUp(defer);
    house.page.user = BEN;
    await house.row('POST', `/admin/accounts/${ANN}/sign-in`, { way: 'device' });
    const failed = await house.until('failed');
    assert.match(failed.note ?? '', /535|invalid_client/);
    assert.equal(refreshTokenIn(house.file), ENDED);
    assertNoSecret(house);
  }),
);

test(
  'the owner of a mailbox signs in with a key; the admin token stays with the administrator',
  leakless(async (_t, defer) => {
    const admin = { authorization: 'Bearer the-admin-token' };
    process.env.XOAUTH2_RELAY_ADMIN_TOKEN = 'the-admin-token';
    defer(() => {
      delete process.env.XOAUTH2_RELAY_ADMIN_TOKEN;
    });
    const house = await setUp(defer);
    assert.equal((await house.ask('POST', `/admin/accounts/${ANN}/invite`)).status, 401);
    const answer = await house.ask('POST', `/admin/accounts/${ANN}/invite`, undefined, admin);
    const { key, path, until } = (await answer.json()) as { key: string; path: string; until: string };
    assert.equal(path, `/sign-in#${key}`);
    const hours = (Date.parse(until) - Date.now()) / 3_600_000;
    assert.ok(hours > 23.9 && hours <= 24, String(hours));
    const run = await runCli(
      [
        'account',
        'invite',
        ANN,
        '--admin-port',
        String(house.relay.adminPort),
        '--admin-url',
        'https://relay.example',
      ],
      { env: { XOAUTH2_RELAY_ADMIN_TOKEN: 'the-admin-token' } },
    );
    assert.match(run.stdout, /^https:\/\/relay\.example\/sign-in#[\w-]{43}\n$/);
    const stale = await house.ask('GET', '/sign-in/invited', undefined, { 'x-invite-key': key });
    assert.equal(stale.status, 410, 'a later invitation ends the earlier one');
    const invited = { 'x-invite-key': run.stdout.trim().split('#')[1] ?? '' };
    assert.equal((await house.ask('GET', '/sign-in')).status, 200);
    assert.equal((await house.ask('GET', '/assets/invited.js')).status, 200);
    for (const other of ['/', '/admin/accounts', `/admin/accounts/${ANN}/sign-in`, '/metrics'])
      assert.equal((await house.ask('GET', other, undefined, invited)).status, 401, other);
    assert.equal((await house.ask('GET', '/sign-in/invited')).status, 410);
    assert.equal(
      (await house.ask('GET', '/sign-in/invited', undefined, { 'x-invite-key': 'x' })).status,
      410,
    );
    const foreign = { ...invited, origin: 'https://evil.example' };
    assert.equal((await house.ask('POST', '/sign-in/invited', { way: 'device' }, foreign)).status, 403);
    const begun = await house.row('POST', '/sign-in/invited', { way: 'browser' }, invited);
    assert.match(await (await fetch(begun.url ?? '')).text(), /Thank you/);
    await waitFor(async () => {
      const seen = await house.ask('GET', '/sign-in/invited', undefined, invited);
      return ((await seen.json()) as { sign_in: Row }).sign_in.state === 'done';
    });
    assert.equal((await house.ask('POST', '/sign-in/invited', { way: 'device' }, invited)).status, 410);
    assertNoSecret(house, [key, invited['x-invite-key'], 'the-admin-token']);
  }),
);

test(
  'an account is added, given a token, and removed while the relay runs',
  leakless(async (_t, defer) => {
    const house = await setUp(defer);
    house.page.user = BEN;
    const { client_id, client_secret } = house.provider.entry(BEN);
    const wrong = await house.ask('POST', '/admin/accounts', { email: ANN, provider: 'sim', way: 'device' });
    assert.equal(wrong.status, 409);
    await house.row('POST', '/admin/accounts', {
      ...{ email: BEN, provider: 'sim', client_id, client_secret, way: 'device' },
    });
    await waitFor(async () => {
      const row = await house.row('GET', `/admin/accounts/${BEN}/sign-in`);
      return row.state === 'done';
    });
    assert.equal((await sendMail(house.relay.smtpPort, { from: BEN })).code, 250);
    const { accessToken } = house.provider.token.issue(ANN);
    const given = await house.ask('PUT', `/admin/accounts/${ANN}/token`, {
      access_token: accessToken,
      expires_in: 3000,
    });
    assert.equal(given.status, 200);
    assert.ok(!(await given.text()).includes(accessToken));
    await waitFor(async () => (await statusOf(house)) === 'ready');
    assert.equal((await sendMail(house.relay.smtpPort, { from: ANN })).code, 250);
    const removed = await house.ask('DELETE', `/admin/accounts/${BEN}`);
    assert.equal(removed.status, 200, await removed.text());
    assert.equal((await sendMail(house.relay.smtpPort, { from: BEN })).code, 550);
    assertNoSecret(house);
  }),
);

const LONGEST = Number.MAX_SAFE_INTEGER;

test(
  'a token that is said to live for ever lives for a week, and a store that says so keeps no relay from starting',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'relay-sign-in-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    const house = await setUp(defer, ['--state-dir', directory]);
    const { accessToken } = house.provider.token.issue(ANN);
    const given = { access_token: accessToken, expires_in: LONGEST };
    assert.equal((await house.ask('PUT', `/admin/accounts/${ANN}/token`, given)).status, 200);
    const life = async (): Promise<number> =>
      (await house.relay.admin<{ token: { expires_in_s: number } }>(`/admin/accounts/${ANN}`)).token
        .expires_in_s;
    const WEEK_S = 7 * 24 * 3600;
    assert.ok((await life()) > WEEK_S - 60 && (await life()) <= WEEK_S, String(await life()));
    house.page.expiresIn = LONGEST;
    await house.row('POST', `/admin/accounts/${ANN}/sign-in`, { way: 'device' });
    await house.until('done');
    assert.ok((await life()) <= WEEK_S);
    for (const path of ['/admin/accounts', '/admin/tokens', '/metrics']) {
      const answer = await house.ask('GET', path);
      assert.ok((await answer.text()).length > 0);
      assert.equal(answer.status, 200, path);
    }
    const accounts = readFileSync(house.file, 'utf8');
    await house.relay.stop();
    // As a relay without that limit would have left it.
    const [record] = readdirSync(directory, { recursive: true })
      .map((name) => join(directory, String(name)))
      .filter((name) => statSync(name).isFile() && readFileSync(name, 'utf8').includes('"expiresAt"'));
    assert.ok(record);
    writeFileSync(record, readFileSync(record, 'utf8').replace(/"expiresAt":\d+/g, `"expiresAt":${LONGEST}`));
    const next = await restart(defer, house, directory, accounts);
    assert.equal((await sendMail(next.smtpPort, { from: ANN })).code, 250);
  }),
);

test(
  'of two sign-ins that begin at once one is under way, and it can be ended',
  leakless(async (_t, defer) => {
    const house = await setUp(defer);
    const pending = Array.from({ length: 1_000 }, () => 'authorization_pending' as const);
    const done = (): number => house.relay.lines.filter((line) => line.event === 'sign_in_done').length;
    const orders = [
      ['browser', 'device'],
      ['device', 'browser'],
      ['device', 'device'],
    ];
    for (const [round, ways] of orders.entries()) {
      house.page.devicePolls = [...pending];
      const answers = await Promise.all(
        ways.map((way) => house.ask('POST', `/admin/accounts/${ANN}/sign-in`, { way })),
      );
      const rows = await Promise.all(answers.map(async (answer) => (await answer.json()) as Row));
      // The person does what every answer says.
      house.page.devicePolls = [];
      for (const { url, code } of rows) if (url && code === null) await (await fetch(url)).text();
      await house.until('done');
      await waitFor(() => done() > round, { what: 'the line that says so' });
      assert.equal(done(), round + 1);
    }
    house.page.devicePolls = [...pending];
    await house.row('POST', `/admin/accounts/${ANN}/sign-in`, { way: 'device' });
    await house.row('DELETE', `/admin/accounts/${ANN}/sign-in`);
    house.page.devicePolls = [];
    await house.row('POST', `/admin/accounts/${ANN}/sign-in`, { way: 'device' });
    // Whatever still polled would have been done by now too.
    await house.until('done');
    await waitFor(() => done() > orders.length, { what: 'the line that says so' });
    assert.equal(done(), orders.length + 1);
  }),
);

test(
  'a later link ends what was begun with an earlier one; a link goes with its account',
  leakless(async (_t, defer) => {
    const house = await setUp(defer);
    const invite = async (): Promise<Record<string, string>> => {
      const answer = await house.ask('POST', `/admin/accounts/${ANN}/invite`);
      return { 'x-invite-key': ((await answer.json()) as { key: string }).key };
    };
    const first = await invite();
    house.page.devicePolls = Array.from({ length: 1_000 }, () => 'authorization_pending' as const);
    await house.row('POST', '/sign-in/invited', { way: 'device' }, first);
    const second = await invite();
    assert.equal((await house.ask('GET', '/sign-in/invited', undefined, first)).status, 410);
    const seen = await house.ask('GET', '/sign-in/invited', undefined, second);
    assert.equal(((await seen.json()) as { sign_in: Row }).sign_in.state, 'idle');
    const accounts = readFileSync(house.file, 'utf8');
    assert.equal((await house.ask('DELETE', `/admin/accounts/${ANN}`)).status, 200);
    await house.relay.reload(accounts);
    assert.equal((await house.ask('GET', '/sign-in/invited', undefined, second)).status, 410);
  }),
);

test(
  'what begins while a grant is kept ends with it: a link serves for one sign-in',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'relay-sign-in-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    const house = await setUp(defer, ['--state-dir', directory]);
    await waitFor(async () => (await statusOf(house)) === 'needs_consent', {
      what: 'the old grant to be refused',
    });
    const answer = await house.ask('POST', `/admin/accounts/${ANN}/invite`);
    const key = { 'x-invite-key': ((await answer.json()) as { key: string }).key };
    const first = await house.row('POST', '/sign-in/invited', { way: 'browser' }, key);
    // A new grant is kept after what is still asked with the old one.
    let release = (): void => {};
    const until = new Promise<void>((resume) => {
      release = resume;
    });
    house.provider.token.queue({ normal: true, until });
    const asked = house.provider.token.requests.length;
    const refreshing = house.ask('POST', `/admin/accounts/${ANN}/refresh`);
    await waitFor(() => house.provider.token.requests.length > asked, { what: 'the request' });
    await (await fetch(first.url ?? '')).text();
    await house.proved();
    const second = await house.row('POST', '/sign-in/invited', { way: 'browser' }, key);
    assert.equal(second.state, 'waiting');
    release();
    await (await refreshing).text();
    await house.until('done');
    const late = await fetch(second.url ?? '');
    await late.text();
    assert.equal(late.status, 404);
  }),
);

test(
  'a link that was used or replaced is of no use after a kill either',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'relay-sign-in-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    const house = await setUp(defer, ['--state-dir', directory]);
    const accounts = readFileSync(house.file, 'utf8');
    const invite = async (): Promise<string> => {
      const answer = await house.ask('POST', `/admin/accounts/${ANN}/invite`);
      return ((await answer.json()) as { key: string }).key;
    };
    const replaced = await invite();
    const key = await invite();
    const { url } = await house.row('POST', '/sign-in/invited', { way: 'browser' }, { 'x-invite-key': key });
    await (await fetch(url ?? '')).text();
    await house.until('done');
    const unused = await invite();
    house.relay.signal('SIGKILL');
    await house.relay.exited;
    const next = await restart(defer, house, directory, accounts);
    const statusOfKey = async (key: string): Promise<number> => {
      const answer = await fetch(`${next.adminUrl}/sign-in/invited`, { headers: { 'x-invite-key': key } });
      await answer.text();
      return answer.status;
    };
    assert.deepEqual(await Promise.all([replaced, key, unused].map(statusOfKey)), [410, 410, 200]);
  }),
);

const OTHER_CLIENT = { client_id: 'another-client', refresh_token: 'of-the-other-client' };

/** The accounts file after its operator has given the first account another client. */
function withOtherClient(file: string): string {
  const { accounts, ...rest } = JSON.parse(readFileSync(file, 'utf8'));
  return JSON.stringify({ ...rest, accounts: [{ ...accounts[0], ...OTHER_CLIENT }] });
}

test(
  'the grant of a client that the account has no more is not kept',
  leakless(async (_t, defer) => {
    const house = await setUp(defer);
    const { url } = await house.row('POST', `/admin/accounts/${ANN}/sign-in`, { way: 'browser' });
    await house.relay.reload(withOtherClient(house.file));
    await (await fetch(url ?? '')).text();
    assert.match((await house.until('failed')).note ?? '', /client_id/);
    assert.equal(refreshTokenIn(house.file), OTHER_CLIENT.refresh_token);
  }),
);

test(
  'a refresh token of another client that the accounts file has meanwhile, not loaded yet, is not written over',
  leakless(async (_t, defer) => {
    const house = await setUp(defer);
    const { url } = await house.row('POST', `/admin/accounts/${ANN}/sign-in`, { way: 'browser' });
    writeFileSync(house.file, withOtherClient(house.file));
    await (await fetch(url ?? '')).text();
    assert.match((await house.until('failed')).note ?? '', /another client_id in the accounts file/);
    assert.equal(refreshTokenIn(house.file), OTHER_CLIENT.refresh_token);
  }),
);
