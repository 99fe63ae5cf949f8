import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createBodyDecoder } from '../../src/protocol/body-decoder.ts';

/** Feeds `chunks` until the body ends; what came out, and what was left after it. */
function run(chunks: readonly string[], seekBare = true) {
  const decoder = createBodyDecoder(seekBare);
  const pieces: Buffer[] = [];
  for (const [i, chunk] of chunks.entries()) {
    const end = decoder.decode(Buffer.from(chunk, 'latin1'), 0, pieces);
    if (end >= 0) {
      const rest = chunk.slice(end) + chunks.slice(i + 1).join('');
      return { body: Buffer.concat(pieces).toString('latin1'), rest, bare: decoder.hasBareLineEnd };
    }
  }
  return {
    body: Buffer.concat(pieces).toString('latin1'),
    rest: undefined,
    bare: decoder.hasBareLineEnd,
  };
}

/** Every way to cut `text` into two pieces, all pieces of one octet, and the whole. */
function splits(text: string): string[][] {
  const ways: string[][] = [[text], [...text]];
  for (let i = 1; i < text.length; i++) ways.push([text.slice(0, i), text.slice(i)]);
  for (let i = 1; i < text.length - 1; i++)
    ways.push([text.slice(0, i), text.slice(i, i + 1), text.slice(i + 1)]);
  return ways;
}

const cases: readonly [wire: string, body: string, rest: string | undefined, bare: boolean][] = [
  ['.\r\n', '', '', false],
  ['.\r\nQUIT\r\n', '', 'QUIT\r\n', false],
  ['a\r\n.\r\n', 'a\r\n', '', false],
  ['a\r\n.\r\nRSET\r\n', 'a\r\n', 'RSET\r\n', false],
  ['\r\n.\r\n', '\r\n', '', false],
  ['..\r\n.\r\n', '.\r\n', '', false],
  ['..\r\n..\r\n...\r\n.\r\n', '.\r\n.\r\n..\r\n', '', false],
  ['.a\r\n.b\r\n.\r\n', 'a\r\nb\r\n', '', false],
  ['a.\r\n.\r\n', 'a.\r\n', '', false],
  ['a\r\n', 'a\r\n', undefined, false],
  // Sequences that end a message at other servers (CVE-2023-51764 and its relatives) never do here.
  ['a\n.\nMAIL\r\n.\r\n', 'a\n.\nMAIL\r\n', '', true],
  ['a\n.\r\nMAIL\r\n.\r\n', 'a\n.\r\nMAIL\r\n', '', true],
  ['a\r.\rMAIL\r\n.\r\n', 'a\r.\rMAIL\r\n', '', true],
  ['a\r.\r\nMAIL\r\n.\r\n', 'a\r.\r\nMAIL\r\n', '', true],
  ['a\r\n.\nMAIL\r\n.\r\n', 'a\r\n\nMAIL\r\n', '', true],
  ['a\r\n.\rMAIL\r\n.\r\n', 'a\r\n\rMAIL\r\n', '', true],
  ['a\r\n.\r\r\n.\r\n', 'a\r\n\r\r\n', '', true],
  ['a\r\r\n.\r\n', 'a\r\r\n', '', true],
  ['a\n\r\n.\r\n', 'a\n\r\n', '', true],
  ['\n.\r\n.\r\n', '\n.\r\n', '', true],
  ['.\n.\r\n\r\n.\r\n', '\n.\r\n\r\n', '', true],
  ['.\r.\r\n\r\n.\r\n', '\r.\r\n\r\n', '', true],
  ['a\r\n.\0\r\n.\r\n', 'a\r\n\0\r\n', '', false],
];

for (const [wire, body, rest, bare] of cases) {
  test(`decodes ${JSON.stringify(wire)} the same however it is split`, () => {
    for (const way of splits(wire)) {
      assert.deepEqual(run(way), { body, rest, bare }, JSON.stringify(way));
      assert.deepEqual(run(way, false), { body, rest, bare: false }, JSON.stringify(way));
    }
  });
}

/** RFC 5321 §4.5.2 read literally, one octet at a time over the whole text. */
function reference(wire: string): { body: string; rest: string | undefined } {
  let body = '';
  let line = '';
  for (let i = 0; i < wire.length; i++) {
    line += wire[i];
    if (!line.endsWith('\r\n')) continue;
    if (line === '.\r\n') return { body, rest: wire.slice(i + 1) };
    body += line.startsWith('.') ? line.slice(1) : line;
    line = '';
  }
  return { body, rest: undefined };
}

test('agrees with the RFC read literally on random octets, with and without the search for bare line ends', () => {
  const octets = fc.array(fc.constantFrom('\r', '\n', '.', 'a', '\r\n', '\r\n.', '\r\n.\r\n'), {
    maxLength: 24,
  });
  fc.assert(
    fc.property(octets, fc.array(fc.nat(40), { maxLength: 5 }), fc.boolean(), (parts, cuts, seekBare) => {
      const wire = `${parts.join('')}\r\n.\r\nNEXT`;
      const at = [...new Set(cuts.filter((c) => c > 0 && c < wire.length))].sort((a, b) => a - b);
      const chunks = [0, ...at].map((from, i) => wire.slice(from, at[i]));
      const { body, rest } = run(chunks, seekBare);
      assert.deepEqual({ body, rest }, reference(wire));
    }),
    { seed: 5321, numRuns: 3000 },
  );
});

test('finds exactly the bodies with a bare CR or LF', () => {
  const octets = fc.array(fc.constantFrom('\r', '\n', 'a', '\r\n', '..'), { maxLength: 12 });
  fc.assert(
    fc.property(octets, fc.nat(12), (parts, cut) => {
      const content = `x${parts.join('')}x`;
      const wire = `${content}\r\n.\r\n`;
      const expected = /\r(?!\n)|(?<!\r)\n/.test(content);
      assert.equal(run([wire.slice(0, cut), wire.slice(cut)]).bare, expected, JSON.stringify(wire));
    }),
    { seed: 5321, numRuns: 3000 },
  );
});
