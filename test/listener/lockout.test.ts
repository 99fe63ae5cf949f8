import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLockout, lockoutKey } from '../../src/listener/lockout.ts';

test('the delay doubles up to a bound and is forgotten after an hour', () => {
  const lockout = createLockout();
  const delays: number[] = [];
  let now = 0;
  for (let i = 0; i < 20; i++) {
    lockout.failed('k', now);
    const until = lockout.lockedUntil('k', now) ?? now;
    delays.push(until - now);
    now = until;
  }
  assert.deepEqual(delays.slice(0, 7), [0, 0, 0, 1000, 2000, 4000, 8000]);
  assert.equal(Math.max(...delays), 15 * 60_000);
  lockout.failed('k', now + 3_600_000);
  assert.equal(lockout.lockedUntil('k', now + 3_600_000), undefined);
});

test('the table does not grow without bound', () => {
  const lockout = createLockout();
  for (let i = 0; i < 4; i++) lockout.failed('first', 0);
  assert.notEqual(lockout.lockedUntil('first', 0), undefined);
  for (let i = 0; i < 20_000; i++) lockout.failed(`k${i}`, 0);
  assert.equal(lockout.lockedUntil('first', 0), undefined);
});

test('IPv6 neighbours in one /64 share a row', () => {
  assert.equal(lockoutKey('2001:db8:1:2:3:4:5:6'), lockoutKey('2001:db8:1:2::9'));
  assert.equal(lockoutKey('2001:db8::1'), lockoutKey('2001:db8::2:3'));
  assert.notEqual(lockoutKey('2001:db8:1:2::1'), lockoutKey('2001:db8:1:3::1'));
  assert.equal(lockoutKey('192.0.2.1'), '192.0.2.1');
});
