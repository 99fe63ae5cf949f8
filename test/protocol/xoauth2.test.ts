import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatXoauth2 } from '../../src/protocol/xoauth2.ts';

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
