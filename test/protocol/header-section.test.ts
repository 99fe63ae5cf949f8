import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createHeaderCollector } from '../../src/protocol/header-section.ts';

function collect(pieces: readonly string[], max = 1000): { section: string; isComplete: boolean } {
  const collector = createHeaderCollector(max);
  for (const piece of pieces) {
    const section = collector.push(Buffer.from(piece, 'latin1'));
    if (section !== undefined) return { section: section.toString('latin1'), isComplete: true };
  }
  return { section: collector.end().toString('latin1'), isComplete: false };
}

test('the section ends at the empty line, wherever the pieces are cut', () => {
  const text = fc.array(fc.constantFrom('a', '\r\n', '\r', '\n', 'A: b\r\n'), { maxLength: 12 });
  fc.assert(
    fc.property(text, fc.array(fc.nat(40), { maxLength: 6 }), (parts, cuts) => {
      const all = parts.join('');
      const at = [...new Set(cuts.filter((c) => c > 0 && c < all.length))].sort((a, b) => a - b);
      const pieces = [0, ...at].map((from, i) => all.slice(from, at[i]));
      const end = all.startsWith('\r\n') ? 0 : all.indexOf('\r\n\r\n');
      assert.deepEqual(collect(pieces), {
        section: end < 0 ? all : all.slice(0, end),
        isComplete: end >= 0,
      });
    }),
    { seed: 5322, numRuns: 3000 },
  );
});

test('a section that is too long is judged by its first octets', () => {
  assert.deepEqual(collect(['x'.repeat(600), 'x'.repeat(600)]), {
    section: 'x'.repeat(1000),
    isComplete: true,
  });
});
