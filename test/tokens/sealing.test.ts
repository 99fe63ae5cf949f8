import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { createSealer, SealError } from '../../src/tokens/sealing.ts';

const HEX = '8f1c0b7e5a2d4936c7e8190af3b6d254a1907c3e6b5d8f42e0196a7bc4d3f258';
const OTHER = 'c2a94e0d1b7f3865e4f08c6a9d2b7153f6e1d8034c9ab7250e9f83d6b1a47c5e';
const OF_VERSION_0_1 =
  'sealed:v1:38ecef1a:kGHuDVBRrhgiMXHZ7KPY_O1Icnm5VlXOo61UmDtES0l851uihhVsKYXo0DdAn1169LC0hA';
const fails = (code: string) => (error: unknown) => error instanceof SealError && error.code === code;
const sealer = (keys: string) => createSealer(new Secret(keys));

test('sealed text opens under its key and name only', async () => {
  const sealed = await sealer(HEX).seal('tøken', 'a@x');
  assert.deepEqual(await sealer(HEX).open(sealed, 'a@x'), { text: 'tøken', isStale: false });
  await assert.rejects(sealer(HEX).open(sealed, 'b@x'), fails('damaged'));
  await assert.rejects(sealer(OTHER).open(sealed, 'a@x'), fails('unknown_key'));
  assert.notEqual(await sealer(HEX).seal('tøken', 'a@x'), sealed);
});

test('every changed octet is noticed', async () => {
  const one = sealer(HEX);
  const sealed = await one.seal('secret', 'n');
  const start = sealed.lastIndexOf(':') + 1;
  const octets = Buffer.from(sealed.slice(start), 'base64url');
  for (let i = 0; i < octets.length; i += 1) {
    const changed = Buffer.from(octets);
    changed[i] = (changed[i] ?? 0) ^ 1;
    const text = sealed.slice(0, start) + changed.toString('base64url');
    await assert.rejects(one.open(text, 'n'), fails('damaged'));
  }
  for (let cut = start; cut < sealed.length - 1; cut += 1)
    await assert.rejects(one.open(sealed.slice(0, cut), 'n'), SealError);
});

test('the first of several keys seals, all open', async () => {
  const old = await sealer(HEX).seal('x', 'n');
  const both = sealer(`${OTHER}\n ${HEX} `);
  assert.deepEqual(await both.open(old, 'n'), { text: 'x', isStale: true });
  assert.equal((await both.open(await both.seal('x', 'n'), 'n')).isStale, false);
});

test('keys are hex, base64 or a passphrase worth the name, spaces included', async () => {
  const octets = Buffer.from(HEX, 'hex');
  const sealed = await sealer(HEX).seal('x', 'n');
  assert.equal((await sealer(octets.toString('base64')).open(sealed, 'n')).text, 'x');
  for (const phrase of [
    'correct-horse-battery',
    'correct horse battery staple',
    '  correct horse  battery staple\n',
  ]) {
    const text = await sealer(phrase).seal('x', 'n');
    assert.equal((await sealer(phrase).open(text, 'n')).text, 'x');
  }
  // White space between whole keys rotates them, as before.
  const twoKeys = sealer(`correct-horse-battery ${HEX}`);
  assert.deepEqual(await twoKeys.open(sealed, 'n'), { text: 'x', isStale: true });
  for (const bad of ['', '  ', 'short', 'two words', 'ab'.repeat(7)])
    assert.throws(() => sealer(bad), fails('bad_key'));
});

test('a key that can be guessed is refused, and opens what was sealed with it before', async () => {
  const weak = [
    '00'.repeat(32),
    'ab'.repeat(32),
    '0123456789abcdef'.repeat(4),
    'a'.repeat(40),
    'abababababababababab',
  ];
  for (const key of weak) assert.throws(() => sealer(key), fails('bad_key'), key);
  assert.throws(() => sealer(Buffer.alloc(32, 7).toString('base64')), fails('bad_key'));
  assert.deepEqual(await sealer(`${HEX}\n${'ab'.repeat(32)}`).open(OF_VERSION_0_1, 'a@x'), {
    text: '{"grantFingerprint":"f"}',
    isStale: true,
  });
});

test('each directory has a salt of its own, so one guess is good for one of them', async () => {
  const [one, two] = [await sealer(HEX).seal('x', 'n'), await sealer(HEX).seal('x', 'n')];
  assert.notEqual(one.split(':')[2], two.split(':')[2]);
  assert.notEqual(one.split(':')[3], two.split(':')[3]);
  // Who has opened a text seals with its salt: the work is done once.
  const reader = sealer(HEX);
  await reader.open(one, 'n');
  assert.equal((await reader.seal('y', 'n')).split(':')[2], one.split(':')[2]);
});
