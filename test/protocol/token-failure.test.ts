import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ANY_ACCOUNT, cureOf, findTokenCauseInText } from '../../src/protocol/causes/book.ts';
import { parseRetryAfter } from '../../src/protocol/retry-after.ts';
import {
  classifyNetworkFailure,
  classifyTokenFailure,
  type TokenAnswer,
  type TokenFailure,
  type TokenFailureKind,
} from '../../src/protocol/token-failure.ts';
import { assertLinear } from '../support/cost.ts';

const NOW = Date.parse('2026-11-20T10:00:00Z');
const MINUTE = 60_000;

const classify = (answer: Partial<TokenAnswer>): TokenFailure =>
  classifyTokenFailure({ status: 400, body: '', receivedAt: NOW, secrets: [], ...answer });

const oauth = (error: string, description?: string): string =>
  JSON.stringify({ error, ...(description === undefined ? {} : { error_description: description }) });

const microsoft = (error: string, ...codes: number[]): string =>
  JSON.stringify({
    error,
    error_description: `AADSTS${codes[0]}: Something happened. Trace ID: 7d8a1b2c Correlation ID: 1111 Timestamp: 2026-11-20 10:00:00Z`,
    error_codes: codes,
    trace_id: '7d8a1b2c-0000-4000-8000-3f5e6d7c8b9a',
    correlation_id: '11112222-bbbb-4ccc-8ddd-333344445555',
  });

/** Status, body, class. */
const GOOGLE: readonly [number, string, TokenFailureKind][] = [
  [400, oauth('invalid_grant', 'Token has been expired or revoked.'), 'needs_consent'],
  [400, oauth('invalid_grant', 'Bad Request'), 'needs_consent'],
  [400, oauth('invalid_grant'), 'needs_consent'],
  [400, oauth('invalid_grant', 'Not a valid email or user ID.'), 'needs_consent'],
  [400, oauth('invalid_grant', 'Invalid email or User ID'), 'needs_consent'],
  [403, oauth('access_denied', 'Requested client not authorized.'), 'needs_consent'],
  [401, oauth('invalid_client', 'The OAuth client was not found.'), 'app_misconfigured'],
  [401, oauth('invalid_client', 'Unauthorized'), 'app_misconfigured'],
  [401, oauth('deleted_client', 'The OAuth client was deleted.'), 'app_misconfigured'],
  [401, oauth('disabled_client', 'The OAuth client was disabled.'), 'app_misconfigured'],
  [403, oauth('org_internal'), 'app_misconfigured'],
  [400, oauth('admin_policy_enforced'), 'app_misconfigured'],
  [401, oauth('unauthorized_client', 'Unauthorized client or scope in request.'), 'app_misconfigured'],
  [400, oauth('invalid_grant', 'Invalid JWT Signature.'), 'app_misconfigured'],
  [
    400,
    oauth(
      'invalid_grant',
      'Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.',
    ),
    'clock_skew',
  ],
  [400, oauth('invalid_scope', 'Some requested scopes were invalid.'), 'bad_request'],
  [400, oauth('invalid_request', 'Missing required parameter: refresh_token'), 'bad_request'],
  [400, oauth('unsupported_grant_type', 'Invalid grant_type'), 'bad_request'],
  [400, oauth('something_new', 'nobody knows'), 'bad_request'],
  [403, oauth('rate_limit_exceeded'), 'throttled'],
  [429, oauth('rate_limit_exceeded'), 'throttled'],
  [429, 'Too Many Requests', 'throttled'],
  [429, '', 'throttled'],
  [500, oauth('internal_failure', 'Backend Error'), 'provider_fault'],
  [503, oauth('backend_error'), 'provider_fault'],
  [400, oauth('temporarily_unavailable'), 'provider_fault'],
  [400, oauth('server_error'), 'provider_fault'],
  [401, '{"error":{"code":401,"message":"who","status":"UNAUTHENTICATED"}}', 'bad_request'],
];

const MICROSOFT: readonly [TokenFailureKind, string, readonly number[]][] = [
  [
    'needs_consent',
    'invalid_grant',
    [70000, 70008, 700082, 700084, 70043, 50173, 50132, 50133, 50055, 50144],
  ],
  ['needs_consent', 'invalid_grant', [50057, 50034, 50053, 50126]],
  ['needs_consent', 'interaction_required', [50076, 50079, 50074, 50078, 50072, 50158, 53000, 53001, 53002]],
  ['needs_consent', 'interaction_required', [53003, 53004, 530032, 530035, 50097, 50105]],
  ['needs_consent', 'consent_required', [65001, 65004, 90094, 700020]],
  ['app_misconfigured', 'invalid_client', [7000215, 7000222, 70002, 700027, 7000218, 700025, 50012]],
  ['app_misconfigured', 'unauthorized_client', [700016, 700011, 70001, 7000112]],
  ['app_misconfigured', 'invalid_request', [500011, 650056, 650057, 50194]],
  ['bad_request', 'invalid_request', [90013, 90014, 900144, 9002313, 28002, 70003, 90002, 90023]],
  ['bad_request', 'invalid_scope', [70011]],
  ['throttled', 'invalid_grant', [50196]],
  ['throttled', 'invalid_request', [90055]],
  ['provider_fault', 'temporarily_unavailable', [90033, 90006, 90012, 90024, 90090]],
  ['provider_fault', 'server_error', [50033, 50087, 70012, 40010, 80001, 80002, 80005, 80007, 50166]],
  ['provider_fault', 'invalid_grant', [90033]],
  ['clock_skew', 'invalid_client', [700024]],
];

/** Answers of proxies, portals and broken servers. */
const STRANGERS: readonly [number, string, TokenFailureKind][] = [
  [503, '<html>Service Unavailable</html>', 'provider_fault'],
  [502, '', 'provider_fault'],
  [500, oauth('invalid_grant', 'but the server is broken'), 'provider_fault'],
  [500, microsoft('invalid_grant', 700082), 'provider_fault'],
  [408, '', 'provider_fault'],
  [400, '<html>Bad Request</html>', 'provider_fault'],
  [400, '{"error":"invalid_gr', 'provider_fault'],
  [400, '{}', 'provider_fault'],
  [400, '[]', 'provider_fault'],
  [400, 'null', 'provider_fault'],
  [400, '{"error":null}', 'provider_fault'],
  [403, 'blocked by proxy', 'provider_fault'],
  [404, 'not here', 'provider_fault'],
  [407, '', 'provider_fault'],
  [301, '', 'provider_fault'],
  [307, oauth('invalid_grant'), 'provider_fault'],
];

for (const [status, body, kind] of [...GOOGLE, ...STRANGERS]) {
  test(`HTTP ${status} ${body.slice(0, 60)} is ${kind}`, () => {
    assert.equal(classify({ status, body }).kind, kind);
  });
}

for (const [kind, error, codes] of MICROSOFT) {
  for (const code of codes) {
    test(`AADSTS${code} is ${kind}, also where only the text names it`, () => {
      assert.equal(classify({ body: microsoft(error, code) }).kind, kind);
      assert.equal(classify({ body: oauth(error, `AADSTS${code}: words`) }).kind, kind);
    });
  }
}

test('the first code that is known decides', () => {
  assert.equal(classify({ body: microsoft('invalid_grant', 123456, 7000215) }).kind, 'app_misconfigured');
  assert.equal(classify({ body: microsoft('invalid_grant', 123456) }).kind, 'needs_consent');
});

test('a message is one line with the code, the words and the trace id', () => {
  const { message } = classify({ body: microsoft('invalid_grant', 700082) });
  assert.equal(
    message,
    'invalid_grant: AADSTS700082: Something happened. (HTTP 400, trace_id 7d8a1b2c-0000-4000-8000-3f5e6d7c8b9a, correlation_id 11112222-bbbb-4ccc-8ddd-333344445555)',
  );
});

test('nothing that was sent or that looks like a token gets into a message', () => {
  const jwt = `eyJhbGciOi.${'A'.repeat(80)}.sig`;
  const body = oauth('invalid_grant', `token s3cret+/= of "${jwt}"\r\nSet-Cookie: x\u0001\u2028 is dead`);
  const { message } = classify({ body, secrets: ['s3cret+/='] });
  assert.doesNotMatch(message, /s3cret|AAAA/);
  assert.match(message, /\[secret\]/);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is the point
  assert.doesNotMatch(message, /[\u0000-\u001f\u2028]/);
});

test('a message stays short whatever a provider writes', () => {
  const { message } = classify({ body: oauth('x '.repeat(5000), 'word '.repeat(100_000)) });
  assert.ok(message.length < 1000, `${message.length}`);
});

test('a redirect is named by its origin only', () => {
  const { message } = classify({ status: 302, location: 'https://portal.example/login?token=abc' });
  assert.match(message, /https:\/\/portal\.example;/);
  assert.doesNotMatch(message, /abc/);
  assert.match(classify({ status: 302 }).message, /elsewhere/);
});

test('how long to wait', () => {
  const wait = (answer: Partial<TokenAnswer>) => classify(answer).retryAfterMs;
  assert.equal(wait({ status: 429, retryAfter: '7' }), 7000);
  assert.equal(wait({ status: 429 }), MINUTE);
  assert.equal(wait({ status: 429, retryAfter: 'soon' }), MINUTE);
  assert.ok((wait({ status: 429, retryAfter: '0' }) ?? 0) >= 1000, 'never at once');
  assert.equal(wait({ status: 503, retryAfter: '30' }), 30_000);
  assert.equal(wait({ status: 503 }), undefined);
  assert.equal(wait({ body: oauth('invalid_grant'), retryAfter: '5' }), undefined);
  assert.equal(wait({ body: microsoft('invalid_grant', 50196) }), 5 * MINUTE);
  assert.equal(wait({ body: microsoft('invalid_grant', 50196), retryAfter: '10' }), 5 * MINUTE);
  assert.equal(wait({ body: microsoft('invalid_grant', 50196), retryAfter: '900' }), 15 * MINUTE);
  assert.equal(wait({ status: 429, body: microsoft('invalid_grant', 50196) }), 5 * MINUTE);
});

test('Retry-After is seconds or a date, within an hour', () => {
  assert.equal(parseRetryAfter(undefined, NOW), undefined);
  assert.equal(parseRetryAfter(' 12 ', NOW), 12_000);
  assert.equal(parseRetryAfter('Fri, 20 Nov 2026 10:00:30 GMT', NOW), 30_000);
  assert.equal(parseRetryAfter('Fri, 20 Nov 2026 09:00:00 GMT', NOW), 0);
  assert.equal(parseRetryAfter('999999999', NOW), 60 * MINUTE);
  for (const nonsense of ['', 'x', '-5e', '1e999']) assert.equal(parseRetryAfter(nonsense, NOW), undefined);
});

test('whom a failure concerns', () => {
  const scope = (body: string, status = 400) => classify({ status, body }).scope;
  assert.equal(scope(oauth('invalid_grant')), 'account');
  assert.equal(scope(microsoft('invalid_grant', 50196)), 'account');
  assert.equal(scope('', 429), 'app');
  assert.equal(scope(oauth('invalid_client')), 'app');
  assert.equal(scope('', 503), 'endpoint');
});

test('what can be done is said where somebody can', () => {
  assert.match(
    cureOf(classify({ body: microsoft('invalid_client', 7000222) }).cause, ANY_ACCOUNT) ?? '',
    /create a new one/,
  );
  assert.match(cureOf(classify({ body: oauth('invalid_grant') }).cause, ANY_ACCOUNT) ?? '', /sign in again/);
  assert.match(cureOf(classify({ status: 503 }).cause, ANY_ACCOUNT) ?? '', /tries again by itself/);
});

test("a request without an answer is the provider's fault, in words", () => {
  for (const [code, words] of [
    ['ECONNREFUSED', /refused/],
    ['ENOTFOUND', /name not found/],
    ['UND_ERR_CONNECT_TIMEOUT', /no connection in time/],
    ['UND_ERR_HEADERS_TIMEOUT', /no complete answer/],
    ['CERT_HAS_EXPIRED', /CERT_HAS_EXPIRED/],
    [undefined, /request failed/],
  ] as const) {
    const failure = classifyNetworkFailure(code, 'login.example');
    assert.equal(failure.kind, 'provider_fault');
    assert.match(failure.message, words);
    assert.match(failure.message, /login\.example/);
    // The same from its line alone, and no way is blamed where the request arrived.
    assert.equal(findTokenCauseInText(failure.message).id, failure.cause);
    assert.equal(failure.cause === 'token-service-slow', code === 'UND_ERR_HEADERS_TIMEOUT');
  }
});

test('a secret that comes back is masked wherever it stands, and an id is taken only where it looks like one', () => {
  const secrets = ['0.AXcARefreshToken~of-the-mailbox', 'GOCSPX-client-secret'];
  const [token = '', secret = ''] = secrets;
  const bodies = [
    { error: 'invalid_grant', error_description: `no ${token} here` },
    { error: token, error_description: 'x' },
    { error: 'invalid_grant', error_description: Buffer.from(`u:${secret}`).toString('base64') },
    { error: 'invalid_client', error_description: `part ${token.slice(4, 20)}` },
    { error: 'invalid_client', error_description: encodeURIComponent(`${token}&${secret}`) },
    { error: 'invalid_grant', trace_id: token, correlation_id: secret },
    {
      error: 'invalid_grant',
      error_description: 'given new-access-token-1',
      access_token: 'new-access-token-1',
    },
    { error: { status: secret, message: token } },
  ];
  for (const members of bodies) {
    const { message } = classify({ body: JSON.stringify(members), secrets, contentType: `text/${secret}` });
    for (const text of [token, secret, 'new-access-token-1', token.slice(4, 16)])
      assert.ok(!message.includes(text), message);
  }
  const guid = '7d8a1b2c-0000-4000-8000-3f5e6d7c8b9a';
  const ids = JSON.stringify({ error: 'invalid_grant', trace_id: guid, correlation_id: 'plain text' });
  assert.match(classify({ body: ids, secrets }).message, new RegExp(`trace_id ${guid}\\)`));
});

test('a long description costs what its octets cost', async () => {
  for (const unit of [' ', 'Trace', '\t ', 'a '])
    await assertLinear(
      unit,
      (size) =>
        classify({
          body: JSON.stringify({ error: 'x', error_description: unit.repeat(size / unit.length) }),
        }),
      100_000,
    );
});
