import assert from 'node:assert/strict';
import { scryptSync } from 'node:crypto';
import { test } from 'node:test';
import {
  formatScryptHash,
  hashPassword,
  isPasswordHash,
  MEMORY_COST,
  parseScryptHash,
  verifyPassword,
} from '../../src/accounts/scrypt.ts';

test('a hash belongs to its password and to no other', async () => {
  const hash = await hashPassword('correct horse', MEMORY_COST);
  assert.equal(await verifyPassword(hash, 'correct horse'), true);
  assert.equal(await verifyPassword(hash, 'correct horsf'), false);
  assert.equal(await verifyPassword(hash, ''), false);
});

test('two hashes of one password differ by their salt', async () => {
  const [a, b] = await Promise.all([hashPassword('x', MEMORY_COST), hashPassword('x', MEMORY_COST)]);
  assert.notEqual(a, b);
});

test('a hash computed with node alone is accepted', async () => {
  const salt = Buffer.from('0123456789abcdef');
  const hash = scryptSync('pässword', salt, 32, { N: 2048, r: 8, p: 1 });
  const text = `scrypt$2048$8$1$${salt.toString('base64url')}$${hash.toString('base64url')}`;
  assert.equal(await verifyPassword(text, 'pässword'), true);
  assert.equal(formatScryptHash(parseScryptHash(text)), text);
});

for (const bad of [
  '',
  'secret',
  'scrypt$',
  'scrypt$16384$8$1$c2FsdA$',
  'scrypt$1000$8$1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaGhhc2g',
  'scrypt$4194304$8$1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaGhhc2g',
  'scrypt$1024$0$1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaGhhc2g',
  'scrypt$1024$8$1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo aGFzaGhhc2g',
]) {
  test(`not a hash: ${JSON.stringify(bad)}`, () => {
    assert.throws(() => parseScryptHash(bad), SyntaxError);
  });
}

test('a damaged hash is still recognised as meant to be one', () => {
  for (const text of ['scrypt$oops', ' SCRYPT$1$', '$scrypt$broken', '$2b$10$abc', '$6$salt$x', '{SSHA}abcd'])
    assert.equal(isPasswordHash(text), true, text);
  for (const text of ['hunter2', '$ecret', '$a$', 'x$6$y', '{brace}', '$$$', 'my scrypt$'])
    assert.equal(isPasswordHash(text), false, text);
});
