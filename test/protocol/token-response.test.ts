import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { judgeTokenAnswer, refreshTokenIn, type TokenJudgement } from '../../src/protocol/token-response.ts';

const judge = (body: string, status = 200): TokenJudgement =>
  judgeTokenAnswer({ status, body, receivedAt: 0, secrets: [], contentType: 'text/html; charset=utf-8' });
const judgeJson = (members: object): TokenJudgement =>
  judge(JSON.stringify({ access_token: 'ya29.good', expires_in: 3599, token_type: 'Bearer', ...members }));

const refused = (judgement: TokenJudgement, words: RegExp): void => {
  assert.equal(judgement.ok, false);
  if (judgement.ok) return;
  assert.equal(judgement.failure.kind, 'provider_fault');
  assert.match(judgement.failure.message, words);
};
const granted = (judgement: TokenJudgement) => {
  assert.ok(judgement.ok, JSON.stringify(judgement));
  return judgement.grant;
};

test('a plain grant', () => {
  assert.deepEqual(granted(judgeJson({ scope: 'https://mail.google.com/', ext_expires_in: 7200 })), {
    accessToken: 'ya29.good',
    lifetimeMs: 3_599_000,
    notes: [],
  });
});

test('a new refresh token is taken from every 2xx answer, whatever else is wrong with it', () => {
  const token = '0.AXnew';
  for (const members of [
    {},
    { access_token: undefined },
    { expires_in: 0 },
    { expires_in: -5 },
    { token_type: 'mac' },
    { access_token: 'a\r\nb' },
    { error: 'server_error', access_token: undefined },
  ]) {
    const body = JSON.stringify({ access_token: 'a', expires_in: 3599, ...members, refresh_token: token });
    assert.equal(refreshTokenIn(200, body), token, JSON.stringify(members));
    assert.equal(refreshTokenIn(201, body), token);
  }
  for (const odd of ['with space', 'ü', 'a\u0001', 'x'.repeat(20_000)])
    assert.equal(refreshTokenIn(200, JSON.stringify({ refresh_token: odd })), odd);
  for (const none of [null, '', 7, {}, undefined, 'x'.repeat(100_000)])
    assert.equal(refreshTokenIn(200, JSON.stringify({ refresh_token: none })), undefined);
  assert.equal(refreshTokenIn(400, JSON.stringify({ refresh_token: token })), undefined);
  assert.equal(refreshTokenIn(200, '<html>'), undefined);
});

test('of a torn answer the refresh token is taken where it is whole', () => {
  const whole = '{"token_type":"Bearer","refresh_token": "0.AX\\"new\\u0041","access_token":"x"}';
  for (let cut = 0; cut < whole.length; cut += 1) {
    const came = refreshTokenIn(200, whole.slice(0, cut));
    const isWhole = cut >= whole.indexOf(',"access_token"');
    assert.equal(came, isWhole ? '0.AX"newA' : undefined, whole.slice(0, cut));
  }
});

for (const [what, body, words] of [
  [
    'HTML',
    '<!doctype html><title>Sign in</title>',
    /34|3\d octets that are not a JSON object \(text\/html\)/,
  ],
  ['nothing', '', /0 octets/],
  ['truncated JSON', '{"access_token":"ya29.secret","expires', /not a JSON object/],
  ['an array', '["ya29.secret"]', /not a JSON object/],
  ['a text', '"ya29.secret"', /not a JSON object/],
  ['null', 'null', /not a JSON object/],
  ['no token', '{"expires_in":3599}', /without an access_token/],
] as const) {
  test(`200 with ${what} is no grant`, () => {
    const judgement = judge(body);
    refused(judgement, words);
    assert.doesNotMatch(JSON.stringify(judgement), /secret/);
  });
}

test('access tokens that cannot be one are refused and not repeated', () => {
  for (const [token, words] of [
    ['', /without/],
    [null, /without/],
    [7, /without/],
    [{}, /without/],
    ['secret\r\nMAIL FROM:<x>', /characters/],
    ['secret\u0001auth=Bearer y', /characters/],
    ['secret token', /characters/],
    ['secret\u0000', /characters/],
    ['secrét', /characters/],
    ['secret\n', /characters/],
    [`secret${'x'.repeat(9000)}`, /too long/],
  ] as const) {
    const judgement = judgeJson({ access_token: token });
    refused(judgement, words);
    assert.doesNotMatch(JSON.stringify(judgement), /secr/);
  }
});

test('a long token as service accounts get it is fine', () => {
  assert.equal(granted(judgeJson({ access_token: 'y'.repeat(2500) })).accessToken.length, 2500);
});

test('a token of another type is refused', () => {
  refused(judgeJson({ token_type: 'mac' }), /Bearer/);
  assert.ok(judgeJson({ token_type: 'bearer' }).ok);
  assert.ok(judgeJson({ token_type: undefined }).ok);
});

test('expires_in is believed', () => {
  for (const [said, ms] of [
    [60, 60_000],
    ['3599', 3_599_000],
    [100_800, 100_800_000],
    [0.5, 500],
  ] as const) {
    const grant = granted(judgeJson({ expires_in: said }));
    assert.equal(grant.lifetimeMs, ms);
    assert.deepEqual(grant.notes, []);
  }
});

test('without a sound expires_in a token is used for minutes only', () => {
  for (const said of [undefined, null, 'soon', '', [], {}, true]) {
    const grant = granted(judgeJson({ expires_in: said }));
    assert.ok(grant.lifetimeMs > 60_000 && grant.lifetimeMs <= 600_000);
    assert.equal(grant.notes.length, 1);
  }
});

test('a huge expires_in is bounded, a negative one refused', () => {
  for (const huge of [1e12, 1e300, '999999999999']) {
    const grant = granted(judgeJson({ expires_in: huge }));
    assert.ok(grant.lifetimeMs <= 8 * 24 * 3_600_000);
    assert.equal(grant.notes.length, 1);
  }
  for (const past of [0, -1, '-3600']) refused(judgeJson({ expires_in: past }), /already ended/);
  assert.ok(granted(judge('{"access_token":"x","expires_in":1e999}')).lifetimeMs <= 8 * 24 * 3_600_000);
});

test('an error under status 200 is an error', () => {
  const judgement = judge('{"error":"invalid_grant"}');
  assert.ok(!judgement.ok && judgement.failure.kind === 'needs_consent');
});

test('whatever comes, nothing throws and no grant is unsendable', () => {
  const value = fc.oneof(fc.string(), fc.integer(), fc.double(), fc.constant(null), fc.object());
  const members = fc.record(
    { access_token: value, expires_in: value, refresh_token: value, token_type: value, error: value },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(
      fc.oneof(
        members.map((m) => JSON.stringify(m)),
        fc.string(),
        fc.json(),
      ),
      fc.integer({ min: 200, max: 599 }),
      (body, status) => {
        const judgement = judge(body, status);
        if (!judgement.ok) return judgement.failure.message !== '';
        const { accessToken, lifetimeMs } = judgement.grant;
        return /^[!-~]+$/.test(accessToken) && lifetimeMs > 0 && Number.isFinite(lifetimeMs);
      },
    ),
  );
});
