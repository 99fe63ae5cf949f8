/** What is said over the token socket, and what a token may be shown to. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missingPermission } from '../../src/programs/token-claims.ts';
import { isMeantFor } from '../../src/programs/token-hosts.ts';
import { parseQuestion, parseTokenReply } from '../../src/programs/token-wire.ts';
import type { TokenResource } from '../../src/tokens/access-token.ts';

test('a question names account and resource; anything else is none', () => {
  assert.deepEqual(parseQuestion('{"account":"a@x","resource":"imap"}'), {
    account: 'a@x',
    resource: 'imap',
  });
  assert.deepEqual(parseQuestion('{"account":"a","resource":"smtp","host":"h","refused":"t","later":1}'), {
    account: 'a',
    resource: 'smtp',
    host: 'h',
    refused: 't',
  });
  for (const line of [
    '',
    'GET / HTTP/1.1',
    'null',
    '[]',
    '"a"',
    '{"account":"a@x"}',
    '{"account":1,"resource":"smtp"}',
    '{"account":"a@x","resource":"pop3"}',
    '{"account":"a@x","resource":"__proto__"}',
    '{"account":"a@x","resource":"smtp","host":{}}',
    '{"account":"a@x","resource":"smtp","refused":["t"]}',
  ])
    assert.equal(parseQuestion(line), undefined, line);
});

test('an answer is whole or none', () => {
  const given = {
    ok: true,
    account: 'a',
    user: 'a@x',
    access_token: 't',
    expires_at: '2030-01-01T00:00:00Z',
  };
  assert.deepEqual(parseTokenReply(JSON.stringify(given)), given);
  assert.deepEqual(parseTokenReply('{"ok":false,"error":"no","cure":"do"}'), {
    ok: false,
    error: 'no',
    cure: 'do',
  });
  for (const line of [
    '',
    '{}',
    '{"ok":true}',
    '{"ok":false}',
    '{"ok":true,"account":"a","user":"u"}',
    '220 hello',
  ])
    assert.equal(parseTokenReply(line), undefined, line);
});

test('a token is shown to servers of its account alone', () => {
  const table: readonly (readonly [upstream: string, resource: TokenResource, host: string, is: boolean])[] =
    [
      ['smtp.gmail.com', 'smtp', 'smtp.gmail.com', true],
      ['smtp.gmail.com', 'smtp', 'SMTP.GMAIL.COM:587', true],
      ['smtp.gmail.com', 'smtp', 'imap.gmail.com', false],
      ['smtp.gmail.com', 'smtp', 'smtp.gmail.com.evil.example', false],
      ['smtp.gmail.com', 'smtp', '', false],
      ['smtp.gmail.com', 'imap', 'imap.gmail.com:993', true],
      ['smtp.gmail.com', 'imap', 'gmail.com', false],
      ['smtp.gmail.com', 'imap', 'evil.example', false],
      ['smtp.gmail.com', 'imap', 'imap.evil.gmail.com', false],
      ['smtp.office365.com', 'imap', 'outlook.office365.com', true],
      ['smtp.office365.com', 'imap', 'evil.office365.com', false],
      ['smtp.partner.outlook.cn', 'imap', 'imap.partner.outlook.cn', true],
      ['127.0.0.1', 'imap', '127.0.0.1:1143', true],
      ['127.0.0.1', 'imap', '128.0.0.1', false],
      ['localhost', 'imap', 'localhost', true],
      ['mail.example.co.uk', 'imap', 'imap.other.co.uk', false],
      ['example.co.uk', 'imap', 'imap.co.uk', false],
      ['example.co.uk', 'imap', 'example.co.uk', true],
      ['smtp.office365.com', 'graph', 'graph.microsoft.com', true],
      ['smtp.office365.com', 'graph', 'graph.microsoft.com.evil.example', false],
    ];
  for (const [host, resource, asked, is] of table)
    assert.equal(
      isMeantFor({ upstream: { host, port: 587, tls: 'starttls' } }, resource, asked),
      is,
      `${host} ${asked}`,
    );
});

test('what a token says it lacks is told; one that cannot be read lacks nothing', () => {
  const jwt = (claims: object): string => `h.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.s`;
  assert.equal(missingPermission(jwt({ scp: 'SMTP.Send' }), 'imap'), 'IMAP.AccessAsUser.All');
  assert.equal(missingPermission(jwt({ scp: 'IMAP.AccessAsUser.All SMTP.Send' }), 'imap'), undefined);
  assert.equal(missingPermission(jwt({ roles: ['SMTP.SendAsApp'] }), 'imap'), 'IMAP.AccessAsApp');
  assert.equal(missingPermission(jwt({ roles: ['SMTP.SendAsApp', 'IMAP.AccessAsApp'] }), 'imap'), undefined);
  assert.equal(missingPermission(jwt({ scp: 'User.Read' }), 'smtp'), 'SMTP.Send');
  for (const text of ['ya29.opaque', '', '..', 'h.bm90IGpzb24.s', jwt({}), jwt({ scp: 7 })])
    assert.equal(missingPermission(text, 'imap'), undefined, text);
});
