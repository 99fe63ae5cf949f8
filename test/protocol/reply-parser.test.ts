import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createMask, createWatch } from '../../src/protocol/masking.ts';
import { createReplyParser, parseReply, ReplySyntaxError } from '../../src/protocol/reply-parser.ts';

const wire = [
  '220 smtp.gmail.com ESMTP x - gsmtp',
  '250-first\r\n250-SIZE 35882577\r\n250 CHUNKING',
  '550-5.4.5 Daily user sending limit exceeded. For more information on Gmail\r\n550-5.4.5 sending limits go to\r\n550 5.4.5  https://support.google.com/a/answer/166852 x - gsmtp',
  '354 Go ahead',
  '250',
  '250 2.1.0 Grüße',
  `554 5.2.252 ${'x'.repeat(4000)}`,
].join('\r\n');
const expected = [
  [220, undefined, 'smtp.gmail.com ESMTP x - gsmtp'],
  [250, undefined, 'first SIZE 35882577 CHUNKING'],
  [
    550,
    '5.4.5',
    'Daily user sending limit exceeded. For more information on Gmail sending limits go to https://support.google.com/a/answer/166852 x - gsmtp',
  ],
  [354, undefined, 'Go ahead'],
  [250, undefined, ''],
  [250, '2.1.0', 'Grüße'],
  [554, '5.2.252', 'x'.repeat(4000)],
];

test('replies come out whole, in order, however the octets are split', () => {
  const octets = Buffer.from(`${wire}\r\n`);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: octets.length }), { maxLength: 12 }), (cuts) => {
      const parser = createReplyParser();
      const at = [0, ...cuts.sort((a, b) => a - b), octets.length];
      const replies = at.slice(1).flatMap((end, i) => parser.feed(octets.subarray(at[i], end)));
      assert.deepEqual(
        replies.map((r) => [r.code, r.enhanced, r.text]),
        expected,
      );
      assert.equal(parser.unfinished, false);
    }),
    { seed: 20261121, numRuns: 300 },
  );
});

test('single octets and a bare LF as line end are fine', () => {
  const parser = createReplyParser();
  const replies = Array.from(Buffer.from('250-a\n250 b\n')).flatMap((octet) =>
    parser.feed(Buffer.from([octet])),
  );
  assert.deepEqual(replies[0]?.lines, ['a', 'b']);
});

for (const [what, text] of [
  ['HTTP', 'HTTP/1.1 400 Bad Request\r\n'],
  ['a code out of range', '999 what\r\n'],
  ['1xx', '150 hmm\r\n'],
  ['a code without separator', '250x\r\n'],
  ['a changing code', '250-a\r\n251 b\r\n'],
  ['an empty line', '\r\n'],
  ['an endless line', '2'.repeat(40_000)],
  ['an endless reply', '250-x\r\n'.repeat(1_000)],
  ['a reply of 3 MB', `550-${'x'.repeat(16_000)}\r\n`.repeat(190)],
] as const) {
  test(`${what} is no SMTP`, () => {
    assert.throws(() => createReplyParser().feed(Buffer.from(text)), ReplySyntaxError);
    assert.equal(parseReply(text), undefined);
  });
}

test('an enhanced code of another class than the reply is text', () => {
  assert.deepEqual(
    { ...parseReply('550 2.0.0 odd'), lines: undefined },
    { code: 550, text: '2.0.0 odd', lines: undefined },
  );
});

test('of a long reply the start is kept, and the code counts', () => {
  const [reply, next] = createReplyParser().feed(
    Buffer.from(
      `${`550-5.7.1 ${'long words '.repeat(300)}\r\n`.repeat(15)}550 5.7.1 end\r\n250 2.0.0 next\r\n`,
    ),
  );
  assert.equal(reply?.code, 550);
  assert.equal(reply?.enhanced, '5.7.1');
  assert.ok((reply?.text.length ?? 0) < 5000, String(reply?.text.length));
  assert.ok(reply?.text.startsWith('long words long words'));
  assert.ok((reply?.lines.join('').length ?? 0) < 5000);
  assert.equal(next?.text, 'next');
});

test('what would steer a terminal does not get in, neither as text nor as a line of EHLO', () => {
  const reply = parseReply('250-\u001b]0;owned\u0007\n250 \u202etxt\u009b2J');
  assert.equal(reply?.text, ']0;owned txt 2J');
  assert.deepEqual(reply?.lines, [' ]0;owned ', ' txt 2J']);
});

test('a secret is masked also where it is broken over lines, with or without a code in each', () => {
  const secret = 'AbCdEfGhIjKlMnOpQrSt';
  for (const code of ['', '5.7.8 '])
    for (const size of [1, 5, 7, 12]) {
      const pieces = secret.match(new RegExp(`.{1,${size}}`, 'g')) ?? [];
      const lines = ['got', ...pieces, 'of you'].map((piece, i, all) => {
        return `535${i < all.length - 1 ? '-' : ' '}${code}${piece}\r\n`;
      });
      for (const mask of [createMask([secret]), createWatch([secret])]) {
        const [reply] = createReplyParser(mask).feed(Buffer.from(lines.join('')));
        assert.ok(reply);
        const told = JSON.stringify([reply.text, reply.lines.join(''), reply.lines]);
        assert.match(reply.text, /got.*of you/);
        for (let at = 0; at + 8 <= secret.length; at++)
          assert.ok(!told.includes(secret.slice(at, at + 8)), told);
      }
    }
});
