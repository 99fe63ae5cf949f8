import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseMechanism, formatOauthBearer, formatXoauth2 } from '../../src/protocol/sasl.ts';

test("Google's own example comes out", () => {
  assert.equal(
    formatXoauth2('someuser@example.com', 'ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg'),
    'dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ==',
  );
});

for (const bad of ['\x01', '\r', '\n', '\0', '\x7f']) {
  test(`${JSON.stringify(bad)} in user or token is refused: it would break the string`, () => {
    assert.throws(() => formatXoauth2(`a${bad}b`, 'token'), RangeError);
    assert.throws(
      () => formatXoauth2('a@b', `to${bad}ken`),
      (error: Error) => !error.message.includes('to'.concat(bad)),
    );
  });
}

test("RFC 7628's own example comes out, with a user that must be escaped", () => {
  const at = { host: 'server.example.com', port: 587 };
  const plain = (text: string): string => Buffer.from(text, 'base64').toString();
  assert.equal(
    plain(formatOauthBearer('user@example.com', 'vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==', at)),
    'n,a=user@example.com,\x01host=server.example.com\x01port=587\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01',
  );
  assert(plain(formatOauthBearer('a=b,c@x', 't', at)).startsWith('n,a=a=3Db=2Cc@x,\x01'));
  assert.throws(() => formatOauthBearer('a\x01b', 't', at), RangeError);
  assert.throws(() => formatOauthBearer('a', 't\r', at), RangeError);
});

test('XOAUTH2 first, OAUTHBEARER where it is not offered, nothing where neither is', () => {
  assert.equal(chooseMechanism(['LOGIN', 'OAUTHBEARER', 'XOAUTH2'])?.name, 'XOAUTH2');
  assert.equal(chooseMechanism(['PLAIN', 'OAUTHBEARER'])?.name, 'OAUTHBEARER');
  assert.equal(chooseMechanism(['PLAIN', 'LOGIN', 'XOAUTH']), undefined);
  assert.equal(chooseMechanism([]), undefined);
});
