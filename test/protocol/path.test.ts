import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parsePathArgument } from '../../src/protocol/path.ts';
import { assertLinear } from '../support/cost.ts';

const accepted: readonly [argument: string, address: string, ...parameters: string[]][] = [
  ['<a@x.test>', 'a@x.test'],
  [' <a@x.test>', 'a@x.test'],
  ['<>', ''],
  ['<a@x.test> SIZE=1  BODY=8BITMIME', 'a@x.test', 'SIZE=1', 'BODY=8BITMIME'],
  ['a@x.test', 'a@x.test'],
  ['a@x.test SIZE=1', 'a@x.test', 'SIZE=1'],
  ['<@one.test,@two.test:a@x.test>', 'a@x.test'],
  ['<"a b"@x.test>', '"a b"@x.test'],
  ['<"a\\"b@c"@x.test>', '"a\\"b@c"@x.test'],
  ['<a+tag=1@x.test>', 'a+tag=1@x.test'],
  ['<"a..b."@docomo.test>', '"a..b."@docomo.test'],
  ['<a.b.c@x.test>', 'a.b.c@x.test'],
  ['<a@[192.0.2.1]>', 'a@[192.0.2.1]'],
  ['<a@[IPv6:2001:db8::1]>', 'a@[IPv6:2001:db8::1]'],
  ['<ü@ä.test> SMTPUTF8', 'ü@ä.test', 'SMTPUTF8'],
  ['<a@under_score.test>', 'a@under_score.test'],
  [`<${'a'.repeat(64)}@${'b'.repeat(60)}.test>`, `${'a'.repeat(64)}@${'b'.repeat(60)}.test`],
];

for (const [argument, address, ...parameters] of accepted) {
  test(`reads ${argument.slice(0, 40)}`, () => {
    assert.deepEqual(parsePathArgument('MAIL', argument), { address, parameters });
  });
}

const refused: readonly string[] = [
  '',
  '<',
  '<a@x.test',
  '<a@x.test>junk',
  '<a>',
  '<@x.test>',
  '<a@>',
  '<a b@x.test>',
  '<a@x .test>',
  '<a@@x.test>',
  '<a@x..test>',
  '<a@.x.test>',
  '<a@-x.test>',
  '<a@x.test\r\nRCPT TO:<b@y.test>',
  '<a\0@x.test>',
  '<"a\0"@x.test>',
  '<a\u0085@x.test>',
  '<"a@x.test>',
  '<a@[192.0.2.1>',
  '<a@[192.0.2]>',
  '<a@[2001:db8::1]>',
  '<a@[IPv6:192.0.2.1]>',
  '<a@[IPv6:x]>',
  '<a@[x:y]>',
  '<a..b@x.test>',
  '<a.@x.test>',
  '<.a@x.test>',
  '<a@x.test.>',
  '<a@x.test> =1',
  '<a@x.test> SIZE==1',
  '<a@x.test> SIZE=',
  `<${'a'.repeat(250)}@x.test>`,
];

for (const argument of refused) {
  test(`refuses ${JSON.stringify(argument.slice(0, 40))}`, () => {
    for (const command of ['MAIL', 'RCPT'] as const) {
      const result = parsePathArgument(command, argument);
      assert.ok('code' in result && result.code === 501, JSON.stringify(result));
    }
  });
}

test('an address with < or > in quotes is refused: what follows could be read as parameters', () => {
  for (const address of ['"a>b"@x.test', '"a<b"@x.test', '"a> SIZE=1"@x.test', '"\\>"@x.test']) {
    for (const command of ['MAIL', 'RCPT'] as const) {
      assert.deepEqual(parsePathArgument(command, `<${address}>`), {
        code: 553,
        enhanced: '5.1.3',
        text: 'Addresses with < or > are not taken',
      });
    }
  }
});

test('the null path is a sender only, the bare postmaster a recipient only', () => {
  assert.ok('code' in parsePathArgument('RCPT', '<>'));
  assert.deepEqual(parsePathArgument('RCPT', '<Postmaster>'), { address: 'Postmaster', parameters: [] });
  assert.ok('code' in parsePathArgument('MAIL', '<postmaster>'));
});

test('a hostile address costs what its octets cost', async () => {
  for (const hostile of [
    (size: number) => `<a@${'a-'.repeat(size / 2)}!>`,
    (size: number) => `<"${'\\'.repeat(size)}@x>`,
    (size: number) => `<${'@'.repeat(size)}>`,
  ])
    await assertLinear(hostile(6), (size) => parsePathArgument('RCPT', hostile(size)), 12_000);
});
