import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLockout, type Lockout, lockoutKey } from '../../src/listener/lockout.ts';

/** A wrong password at `now`; false where it is not listened to. */
function fail(lockout: Lockout, key: string, now: number): boolean {
  if (!('go' in lockout.begin(key, now))) return false;
  lockout.end(key, now, false, true);
  return true;
}

function delay(lockout: Lockout, key: string, now: number): number {
  const turn = lockout.begin(key, now);
  if ('go' in turn) lockout.end(key, now, true, false);
  return 'until' in turn ? turn.until - now : 0;
}

test('the delay doubles up to a bound and is forgotten after an hour', () => {
  const lockout = createLockout();
  const delays: number[] = [];
  let now = 0;
  for (let i = 0; i < 20; i++) {
    assert.ok(fail(lockout, 'k', now));
    delays.push(delay(lockout, 'k', now));
    now += delays.at(-1) ?? 0;
  }
  assert.deepEqual(delays.slice(0, 7), [0, 0, 0, 1000, 2000, 4000, 8000]);
  assert.equal(Math.max(...delays), 15 * 60_000);
  assert.ok(fail(lockout, 'k', now + 3_600_000));
  assert.equal(delay(lockout, 'k', now + 3_600_000), 0);
});

test('a check counts from its start: those beyond the free ones wait for it', async () => {
  const lockout = createLockout();
  for (let i = 0; i < 3; i++) assert.ok('go' in lockout.begin('k', 0));
  const fourth = lockout.begin('k', 0);
  assert.ok('wait' in fourth);
  lockout.end('k', 0, true, true);
  await fourth.wait;
  assert.ok('go' in lockout.begin('k', 0));
  for (let i = 0; i < 3; i++) lockout.end('k', 0, false, true);
  assert.ok('go' in lockout.begin('k', 0));
  assert.ok('wait' in lockout.begin('k', 0));
  lockout.end('k', 0, false, true);
  assert.ok('until' in lockout.begin('k', 0));
});

test('the table does not grow without bound', () => {
  const lockout = createLockout();
  for (let i = 0; i < 4; i++) fail(lockout, 'first', 0);
  assert.notEqual(delay(lockout, 'first', 0), 0);
  for (let i = 0; i < 20_000; i++) fail(lockout, `k${i}`, 0);
  assert.equal(delay(lockout, 'first', 0), 0);
});

test('IPv6 neighbours in one /64 share a row', () => {
  assert.equal(lockoutKey('2001:db8:1:2:3:4:5:6'), lockoutKey('2001:db8:1:2::9'));
  assert.equal(lockoutKey('2001:db8::1'), lockoutKey('2001:db8::2:3'));
  assert.notEqual(lockoutKey('2001:db8:1:2::1'), lockoutKey('2001:db8:1:3::1'));
  assert.equal(lockoutKey('192.0.2.1'), '192.0.2.1');
});
