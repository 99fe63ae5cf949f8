import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { createSealer, SealError } from '../../src/tokens/sealing.ts';

const HEX = 'ab'.repeat(32);
const fails = (code: string) => (error: unknown) => error instanceof SealError && error.code === code;
const sealer = (keys: string) => createSealer(new Secret(keys));

test('sealed text opens under its key and name only', () => {
  const sealed = sealer(HEX).seal('tøken', 'a@x');
  assert.deepEqual(sealer(HEX).open(sealed, 'a@x'), { text: 'tøken', stale: false });
  assert.throws(() => sealer(HEX).open(sealed, 'b@x'), fails('damaged'));
  assert.throws(() => sealer('cd'.repeat(32)).open(sealed, 'a@x'), fails('unknown_key'));
  assert.notEqual(sealer(HEX).seal('tøken', 'a@x'), sealed);
});

test('every changed octet is noticed', () => {
  const sealed = sealer(HEX).seal('secret', 'n');
  const start = sealed.lastIndexOf(':') + 1;
  const octets = Buffer.from(sealed.slice(start), 'base64url');
  for (let i = 0; i < octets.length; i += 1) {
    const changed = Buffer.from(octets);
    changed[i] = (changed[i] ?? 0) ^ 1;
    assert.throws(
      () => sealer(HEX).open(sealed.slice(0, start) + changed.toString('base64url'), 'n'),
      fails('damaged'),
    );
  }
  for (let cut = start; cut < sealed.length - 1; cut += 1) {
    assert.throws(() => sealer(HEX).open(sealed.slice(0, cut), 'n'), SealError);
  }
});

test('the first of several keys seals, all open', () => {
  const old = sealer(HEX).seal('x', 'n');
  const both = sealer(`${'cd'.repeat(32)}\n ${HEX} `);
  assert.deepEqual(both.open(old, 'n'), { text: 'x', stale: true });
  assert.equal(both.open(both.seal('x', 'n'), 'n').stale, false);
});

test('keys are hex, base64 or a passphrase worth the name', () => {
  const octets = Buffer.from(HEX, 'hex');
  const sealed = sealer(HEX).seal('x', 'n');
  assert.equal(sealer(octets.toString('base64')).open(sealed, 'n').text, 'x');
  const phrase = sealer('correct-horse-battery').seal('x', 'n');
  assert.equal(sealer('correct-horse-battery').open(phrase, 'n').text, 'x');
  for (const bad of ['', '  ', 'short', 'ab'.repeat(7)]) assert.throws(() => sealer(bad), fails('bad_key'));
});
