/** Every bad answer a token endpoint can give, over real sockets: class, one log line, nothing lost. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { type AccessToken, TokenError, type TokenErrorCode } from '../../src/tokens/access-token.ts';
import { createTokenService, type TokenService } from '../../src/tokens/token-service.ts';
import { createTestClock } from '../support/clock.ts';
import { type TokenAnswer, tokenAnswers } from '../support/token-answers.ts';
import { startTokenEndpoint, type TokenEndpoint } from '../support/token-endpoint.ts';
import { waitFor, within } from '../support/wait-for.ts';
import { account, closedPort, createTestLog, entryFor, refreshCredential } from './support.ts';

interface Room {
  readonly endpoint: TokenEndpoint;
  readonly tokens: TokenService;
  readonly log: ReturnType<typeof createTestLog>;
  readonly clock: ReturnType<typeof createTestClock>;
}

const USER = 'a@x';
const ANSWER_TIMEOUT_MS = 400;
const ALERTS = new Set(['warn', 'error']);

async function room(t: TestContext, users: readonly string[] = [USER]): Promise<Room> {
  const endpoint = await startTokenEndpoint('microsoft');
  t.after(() => endpoint.close());
  const log = createTestLog();
  const clock = createTestClock();
  const options = {
    refreshAhead: false,
    endpoint: { answerTimeoutMs: ANSWER_TIMEOUT_MS, connectTimeoutMs: 400, env: {} },
  };
  const tokens = createTokenService({ log, clock }, options);
  t.after(() => tokens.close());
  tokens.applyAccounts(
    users.map((user) => {
      const { clientId, clientSecret, refreshToken } = endpoint.add(user);
      const credential = refreshCredential(endpoint.url, user, {
        clientId,
        clientSecret: new Secret(clientSecret ?? ''),
        refreshToken: new Secret(refreshToken),
      });
      return { account: account(user), credential };
    }),
  );
  return { endpoint, tokens, log, clock };
}

async function waitForToken(tokens: TokenService): Promise<AccessToken> {
  for (let turn = 0; ; turn += 1) {
    try {
      return await tokens.get(USER);
    } catch (error) {
      if (turn === 20) throw error;
      await new Promise((resume) => setImmediate(resume));
    }
  }
}

const HOUR = 3_600_000;
const good = (patch: Record<string, unknown>): TokenAnswer => ({ patch });

/** Answer, class, how long until the account is asked about again. */
const REFUSALS: readonly [string, TokenAnswer, TokenErrorCode, number][] = [
  ['HTML with 200', tokenAnswers.okHtml, 'provider_fault', 0],
  ['truncated JSON', { status: 200, body: '{"access_token":"half' }, 'provider_fault', 0],
  ['a body cut by the connection', tokenAnswers.truncated, 'provider_fault', 0],
  ['no access_token', good({ access_token: undefined }), 'provider_fault', 0],
  ['a negative expires_in', good({ expires_in: -5 }), 'provider_fault', 0],
  ['a token with CR and LF', good({ access_token: 'evil\r\nRCPT TO:<x>' }), 'provider_fault', 0],
  ['a token with 0x01', good({ access_token: 'evil\u0001auth=Bearer other' }), 'provider_fault', 0],
  // Its answer is still awaited: nothing else is asked for the grant meanwhile.
  ['silence', tokenAnswers.silence, 'provider_fault', 60_000],
  ['a reset', tokenAnswers.reset, 'provider_fault', 0],
  ['ten megabytes', tokenAnswers.tenMegabytes, 'provider_fault', 0],
  ['503 in HTML', tokenAnswers.unavailableHtml, 'provider_fault', 0],
  ['500', tokenAnswers.googleInternalFailure, 'provider_fault', 0],
  ['temporarily unavailable', tokenAnswers.temporarilyUnavailable, 'provider_fault', 0],
  ['429 in plain text', tokenAnswers.tooManyRequests(60), 'throttled', 60_000],
  ['a request loop in disguise', tokenAnswers.microsoftLoop, 'throttled', 300_000],
  ['a revoked grant', tokenAnswers.microsoftRevoked, 'needs_consent', HOUR],
  ['an inactive grant', tokenAnswers.microsoftInactive, 'needs_consent', HOUR],
  ['a demand for MFA', tokenAnswers.microsoftMfa, 'needs_consent', HOUR],
  ['a wrong secret', tokenAnswers.microsoftBadSecret, 'app_misconfigured', 600_000],
  ['an expired secret', tokenAnswers.microsoftExpiredSecret, 'app_misconfigured', 600_000],
  ['an unknown app', tokenAnswers.microsoftUnknownApp, 'app_misconfigured', 600_000],
  ['a wrong scope', tokenAnswers.invalidScope, 'bad_request', 600_000],
  ['a wrong grant type', tokenAnswers.unsupportedGrant, 'bad_request', 600_000],
];

for (const [what, answer, code, silenceMs] of REFUSALS) {
  test(`${what}: ${code}, one line, and a token again once all is well`, async (t) => {
    const { endpoint, tokens, log, clock } = await room(t);
    endpoint.always(answer);
    const asked = within(tokens.get(USER), 3000, 'an outcome');
    if (what === 'silence') {
      await waitFor(() => endpoint.count() === 1, { what: 'the request' });
      clock.advance(ANSWER_TIMEOUT_MS);
    }
    const error = await asked.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof TokenError, String(error));
    assert.equal(error.code, code);
    assert.equal(error.retryAt, silenceMs === 0 ? undefined : clock.now() + silenceMs);
    const lines = log.lines.filter((l) => ALERTS.has(l.level));
    assert.equal(lines.length, 1, JSON.stringify(lines));
    const { refreshToken, clientSecret } = endpoint.account(USER) ?? {};
    for (const secret of [refreshToken, clientSecret, 'evil', 'half']) {
      assert.ok(!log.text().includes(secret ?? ''), 'a secret in the log');
      assert.ok(!error.message.includes(secret ?? ''), 'a secret in the error');
    }
    const before = endpoint.count();
    if (silenceMs > 0) {
      clock.advance(silenceMs - 1);
      await assert.rejects(tokens.get(USER), { code });
      assert.equal(endpoint.count(), before, 'asked too early');
    }
    endpoint.always(undefined);
    clock.advance(1);
    // What was cut at last is known to be over a moment later.
    const token = await (what === 'silence' ? waitForToken(tokens) : tokens.get(USER));
    assert.ok(endpoint.verify(USER, token.reveal()));
    assert.equal(tokens.statusOf(USER)?.state.status, 'ready');
    assert.equal(tokens.statusOf(USER)?.lastError, undefined);
    const { refresh_attempts, refresh_success, refresh_failures } = tokens.totals();
    assert.deepEqual([refresh_attempts, refresh_success, refresh_failures], [2, 1, 1]);
  });
}

for (const [what, patch, atMostS] of [
  ['no expires_in', { expires_in: undefined }, 600],
  ['expires_in as words', { expires_in: 'an hour' }, 600],
  ['a huge expires_in', { expires_in: 1e15 }, 8 * 24 * 3600],
] as const) {
  test(`${what}: used with care, and one line`, async (t) => {
    const { endpoint, tokens, log, clock } = await room(t);
    endpoint.queue(good(patch));
    const token = await tokens.get(USER);
    assert.ok(token.expiresAt - clock.now() <= atMostS * 1000);
    assert.equal(log.lines.filter((l) => ALERTS.has(l.level)).length, 1);
    assert.equal(tokens.peek(USER), token);
  });
}

test('a redirect is not followed', async (t) => {
  const { endpoint, tokens } = await room(t);
  const stranger = await startTokenEndpoint('gmail');
  t.after(() => stranger.close());
  for (const status of [301, 302, 307, 308]) {
    endpoint.queue({ ...tokenAnswers.redirect(stranger.url), status });
    await assert.rejects(tokens.get(USER), { code: 'provider_fault', message: /redirect/ });
  }
  assert.equal(stranger.count(), 0);
});

test('an endpoint that refuses connections', async (t) => {
  const log = createTestLog();
  const tokens = createTokenService({ log }, { refreshAhead: false });
  t.after(() => tokens.close());
  const port = await closedPort();
  tokens.applyAccounts([entryFor(`http://127.0.0.1:${port}/token`, USER)]);
  await assert.rejects(tokens.get(USER), { code: 'provider_fault', message: /connection refused/ });
});

test('one alert for a broken client, however many accounts it has', async (t) => {
  const users = Array.from({ length: 30 }, (_, i) => `user${i}@x`);
  const { endpoint, tokens, log } = await room(t, users);
  endpoint.always(tokenAnswers.microsoftExpiredSecret);
  const { failed } = await tokens.precache();
  assert.equal(failed, 30);
  const lines = log.lines.filter((l) => ALERTS.has(l.level));
  assert.equal(lines.length, 1, JSON.stringify(lines));
  assert.equal(lines[0]?.level, 'error');
  assert.equal(lines[0]?.fields.client_id, endpoint.account('user0@x')?.clientId);
  assert.equal(tokens.breakers()[0]?.state, 'closed');
});

test('an endpoint is named without its query, where a key may stand, and told from others all the same', async (t) => {
  const log = createTestLog();
  const tokens = createTokenService({ log }, { refreshAhead: false, endpoint: { env: {} } });
  t.after(() => tokens.close());
  const port = await closedPort();
  const keys = ['hidden-1', 'hidden-2'];
  tokens.applyAccounts(
    keys.map((key) => ({
      account: account(key),
      credential: refreshCredential(`http://127.0.0.1:${port}/token?code=${key}`, key),
    })),
  );
  for (const key of keys) for (let i = 0; i < 30; i += 1) await assert.rejects(tokens.get(key));
  const names = tokens.breakers().map(({ name }) => name);
  assert.equal(new Set(names).size, 2);
  for (const name of names) assert.match(name, new RegExp(`^http://127.0.0.1:${port}/token\\?[0-9a-f]{8}$`));
  assert.match(log.text(), /token_endpoint_breaker/);
  assert.doesNotMatch(log.text(), /code=/);
});

test('a failing endpoint is named once when its breaker opens, not per message', async (t) => {
  const { endpoint, tokens, log } = await room(t);
  endpoint.always(tokenAnswers.unavailableHtml);
  for (let i = 0; i < 200; i += 1) await assert.rejects(tokens.get(USER), { code: 'provider_fault' });
  assert.ok(endpoint.count() <= 20, `${endpoint.count()} requests`);
  assert.ok(log.lines.filter((l) => ALERTS.has(l.level)).length <= endpoint.count() + 1);
  assert.equal(tokens.totals().refresh_attempts, endpoint.count());
});

test('one account that is given unusable tokens does not stop the others', async (t) => {
  const { endpoint, tokens } = await room(t, ['bad@x', 'good@x']);
  endpoint.always(good({ access_token: 'evil\r\n' }), 'bad@x');
  for (let i = 0; i < 30; i += 1) await assert.rejects(tokens.get('bad@x'), { code: 'provider_fault' });
  assert.equal(tokens.breakers()[0]?.state, 'closed');
  assert.ok(await tokens.get('good@x'));
});

test('proxy settings are for token calls: the request goes through the proxy', async (t) => {
  const endpoint = await startTokenEndpoint('gmail');
  t.after(() => endpoint.close());
  const { clientId, clientSecret, refreshToken } = endpoint.add(USER);
  const asked: string[] = [];
  const proxy = createServer();
  proxy.on('connect', (request, client) => {
    asked.push(request.url ?? '');
    const upstream = connect(Number(new URL(endpoint.url).port), '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      upstream.pipe(client).pipe(upstream);
    });
    client.on('error', () => upstream.destroy());
    upstream.on('error', () => client.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    proxy.closeAllConnections();
    proxy.close();
  });
  const { port } = proxy.address() as AddressInfo;
  const tokens = createTokenService(
    { log: createTestLog() },
    { endpoint: { env: { HTTP_PROXY: `http://127.0.0.1:${port}` } } },
  );
  t.after(() => tokens.close());
  const credential = refreshCredential('http://accounts.example:8080/token', USER, {
    clientId,
    clientSecret: new Secret(clientSecret ?? ''),
    refreshToken: new Secret(refreshToken),
  });
  tokens.applyAccounts([{ account: account(USER), credential }]);
  await tokens.get(USER);
  assert.deepEqual(asked, ['accounts.example:8080']);
});
