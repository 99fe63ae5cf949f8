import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createMask, createWatch, maskSecrets } from '../../src/protocol/masking.ts';
import { assertLinear } from '../support/cost.ts';

const SECRET = '1//0gäb c+d/~x_Y';
const mask = createMask([SECRET, 'GOCSPX-short', 'ab']);

test('a secret stands nowhere, however it was encoded', () => {
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const forms = [
    SECRET,
    encodeURIComponent(SECRET),
    new URLSearchParams({ t: SECRET }).toString(),
    JSON.stringify(SECRET),
    base64(SECRET),
    base64(`x${SECRET}`),
    base64(`xy${SECRET}z`),
    Buffer.from(`user:${SECRET}`).toString('base64url'),
  ];
  for (const form of forms) {
    const masked = mask(`said: ${form} end`);
    assert.match(masked, /\[secret\]/, form);
    assert.doesNotMatch(masked, /1\/\/0g|MS8vMG|c\+d/, form);
  }
});

const SPELLED = '0.AXcA-1~x/y+z=="\\ünd%20GOCSPX-9';

test('a secret is masked however it is spelled', () => {
  const spelled: [string, string][] = [
    ['as it is', SPELLED],
    ['in another case', SPELLED.toUpperCase()],
    ['URL-encoded', encodeURIComponent(SPELLED)],
    ['as in a form', new URLSearchParams({ s: SPELLED }).toString().slice(2)],
    ['in JSON', JSON.stringify(SPELLED)],
    ['in hex', Buffer.from(SPELLED).toString('hex')],
    ['the first half', SPELLED.slice(0, 15)],
    ['the last half', SPELLED.slice(15)],
    ['eight characters', SPELLED.slice(7, 15)],
  ];
  for (const before of ['', 'a', 'ab', 'abc'])
    for (const encoding of ['base64', 'base64url'] as const)
      spelled.push([`${encoding} after ${before}`, Buffer.from(`${before}${SPELLED}!`).toString(encoding)]);
  for (const [what, text] of spelled) {
    const masked = maskSecrets(`error: <${text}> end`, [SPELLED]);
    assert.ok(masked.startsWith('error: ') && masked.endsWith(' end'), `${what}: ${masked}`);
    assert.match(masked, /\[secret\]/, what);
    for (let at = 0; at + 10 <= text.length; at += 1)
      assert.ok(!masked.includes(text.slice(at, at + 10)), `${what}: ${masked}`);
  }
});

test('a short secret is masked whole, a text too short to be one is left', () => {
  assert.equal(maskSecrets('pin 12345 and 12345', ['12345']), 'pin [secret] and [secret]');
  assert.equal(maskSecrets('abc', ['abc', '']), 'abc');
  assert.equal(maskSecrets('nothing of it here', [SPELLED]), 'nothing of it here');
});

test('no part of a secret of eight characters or more gets through, whatever stands around it', () => {
  const text = fc.string({ minLength: 8, maxLength: 60, unit: 'grapheme-ascii' });
  fc.assert(
    fc.property(text, fc.string({ maxLength: 40 }), fc.string({ maxLength: 40 }), (secret, before, after) => {
      const masked = createMask([secret])(before + secret + after);
      return !masked.includes(secret);
    }),
  );
});

test('masking is linear in text and secret', async () => {
  const secrets = ['ab'.repeat(2000), 'x'.repeat(2000)];
  await assertLinear('the text', (size) => maskSecrets('ab'.repeat(size), secrets), 20_000);
  await assertLinear('the secret', (size) => maskSecrets('ab'.repeat(20_000), ['ab'.repeat(size)]), 2_000);
});

test('what is watched for costs little, and whole secrets and long parts are found in every spelling', () => {
  const text = fc.string({ minLength: 8, maxLength: 60, unit: 'grapheme-ascii' });
  fc.assert(
    fc.property(text, fc.string({ maxLength: 40 }), fc.string({ maxLength: 40 }), (secret, before, after) => {
      const watch = createWatch(['1234567', secret]);
      for (const form of [secret, secret.toUpperCase(), Buffer.from(`${before}${secret}`).toString('base64')])
        if (watch(before + form + after) !== createMask(['1234567', secret])(before + form + after))
          return false;
      return watch(`a 1234567 b`) === 'a [secret] b';
    }),
  );
  const secret = Array.from({ length: 2_000 }, (_, i) =>
    String.fromCharCode(33 + ((i * i * 7 + i) % 90)),
  ).join('');
  const watch = createWatch([secret]);
  for (let at = 0; at + 15 <= secret.length; at += 1)
    assert.notEqual(watch(`said ${secret.slice(at, at + 15)}`), `said ${secret.slice(at, at + 15)}`);
  assert.equal(
    watch('2.0.0 OK 1732574983 d9443c01a7336-2e49f74d093sm13051525ad.83 - gsmtp'),
    '2.0.0 OK 1732574983 d9443c01a7336-2e49f74d093sm13051525ad.83 - gsmtp',
  );
});
