import assert from 'node:assert/strict';
import { test } from 'node:test';
import { foldPattern, senderKeys } from '../../src/protocol/sender-pattern.ts';

const matches: readonly [pattern: string, address: string, exactness: string | undefined][] = [
  ['a@x.test', 'A@X.test', 'address'],
  ['a@x.test', 'a+b@x.test', undefined],
  ['a+*@x.test', 'a+b@x.test', 'subaddress'],
  ['a+*@x.test', 'A+b+c@X.test', 'subaddress'],
  ['a+b+*@x.test', 'a+b+c@x.test', 'subaddress'],
  ['a+*@x.test', 'a@x.test', undefined],
  ['a+*@x.test', 'ab+c@x.test', undefined],
  ['*@x.test', 'any.one@x.test', 'domain'],
  ['*@x.test', 'a@sub.x.test', undefined],
  ['*@*.x.test', 'a@sub.x.test', 'subdomain'],
  ['*@*.x.test', 'a@deep.sub.X.test', 'subdomain'],
  ['*@*.x.test', 'a@x.test', undefined],
  ['*@*.x.test', 'a@evilx.test', undefined],
  ['*', 'root@host', 'any'],
  ['*', '', undefined],
  ['<>', '', 'address'],
  ['<>', 'a@x.test', undefined],
  ['*@*.b\u00fccher.test', 'a@sub.xn--bcher-kva.test', 'subdomain'],
  ['*@b\u00fccher.test', 'a@xn--bcher-kva.test', 'domain'],
  ['*@k.test', 'a@\u212a.test', undefined],
  ['*@localhost', 'root@localhost', 'domain'],
];

for (const [pattern, address, exactness] of matches) {
  test(`${pattern} and ${address || 'the null sender'}: ${exactness ?? 'no match'}`, () => {
    const folded = foldPattern(pattern);
    assert.notEqual(folded, undefined);
    assert.equal(senderKeys(address).find(({ key }) => key === folded)?.exactness, exactness);
  });
}

test('keys come from most to least exact', () => {
  assert.deepEqual(
    senderKeys('a+b+c@s.x.test').map(({ key }) => key),
    ['a+b+c@s.x.test', 'a+b+*@s.x.test', 'a+*@s.x.test', '*@s.x.test', '*@*.x.test', '*@*.test', '*'],
  );
});
