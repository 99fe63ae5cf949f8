/** Long texts of a JSON document are cut, and nothing else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createJsonShortener } from '../../src/protocol/json-shortening.ts';

function shorten(text: string, maxOctets: number, pieceOctets: number): string {
  const take = createJsonShortener(maxOctets);
  const octets = Buffer.from(text);
  const kept: Buffer[] = [];
  for (let i = 0; i < octets.length; i += pieceOctets) kept.push(take(octets.subarray(i, i + pieceOctets)));
  return Buffer.concat(kept).toString();
}

const long = (sign: string): string => sign.repeat(40);
const TEXTS = [
  '',
  'short',
  long('x'),
  long('"'),
  long('\\'),
  long('\\"'),
  long('é'),
  long('€'),
  long('😀'),
  long('\u0001'),
  long('a\r\n'),
  `${long('x')}"]},{`,
];

test('what is cut stays JSON, wherever a piece or the limit ends, and short texts stay as they are', () => {
  for (const text of TEXTS)
    for (const max of [10, 11, 12, 13, 14, 15, 16])
      for (const piece of [1, 2, 3, 7, 1_000]) {
        const whole = { before: [1, true, 'kept'], text, id: 'AA=', nested: { text, isDraft: false } };
        const cut = JSON.parse(shorten(JSON.stringify(whole), max, piece)) as typeof whole;
        assert.deepEqual({ ...cut, text, nested: { ...cut.nested, text } }, whole);
        assert.ok(text.startsWith(cut.text) && cut.nested.text === cut.text, cut.text);
        assert.ok(Buffer.byteLength(JSON.stringify(cut.text)) <= max + 8);
        if (Buffer.byteLength(JSON.stringify(text)) - 2 <= max) assert.equal(cut.text, text);
      }
});

test('what is no JSON is let through or cut, never more than came', () => {
  for (const text of ['<html>"', '\\"\\', '"\\u12', 'no quotes at all', '""""'])
    for (const piece of [1, 1_000]) assert.ok(shorten(text, 3, piece).length <= text.length);
});
