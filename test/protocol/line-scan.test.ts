import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { byLines, findOddOctet } from '../../src/protocol/line-scan.ts';

/** Octet by octet, as the contract says it. */
function slowly(chunk: Buffer, from: number, isLineStart: boolean): number {
  let before = isLineStart ? 0x0a : 0;
  for (let i = from; i < chunk.length; i++) {
    const octet = chunk[i] as number;
    if ((octet === 0x0a) !== (before === 0x0d) || (before === 0x0a && octet === 0x2e)) return i;
    before = octet;
  }
  return chunk.length;
}

const text = fc
  .array(fc.constantFrom('\r\n', 'a', '\r\n', 'b'.repeat(15), 'c'.repeat(70), '\n', '\r', '.'), {
    maxLength: 40,
  })
  .map((parts) => Buffer.from(parts.join('')));

test('both ways find what the octets say', () => {
  assert.notEqual(findOddOctet, byLines);
  fc.assert(
    fc.property(text, fc.nat(20), fc.boolean(), (chunk, start, isLineStart) => {
      const from = Math.min(start, chunk.length);
      const expected = slowly(chunk, from, isLineStart);
      assert.equal(findOddOctet(chunk, from, isLineStart), expected, 'findOddOctet');
      assert.equal(byLines(chunk, from, isLineStart), expected, 'byLines');
    }),
    { numRuns: 5_000 },
  );
});

test('what an earlier, longer chunk left behind is not seen; chunks longer than one look are', () => {
  assert.equal(findOddOctet(Buffer.from(`${'\n'.repeat(200)}`), 0, false), 0);
  assert.equal(findOddOctet(Buffer.from('a\r\nb'), 0, true), 4);
  const line = `${'x'.repeat(76)}\r\n`;
  for (const octets of [131_039, 131_040, 131_041, 300_000]) {
    const plain = Buffer.from(line.repeat(Math.ceil(octets / line.length)).slice(0, octets));
    assert.equal(findOddOctet(plain, 0, true), octets);
    for (const odd of ['\n', '.']) {
      const end = plain.toString('latin1').lastIndexOf('\r\n') + 2;
      const chunk = Buffer.concat([plain.subarray(0, end), Buffer.from(`${odd}tail`)]);
      assert.equal(findOddOctet(chunk, 0, true), end);
    }
  }
});
