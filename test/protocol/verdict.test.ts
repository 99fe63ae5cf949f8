import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ANY_ACCOUNT, cureOf } from '../../src/protocol/causes/book.ts';
import { formatReply, formatReplyText } from '../../src/protocol/reply.ts';
import { parseReply } from '../../src/protocol/reply-parser.ts';
import {
  judge,
  type LossCause,
  type Stage,
  type TokenTrouble,
  type Verdict,
} from '../../src/protocol/verdict.ts';
import { rows } from '../support/verdict-rows.ts';

const ACCOUNT = 'ann@example.com';

/** Judges wire text (lines separated by LF) said at `stage`. */
function said(stage: Stage, wire: string): Verdict {
  const reply = parseReply(wire);
  assert.ok(reply, wire);
  return judge({ kind: 'reply', stage, reply, account: ACCOUNT, sender: 'boss@example.com' });
}

for (const row of rows) {
  test(`at ${row.stage}: ${row.wire.slice(0, 90).replace(/\n/g, ' ')}`, () => {
    const verdict = said(row.stage, row.wire);
    assert.equal(verdict.class, row.class);
    assert.ok(formatReply(verdict.answer).startsWith(row.answer), formatReply(verdict.answer));
    assert.equal(verdict.breaker, row.breaker ?? 'none');
    assert.equal(verdict.renewToken, row.renewToken ?? false);
    assert.equal(verdict.retry, row.retry ?? 'none');
    assert.equal(verdict.slowDown, row.slowDown ?? false);
    const { pause } = verdict;
    assert.deepEqual(pause && [pause.scope, pause.status, pause.stepsMinutes], row.pause);
    // One line of at most 512 octets with code and CRLF, nothing in it that ends a line.
    const line = `${formatReply(verdict.answer)}\r\n`;
    assert.ok(Buffer.byteLength(line) <= 512);
    assert.doesNotMatch(formatReplyText(verdict.answer), /[\r\n]/);
  });
}

test('what a policy refusal says to the operator names the place to go', () => {
  const facts = { ...ANY_ACCOUNT, user: ACCOUNT };
  const { cause } = said(
    'auth',
    '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.',
  );
  assert.match(
    cureOf(cause, facts) ?? '',
    /Set-CASMailbox -Identity ann@example\.com .*https:\/\/aka\.ms\/smtp_auth_disabled/,
  );
  assert.match(cureOf(said('end', '554 5.2.2 mailbox full').cause, facts) ?? '', /free space/);
});

test('every reply of the provider has a row in the book of causes', () => {
  for (const row of rows) assert.ok(cureOf(said(row.stage, row.wire).cause, ANY_ACCOUNT), row.wire);
});

test('trouble of account, token or provider is never 5xx, whatever the wire says', () => {
  for (const row of rows) {
    const { class: cls, answer } = said(row.stage, row.wire);
    if (cls !== 'message_permanent') assert.ok(answer.code >= 400 && answer.code < 500, row.wire);
    assert.notEqual(answer.code, 421);
    assert.notEqual(answer.code, 454);
    assert.notEqual(answer.code, 535);
  }
});

test('a connection that is lost: unknown after the final byte, stale in the pool, else the provider', () => {
  const causes: readonly LossCause[] = ['dns', 'tcp', 'tls', 'timeout', 'eof', 'reset', 'garbage'];
  for (const cause of causes) {
    const after = judge({
      kind: 'lost',
      stage: 'end',
      cause,
      reused: true,
      finalByteSent: true,
      detail: 'x',
    });
    assert.equal(after.class, 'unknown');
    assert.equal(formatReply(after.answer).slice(0, 9), '451 4.4.2');
    assert.equal(after.retry, 'none');
    assert.equal(after.breaker, cause === 'timeout' ? 'full' : 'none');
    const pooled = judge({
      kind: 'lost',
      stage: 'mail',
      cause,
      reused: true,
      finalByteSent: false,
      detail: 'x',
    });
    assert.deepEqual([pooled.class, pooled.retry, pooled.breaker], ['stale', 'fresh', 'none']);
    const fresh = judge({
      kind: 'lost',
      stage: 'mail',
      cause,
      reused: false,
      finalByteSent: false,
      detail: 'x',
    });
    assert.deepEqual(
      [fresh.class, fresh.retry, fresh.breaker, fresh.answer.code],
      ['provider', 'none', 'full', 451],
    );
    for (const stage of ['connect', 'greeting', 'ehlo', 'auth'] as const) {
      const opening = judge({ kind: 'lost', stage, cause, reused: false, finalByteSent: false, detail: 'x' });
      assert.deepEqual(
        [opening.class, opening.breaker, opening.answer.enhanced],
        ['provider', 'full', '4.4.1'],
      );
    }
  }
});

test('no token: always 4xx, each with its own enhanced code', () => {
  const expected: Record<TokenTrouble, string> = {
    provider_fault: '451 4.4.3',
    throttled: '451 4.4.3',
    needs_consent: '451 4.7.0',
    app_misconfigured: '451 4.7.0',
    clock_skew: '451 4.3.0',
    bad_request: '451 4.3.5',
    unknown_account: '451 4.3.2',
  };
  for (const [code, answer] of Object.entries(expected)) {
    const verdict = judge({ kind: 'token', code: code as TokenTrouble, account: ACCOUNT, detail: 'why' });
    assert.ok(formatReply(verdict.answer).startsWith(answer), code);
    assert.equal(verdict.breaker, 'none');
  }
});

test('our own limits say how long to wait', () => {
  const local = (
    cause: 'breaker_open' | 'acquire_timeout' | 'rate_limited' | 'daily_limit' | 'draining' | 'not_served',
    waitSeconds?: number,
  ) =>
    formatReply(
      judge({ kind: 'local', cause, ...(waitSeconds === undefined ? {} : { waitSeconds }) }).answer,
    );
  assert.match(local('rate_limited', 42), /^451 4\.7\.1 .*42 s$/);
  assert.match(local('daily_limit', 3600), /^451 4\.7\.1 .*3600 s$/);
  assert.match(local('breaker_open'), /^451 4\.3\.2 /);
  assert.match(local('acquire_timeout'), /^451 4\.3\.2 /);
  assert.match(local('draining'), /^451 4\.3\.2 .*paused by the operator/);
  assert.match(local('not_served'), /^451 4\.3\.2 .*renamed/);
});

test('an address in the reply decides nothing: whoever chooses a recipient cannot pause the account', () => {
  for (const local of [
    'RefuseQuota',
    'SubmissionQuotaExceeded',
    'SendAsDenied',
    'timeout',
    'peak',
    'WASCL.Suspend',
  ]) {
    for (const wire of [`550 5.1.1 <${local}@x.net>: no such user`, `450 4.2.1 <${local}@x.net> busy`]) {
      const verdict = said('rcpt', wire);
      assert.equal(formatReply(verdict.answer), wire);
      assert.equal(verdict.pause, undefined);
    }
  }
});
