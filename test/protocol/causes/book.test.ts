import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  ANY_ACCOUNT,
  CAUSES,
  type CauseStage,
  cureOf,
  explain,
  findReplyCause,
  findSignInCause,
  findTokenCause,
  findTokenCauseInText,
} from '../../../src/protocol/causes/book.ts';
import { explainCause } from '../../../src/protocol/causes/cause.ts';
import { formatTroubleshooting } from '../../../src/protocol/causes/document.ts';
import { TOKEN_CAUSES } from '../../../src/protocol/causes/token-causes.ts';

const gmail = {
  ...ANY_ACCOUNT,
  provider: 'gmail',
  host: 'smtp.gmail.com',
  user: 'ann@gmail.com',
  account: 'desk@gmail.com',
};

test('every cause has its own name, says what happened and what to do', () => {
  assert.equal(new Set(CAUSES.map((cause) => cause.id)).size, CAUSES.length);
  for (const cause of CAUSES) {
    assert.match(cause.id, /^[a-z0-9-]+$/);
    assert.ok(cause.symptom.length > 0 && cause.stages.length > 0, cause.id);
    for (const grant of ['refresh_token', 'client_credentials', 'jwt_bearer'])
      for (const provider of ['gmail', 'outlook', 'own']) {
        const { what, cure } = explainCause(cause, { ...ANY_ACCOUNT, grant, provider });
        assert.ok(what.length > 0 && cure.length > 0, cause.id);
        // Words are joined to other text: no capital at the start that is no name, no full stop.
        assert.doesNotMatch(cure, /\.$/, cause.id);
      }
  }
});

test('no AADSTS number stands in two rows', () => {
  const numbers = TOKEN_CAUSES.flatMap((cause) => cause.aadsts ?? []);
  assert.equal(new Set(numbers).size, numbers.length);
});

test('whatever is said at whatever stage has a row', () => {
  const stages: readonly CauseStage[] = [
    'sign-in',
    'token',
    'dns',
    'tcp',
    'tls',
    'greeting',
    'ehlo',
    'auth',
    'mail',
    'rcpt',
    'body',
    'end',
  ];
  for (const stage of stages)
    for (const said of [
      '',
      '999 gibberish',
      '250 2.0.0 OK',
      '450 4.9.9 x',
      '599 5.9.9 x',
      '\u0000\u001b[2J',
      'x'.repeat(100_000),
    ]) {
      const { what, cure } = explain({ ...ANY_ACCOUNT, stage, said });
      assert.ok(what.length > 0 && cure.length > 0, `${stage} ${said.slice(0, 20)}`);
    }
});

test('a Google app in "Testing" is named where its refresh token has ended', () => {
  const { id } = findTokenCause({
    status: 400,
    codes: [],
    error: 'invalid_grant',
    description: 'Token has been expired or revoked.',
  });
  assert.match(cureOf(id, gmail) ?? '', /7 days.*In production.*account add desk@gmail\.com --replace/);
});

test('where a person must sign in again each way to do so is named: dashboard, link for the owner, command', () => {
  const signIn = TOKEN_CAUSES.filter((cause) => cause.class === 'needs_consent').map((cause) => [
    cause.id,
    cureOf(cause.id, gmail) ?? '',
  ]);
  assert.ok(signIn.some(([, cure = '']) => /sign in again:/.test(cure)));
  for (const [id = '', cure = ''] of signIn)
    if (/account add/.test(cure))
      assert.match(
        cure,
        /"Sign in" in the dashboard.*account invite desk@gmail\.com\).*account add desk@gmail\.com --replace/,
        id,
      );
});

test('a failure of which only the line is left has the same cause as the answer had', () => {
  for (const cause of TOKEN_CAUSES)
    for (const code of cause.aadsts ?? [])
      assert.equal(findTokenCauseInText(`invalid_grant: AADSTS${code}: words (HTTP 400)`).id, cause.id);
  assert.equal(
    findTokenCauseInText('token endpoint x: name not found (ENOTFOUND)').id,
    'token-service-unreachable',
  );
  assert.equal(findTokenCauseInText('token endpoint x: no complete answer in time').id, 'token-service-slow');
  assert.equal(
    findTokenCauseInText('token endpoint x: request failed (CERT_HAS_EXPIRED)').id,
    'token-service-certificate',
  );
});

test('a fault of the endpoint never speaks about the credential', () => {
  for (const status of [408, 500, 502, 503, 504])
    assert.equal(
      findTokenCause({ status, codes: [700082], error: 'invalid_grant', description: '' }).class,
      'provider_fault',
    );
});

test('what a person meets at the sign-in', () => {
  assert.equal(findSignInCause('access_denied', '').id, 'sign-in-declined');
  assert.equal(
    findSignInCause('invalid_client', 'AADSTS7000218: body must contain client_secret').id,
    'client-is-confidential',
  );
  assert.equal(
    findSignInCause('invalid_request', 'AADSTS50011: The redirect URI does not match').id,
    'sign-in-redirect',
  );
  assert.equal(findSignInCause('invalid_scope', '').id, 'scope-wrong');
});

test('a recipient is never mistaken for the account', () => {
  const account = new Set(['restricted', 'quota', 'submission_rate', 'too_many_at_once']);
  for (const reply of [
    { code: 554, enhanced: '5.2.2', text: 'mailbox full' },
    { code: 452, enhanced: '4.2.2', text: 'over quota' },
    {
      code: 550,
      enhanced: '5.2.1',
      text: 'The user you are trying to contact is receiving mail at a rate that',
    },
    { code: 550, enhanced: '5.1.1', text: '<"RefuseQuota x"@y.net>: no such user' },
    { code: 432, enhanced: '4.3.2', text: 'STOREDRV; recipient thread limit exceeded' },
  ])
    assert.ok(!account.has(findReplyCause('rcpt', reply).class), reply.text);
});

test('docs/troubleshooting.md is the book as it stands', () => {
  const file = new URL('../../../../docs/troubleshooting.md', import.meta.url);
  assert.equal(readFileSync(file, 'utf8'), formatTroubleshooting(), 'run: npm run troubleshooting');
});
