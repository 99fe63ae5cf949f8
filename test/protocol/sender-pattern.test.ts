import assert from 'node:assert/strict';
import { test } from 'node:test';
import { foldPattern, isCovered, senderKeys } from '../../src/protocol/sender-pattern.ts';

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

test('what can never match is no pattern', () => {
  for (const pattern of [
    'a*@x.test',
    '*@*',
    '*@*.*.test',
    'a+*@*.x.test',
    '**',
    // Spelt as no sender's domain is ever compared.
    '*@B\u00dcCHER.test',
    '*@\uff58.test',
    // A quoted local part has its plus inside.
    '"a b"+*@x.test',
  ])
    assert.equal(foldPattern(pattern), undefined, pattern);
});

test('a pattern is covered by a wider one', () => {
  const covered = (pattern: string, ...others: string[]): boolean => isCovered(pattern, new Set(others));
  for (const [pattern, other] of [
    ['a@x.test', '*@x.test'],
    ['a+b@x.test', 'a+*@x.test'],
    ['a+b+*@x.test', 'a+*@x.test'],
    ['*@s.x.test', '*@*.x.test'],
    ['*@*.x.test', '*@*.test'],
    ['*@*.x.test', '*'],
    ['*', '*'],
    ['<>', '<>'],
  ] as const) {
    assert.ok(covered(pattern, 'z@z.test', other), `${pattern} by ${other}`);
    assert.equal(covered(other, pattern), pattern === other, `${other} by ${pattern}`);
  }
  assert.ok(!covered('<>', '*') && !covered('*@x.test', '*@*.x.test') && !covered('a@x.test'));
});

test('keys come from most to least exact', () => {
  assert.deepEqual(
    senderKeys('a+b+c@s.x.test').map(({ key }) => key),
    ['a+b+c@s.x.test', 'a+b+*@s.x.test', 'a+*@s.x.test', '*@s.x.test', '*@*.x.test', '*@*.test', '*'],
  );
});
