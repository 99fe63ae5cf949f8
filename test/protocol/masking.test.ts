import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMask } from '../../src/protocol/masking.ts';

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
