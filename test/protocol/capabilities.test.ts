import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCapabilities } from '../../src/protocol/capabilities.ts';

test("Gmail's and Microsoft's EHLO after authentication", () => {
  const gmail = parseCapabilities([
    'smtp.gmail.com at your service, [192.0.2.1]',
    'SIZE 35882577',
    '8BITMIME',
    'AUTH LOGIN PLAIN XOAUTH2 PLAIN-CLIENTTOKEN OAUTHBEARER XOAUTH',
    'ENHANCEDSTATUSCODES',
    'PIPELINING',
    'CHUNKING',
    'SMTPUTF8',
  ]);
  assert.deepEqual(
    [
      gmail.size,
      gmail.chunking,
      gmail.pipelining,
      gmail.smtpUtf8,
      gmail.eightBitMime,
      gmail.dsn,
      gmail.binaryMime,
    ],
    [35_882_577, true, true, true, true, false, false],
  );
  assert.ok(gmail.authMechanisms.includes('XOAUTH2'));
  const microsoft = parseCapabilities([
    'POD Hello',
    'SIZE 157286400',
    'DSN',
    'BINARYMIME',
    'auth=LOGIN',
    'chunking',
  ]);
  assert.deepEqual(
    [microsoft.dsn, microsoft.binaryMime, microsoft.chunking, microsoft.pipelining],
    [true, true, true, false],
  );
  assert.deepEqual(microsoft.authMechanisms, ['LOGIN']);
});

test('the greeting line offers nothing, SIZE may have no number', () => {
  assert.equal(parseCapabilities(['CHUNKING']).chunking, false);
  assert.equal(parseCapabilities(['x', 'SIZE']).size, 0);
  assert.equal(parseCapabilities(['x', 'SIZE many']).size, 0);
  assert.equal(parseCapabilities(['x']).size, undefined);
});
