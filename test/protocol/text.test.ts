import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cleanText, foldAddress, foldAscii, MAX_KEPT, ownWords } from '../../src/protocol/text.ts';

test('text from outside loses what steers a terminal or hides words', () => {
  const rows: readonly (readonly [string, string])[] = [
    ['plain text', 'plain text'],
    ['Grüße, 日本語', 'Grüße, 日本語'],
    ['\u001b[2Jgone', ' [2Jgone'],
    ['a\r\nb\u0000c', 'a b c'],
    ['\u009b31mred', ' 31mred'],
    ['safe\u202egnp.exe\u2066x\u2069', 'safe gnp.exe x '],
    ['a\u200bb\u2028c\ufeff', 'a b c '],
    ['a\ud800b', 'a b'],
    ['😀', '😀'],
  ];
  for (const [text, clean] of rows) assert.equal(cleanText(text), clean);
});

test('long text is cut, and what is left is whole', () => {
  assert.equal(cleanText('x'.repeat(100_000)).length, MAX_KEPT);
  assert.equal(cleanText(`${'x'.repeat(9)}😀`, 10), `${'x'.repeat(9)} `);
});

test('only A to Z are folded', () => {
  assert.equal(foldAscii('MiKe@Example.COM'), 'mike@example.com');
  for (const lookalike of ['mi\u212Ae', 'm\u0131ke', 'ma\u017fk', '\uff4dike', '\u212A'])
    assert.equal(foldAscii(lookalike), lookalike);
  assert.equal(foldAscii('İK'), 'İk');
});

test('domains compare as A-labels, look-alikes as nobody', () => {
  assert.equal(foldAddress('Ann@BÜCHER.example'), foldAddress('ann@BÜCHER.example'));
  assert.equal(foldAddress('Ann@bücher.Example'), 'ann@xn--bcher-kva.example');
  assert.equal(foldAddress('Ann@XN--bcher-kva.Example'), 'ann@xn--bcher-kva.example');
  for (const domain of ['e\uff58ample.com', 'mas\u017f.com', 'boo\u212A.com', 'e\u200bxample.com'])
    assert.equal(foldAddress(`ann@${domain}`), `ann@${domain}`);
});

test('addresses are no words of the peer', () => {
  for (const text of [
    'no user RefuseQuota@x.net here',
    'no user <RefuseQuota@x.net> here',
    'no user "Refuse RefuseQuota"@x.net here',
    'no user <"a RefuseQuota"@x.net> here',
  ])
    assert.doesNotMatch(ownWords(text), /RefuseQuota/);
  assert.match(ownWords('no user <a@b> here'), /no user .* here/);
});

test('a quoted local part is the mailbox without needless quotes', () => {
  for (const [address, folded] of [
    ['"Boss"@Example.com', 'boss@example.com'],
    ['"b\\o\\ss"@example.com', 'boss@example.com'],
    ['"a b"@example.com', '"a b"@example.com'],
    ['"a\\ b"@example.com', '"a b"@example.com'],
    ['"a\\"b"@example.com', '"a\\"b"@example.com'],
    ['""@example.com', '""@example.com'],
    ['"@example.com', '"@example.com'],
  ] as const)
    assert.equal(foldAddress(address), folded, address);
});
