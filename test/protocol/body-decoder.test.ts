import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type BareLineEnds, createBodyDecoder } from '../../src/protocol/body-decoder.ts';
import { assertLinear } from '../support/cost.ts';

/** Feeds `chunks` until the body ends; what came out, and what was left after it. */
function run(chunks: readonly string[], mode: BareLineEnds) {
  const decoder = createBodyDecoder(mode);
  const pieces: Buffer[] = [];
  for (const [i, chunk] of chunks.entries()) {
    const end = decoder.decode(Buffer.from(chunk, 'latin1'), 0, pieces);
    if (end >= 0) {
      const rest = chunk.slice(end) + chunks.slice(i + 1).join('');
      return { body: Buffer.concat(pieces).toString('latin1'), rest, fault: decoder.fault() };
    }
  }
  return {
    body: Buffer.concat(pieces).toString('latin1'),
    rest: undefined,
    fault: decoder.fault(),
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

/** What passes, and what is mended; undefined where the message is refused. */
const cases: readonly [wire: string, passed: string, rest: string | undefined, normalized?: string | null][] =
  [
    ['.\r\n', '', ''],
    ['.\r\nQUIT\r\n', '', 'QUIT\r\n'],
    ['a\r\n.\r\n', 'a\r\n', ''],
    ['a\r\n.\r\nRSET\r\n', 'a\r\n', 'RSET\r\n'],
    ['\r\n.\r\n', '\r\n', ''],
    ['..\r\n.\r\n', '.\r\n', ''],
    ['..\r\n..\r\n...\r\n.\r\n', '.\r\n.\r\n..\r\n', ''],
    [`${'..\r\n'.repeat(30)}.\r\nX`, '.\r\n'.repeat(30), 'X'],
    ['.a\r\n.b\r\n.\r\n', 'a\r\nb\r\n', ''],
    ['a.\r\n.\r\n', 'a.\r\n', ''],
    ['a\r\n', 'a\r\n', undefined],
    // Sequences that end a message at other servers (CVE-2023-51764 and its relatives) never do here.
    ['a\n.\nMAIL\r\n.\r\n', 'a\n.\nMAIL\r\n', '', 'a\r\n.\r\nMAIL\r\n'],
    ['a\n.\r\nMAIL\r\n.\r\n', 'a\n.\r\nMAIL\r\n', '', 'a\r\n.\r\nMAIL\r\n'],
    ['a\n\n.\n\nMAIL\r\n.\r\n', 'a\n\n.\n\nMAIL\r\n', '', 'a\r\n\r\n.\r\n\r\nMAIL\r\n'],
    ['a\r\n.\nMAIL\r\n.\r\n', 'a\r\n\nMAIL\r\n', '', 'a\r\n.\r\nMAIL\r\n'],
    ['a\r.\rMAIL\r\n.\r\n', 'a\r.\rMAIL\r\n', '', null],
    ['a\r.\r\nMAIL\r\n.\r\n', 'a\r.\r\nMAIL\r\n', '', null],
    ['a\n.\rMAIL\r\n.\r\n', 'a\n.\rMAIL\r\n', '', null],
    ['a\r\n.\rMAIL\r\n.\r\n', 'a\r\n\rMAIL\r\n', '', null],
    ['a\r\n.\r\r\n.\r\n', 'a\r\n\r\r\n', '', null],
    ['a\r\r\n.\r\n', 'a\r\r\n', '', null],
    ['a\n\r\n.\r\n', 'a\n\r\n', '', 'a\r\n\r\n'],
    ['\n.\r\n.\r\n', '\n.\r\n', '', '\r\n.\r\n'],
    ['.\n.\r\n\r\n.\r\n', '\n.\r\n\r\n', '', '.\r\n.\r\n\r\n'],
    ['.\r.\r\n\r\n.\r\n', '\r.\r\n\r\n', '', null],
    ['a\r\n.\0\r\n.\r\n', 'a\r\n\0\r\n', ''],
    // After a bare LF two dots are one (smtplib doubles them there), one stays (curl does not).
    ['a\n..\n...b\n.c\n\r\n.\r\n', 'a\n..\n...b\n.c\n\r\n', '', 'a\r\n.\r\n..b\r\n.c\r\n\r\n'],
  ];

for (const [wire, passed, rest, normalized = passed] of cases) {
  test(`decodes ${JSON.stringify(wire.slice(0, 60))} the same however it is split`, () => {
    const isBare = passed !== normalized;
    for (const way of splits(wire)) {
      assert.deepEqual(run(way, 'pass'), { body: passed, rest, fault: undefined }, JSON.stringify(way));
      const strict = run(way, 'reject');
      assert.equal(strict.rest, rest, JSON.stringify(way));
      if (isBare) assert.ok(strict.fault !== undefined && !bare(strict.body), JSON.stringify(way));
      else assert.deepEqual(strict, run(way, 'pass'));
      const mended = run(way, 'normalize');
      assert.equal(mended.rest, rest, JSON.stringify(way));
      assert.ok(!bare(mended.body), JSON.stringify(way));
      assert.equal(mended.fault, normalized === null ? 'bare_cr' : undefined);
      if (normalized !== null) assert.equal(mended.body, normalized, JSON.stringify(way));
    }
  });
}

const bare = (content: string): boolean => /\r(?!\n)|(?<!\r)\n/.test(content);

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

/** The same with every LF an end of line, and dots as the table above has them. */
function mendedReference(wire: string): { body: string; rest: string | undefined } {
  let body = '';
  let line = '';
  let afterCrLf = true;
  for (let i = 0; i < wire.length; i++) {
    line += wire[i];
    if (!line.endsWith('\n')) continue;
    const isCrLf = line.endsWith('\r\n');
    const text = line.slice(0, isCrLf ? -2 : -1);
    if (text === '.' && isCrLf && afterCrLf) return { body, rest: wire.slice(i + 1) };
    const isDoubled = afterCrLf ? text.startsWith('.') && text !== '.' : text.startsWith('..');
    body += `${isDoubled ? text.slice(1) : text}\r\n`;
    afterCrLf = isCrLf;
    line = '';
  }
  return { body, rest: undefined };
}

const parts = fc.array(fc.constantFrom('\r', '\n', '.', 'a', '\r\n', '\r\n.', '\r\n.\r\n', '\n.', '\n..'), {
  maxLength: 24,
});
const cuts = fc.array(fc.nat(60), { maxLength: 5 });

function cutAt(wire: string, places: readonly number[]): string[] {
  const at = [...new Set(places.filter((c) => c > 0 && c < wire.length))].sort((a, b) => a - b);
  return [0, ...at].map((from, i) => wire.slice(from, at[i]));
}

test('agrees with the RFC read literally on random octets', () => {
  fc.assert(
    fc.property(parts, cuts, (text, places) => {
      const wire = `${text.join('')}\r\n.\r\nNEXT`;
      const expected = reference(wire);
      const { body, rest } = run(cutAt(wire, places), 'pass');
      assert.deepEqual({ body, rest }, expected);
      const strict = run(cutAt(wire, places), 'reject');
      assert.equal(strict.rest, rest);
      assert.ok(!bare(strict.body));
      // A bare end in the message itself, dots and end of data apart.
      const isFaulty = bare(wire.slice(0, wire.length - (rest?.length ?? 0)));
      assert.equal(strict.fault !== undefined, isFaulty, JSON.stringify(wire));
      if (!isFaulty) assert.equal(strict.body, body);
    }),
    { seed: 5321, numRuns: 5000 },
  );
});

test('normalizes random octets as a reader of lines would, and never lets a bare end out', () => {
  fc.assert(
    fc.property(parts, cuts, (text, places) => {
      const wire = `${text.join('')}\r\n.\r\nNEXT`;
      const { body, rest, fault } = run(cutAt(wire, places), 'normalize');
      assert.ok(!bare(body), JSON.stringify(wire));
      const expected = reference(wire).rest;
      assert.equal(rest, expected, 'the same end as without mending');
      const isCr = /\r(?!\n)/.test(wire.slice(0, wire.length - (rest?.length ?? 0)));
      assert.equal(fault, isCr ? 'bare_cr' : undefined, JSON.stringify(wire));
      if (!isCr) assert.deepEqual({ body, rest }, mendedReference(wire), JSON.stringify(wire));
    }),
    { seed: 5321, numRuns: 5000 },
  );
});

test('a chunk full of dots or of bare ends costs about what its octets cost', async () => {
  for (const unit of ['..\r\n', '\n', '\n.', '\r\n', '.\n', 'a\n']) {
    const decode = (octets: number): void => {
      const pieces: Buffer[] = [];
      createBodyDecoder('normalize').decode(Buffer.from(unit.repeat(octets / unit.length)), 0, pieces);
      assert.ok(pieces.length <= 32, `${pieces.length} pieces of ${JSON.stringify(unit)}`);
    };
    await assertLinear(JSON.stringify(unit), decode, 256_000);
  }
});
