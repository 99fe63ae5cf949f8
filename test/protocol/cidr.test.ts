import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isLoopbackAddress, isLoopbackHost, parseRanges } from '../../src/protocol/cidr.ts';

test('an address is in the ranges that hold it', () => {
  const isIn = parseRanges(['10.0.0.0/8', '192.0.2.7', '2001:db8::/32', ' fe80::1 ']);
  for (const inside of [
    '10.0.0.0',
    '10.255.255.255',
    '192.0.2.7',
    '2001:db8:1::5',
    'fe80::1',
    '::ffff:10.1.2.3',
  ]) {
    assert.equal(isIn(inside), true, inside);
  }
  for (const outside of [
    '11.0.0.0',
    '192.0.2.8',
    '2001:db9::1',
    'fe80::2',
    '::ffff:11.0.0.1',
    '',
    'x',
    '10.0.0',
  ]) {
    assert.equal(isIn(outside), false, outside);
  }
  assert.equal(parseRanges(['0.0.0.0/0'])('203.0.113.9'), true);
  assert.equal(parseRanges([])('127.0.0.1'), false);
});

for (const bad of [
  '',
  '10.0.0.0/33',
  '10.0.0/8',
  '::/129',
  '10.0.0.0/-1',
  '10.0.0.0/8/8',
  '10.0.0.0/',
  'host.test',
]) {
  test(`refuses ${JSON.stringify(bad)} and names it`, () => {
    assert.throws(
      () => parseRanges([bad]),
      (e: Error) => e instanceof RangeError && e.message.includes(bad),
    );
  });
}

test('knows loopback addresses', () => {
  for (const yes of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1'])
    assert.equal(isLoopbackAddress(yes), true);
  for (const no of ['128.0.0.1', '::2', '0.0.0.0', '::', 'localhost', ''])
    assert.equal(isLoopbackAddress(no), false);
});

test('a host name or address that can only be this machine', () => {
  for (const host of [
    '127.0.0.1',
    '127.8.9.1',
    'localhost',
    'LOCALHOST',
    '::1',
    '[::1]',
    '::ffff:127.0.0.1',
  ]) {
    assert.ok(isLoopbackHost(host), host);
  }
  for (const host of [
    // Some resolvers ask DNS for it.
    'a.localhost',
    '0.0.0.0',
    '::',
    '10.0.0.1',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    '127.evil.example',
    '',
  ]) {
    assert.ok(!isLoopbackHost(host), host);
  }
});
