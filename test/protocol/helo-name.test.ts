import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressLiteral, isDottedHostName, isHeloName } from '../../src/protocol/helo-name.ts';

test('a name with a dot or an address literal may follow EHLO, nothing else', () => {
  for (const good of ['mail.example.org', 'a.b', 'x-1.example.co.uk', '[192.0.2.1]', '[IPv6:2001:db8::1]'])
    assert.equal(isHeloName(good), true, good);
  for (const bad of [
    'vm',
    'localhost',
    '',
    '.',
    'a.',
    '.a',
    'a..b',
    'under_score.example',
    '192.0.2.1',
    '[192.0.2.1',
    '[300.0.0.1]',
    '[IPv6:192.0.2.1]',
    '[fe80::1]',
    '[IPv6:fe80::1%eth0]',
    'a b.example',
    'a.example\r\nQUIT',
    `${'a'.repeat(64)}.example`,
    `${'a.'.repeat(130)}example`,
  ])
    assert.equal(isHeloName(bad), false, bad);
  assert.equal(isDottedHostName('[192.0.2.1]'), false);
});

test('the literal of a socket address', () => {
  assert.equal(addressLiteral('192.0.2.1'), '[192.0.2.1]');
  assert.equal(addressLiteral('::ffff:192.0.2.1'), '[192.0.2.1]');
  assert.equal(addressLiteral('fe80::1%eth0'), '[IPv6:fe80::1]');
  assert.equal(isHeloName(addressLiteral('2001:db8::1')), true);
});
