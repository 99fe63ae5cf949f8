/** What Graph says, what it means, and what the client hears of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ANY_ACCOUNT, cureOf, explain } from '../../../src/protocol/causes/book.ts';
import type { GraphCall } from '../../../src/protocol/causes/graph-causes.ts';
import { judgeGraph, parseGraphRefusal } from '../../../src/protocol/graph-answer.ts';
import { formatReply } from '../../../src/protocol/reply.ts';
import { parseRetryAfter } from '../../../src/protocol/retry-after.ts';

const NOW = 1_800_000_000_000;
function judged(
  call: GraphCall,
  status: number,
  code = '',
  message = '',
  headers: Record<string, string> = {},
) {
  const body = code === '' ? message : JSON.stringify({ error: { code, message } });
  const refusal = parseGraphRefusal(call, { status, headers, body }, NOW);
  return judgeGraph(refusal, { account: 'ann', sender: 'eve@example.org' });
}

const ROWS: readonly (readonly [GraphCall, number, string, string, RegExp, string, string | undefined])[] = [
  [
    'create',
    400,
    'ErrorMimeContentInvalidBase64String',
    'Invalid base64',
    /^554 5\.6\.0/,
    'message_permanent',
    undefined,
  ],
  [
    'create',
    400,
    'BadRequest',
    'The maximum request length supported is 4MB.',
    /^552 5\.3\.4/,
    'message_permanent',
    undefined,
  ],
  ['create', 413, '', 'Request Entity Too Large', /^552 5\.3\.4/, 'message_permanent', undefined],
  ['send', 400, 'ErrorInvalidRecipients', 'At least one', /^550 5\.1\.3/, 'message_permanent', undefined],
  [
    'send',
    403,
    'ErrorSendAsDenied',
    'not allowed',
    /^550 5\.7\.60 sender eve@example\.org/,
    'message_permanent',
    undefined,
  ],
  ['send', 403, 'ErrorAccessDenied', 'Access is denied', /^451 4\.7\.0/, 'account', 'misconfigured'],
  [
    'create',
    401,
    'InvalidAuthenticationToken',
    'Invalid audience.',
    /^451 4\.7\.0/,
    'account',
    'needs_consent',
  ],
  [
    'create',
    404,
    'MailboxNotEnabledForRESTAPI',
    'REST API is not yet supported',
    /^451 4\.7\.0/,
    'account',
    'misconfigured',
  ],
  [
    'create',
    404,
    'ErrorInvalidUser',
    'The requested user is invalid.',
    /^451 4\.7\.0/,
    'account',
    'misconfigured',
  ],
  ['create', 507, 'ErrorQuotaExceeded', 'The mailbox is full', /^451 4\.2\.2/, 'account', 'misconfigured'],
  ['send', 429, 'ErrorExceededMessageLimit', 'limit', /^452 4\.7\.1/, 'throttled', 'throttled'],
  [
    'create',
    429,
    'ApplicationThrottled',
    'over its MailboxConcurrency limit',
    /^451 4\.7\.1/,
    'throttled',
    undefined,
  ],
  ['create', 503, 'ErrorServerBusy', 'busy', /^451 4\.3\.2/, 'provider', undefined],
  ['create', 504, '', '<html>gateway</html>', /^451 4\.3\.2/, 'provider', undefined],
  ['create', 200, '', '', /^451 4\.3\.5/, 'local', undefined],
  ['look', 404, 'ErrorItemNotFound', 'gone', /^451 4\.4\.2/, 'message_temporary', undefined],
  ['create', 415, 'x', 'y', /^451 4\.3\.5/, 'local', undefined],
];
for (const [call, status, code, message, heard, cls, state] of ROWS)
  test(`${call} ${status} ${code || message}: ${heard.source}`, () => {
    const verdict = judged(call, status, code, message);
    assert.match(formatReply(verdict.answer), heard);
    assert.equal(verdict.class, cls);
    assert.equal(verdict.pause?.status, state);
    assert.ok(cureOf(verdict.cause, ANY_ACCOUNT), 'the book has a cure');
    // Trouble of the account never bounces mail.
    if (verdict.class !== 'message_permanent') assert.ok(verdict.answer.code < 500);
  });

test('the missing permission is named exactly, for a person and for an application', () => {
  const cure = (call: GraphCall, grant: string): string =>
    cureOf(judged(call, 403, 'ErrorAccessDenied').cause, { ...ANY_ACCOUNT, grant }) ?? '';
  assert.match(
    cure('send', 'client_credentials'),
    /application permission Mail\.Send .*"Application Mail\.Send"/,
  );
  assert.match(cure('create', 'client_credentials'), /application permission Mail\.ReadWrite /);
  assert.match(cure('send', 'refresh_token'), /delegated permission Mail\.Send .*sign in again/);
});

test('a line of check is explained by the same rows', () => {
  const trouble = { ...ANY_ACCOUNT, stage: 'graph' as const };
  assert.match(explain({ ...trouble, said: 'send 403 ErrorAccessDenied no' }).what, /Mail\.Send/);
  assert.match(explain({ ...trouble, said: 'create 404 ErrorInvalidUser no' }).what, /no mailbox/);
  assert.match(explain({ ...trouble, said: 'ECONNREFUSED' }).what, /nothing listens/);
});

test('texts of Graph are cut and cleaned; Retry-After is believed within an hour', () => {
  const refusal = parseGraphRefusal(
    'create',
    { status: 400, headers: { 'request-id': 'a\u0000b' }, body: `\u001b[31m${'x'.repeat(10_000)}` },
    NOW,
  );
  assert.ok(refusal.message.length <= 300);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is the point
  assert.doesNotMatch(refusal.message, /[\u0000-\u001f]/);
  assert.equal(parseRetryAfter('3', NOW), 3_000);
  assert.equal(parseRetryAfter('999999', NOW), 3_600_000);
  assert.equal(parseRetryAfter(new Date(NOW + 5_000).toUTCString(), NOW), 5_000);
  assert.equal(parseRetryAfter('soon', NOW), undefined);
  assert.equal(parseRetryAfter(new Date(NOW - 5_000).toUTCString(), NOW), 0);
});
