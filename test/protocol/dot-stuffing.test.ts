import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDotStuffer, stuffWhole } from '../../src/protocol/dot-stuffing.ts';

/** What RFC 5321 §4.5.2 asks of a receiver, written the slow way: the body of what is on the wire. */
function receive(wire: string): string {
  assert.ok(wire.endsWith('\r\n.\r\n') || wire === '.\r\n', JSON.stringify(wire));
  const content = wire === '.\r\n' ? '' : wire.slice(0, -3);
  assert.equal(`\r\n${content}`.indexOf('\r\n.\r\n'), -1, `ends early: ${JSON.stringify(wire)}`);
  return `\r\n${content}`.replace(/\r\n\./g, '\r\n').slice(2);
}

function stuff(chunks: readonly string[]): string {
  const stuffer = createDotStuffer();
  const parts = chunks.flatMap((chunk) => stuffer.push(Buffer.from(chunk, 'latin1')));
  return Buffer.concat([...parts, stuffer.end()]).toString('latin1');
}

for (const body of [
  '',
  '.\r\n',
  '..\r\n',
  'a\r\n.\r\nb\r\n',
  '\r\n',
  '.',
  'a',
  'a\n.\nb\r\n',
  'a\r.\rb\r\n',
  '\r\n.\r\n.\r\n',
  '\r\r\n.\r\n',
]) {
  test(`${JSON.stringify(body)} survives the wire`, () => {
    const wire = stuff([body]);
    assert.equal(receive(wire), body === '' || body.endsWith('\r\n') ? body : `${body}\r\n`);
    assert.equal(stuffWhole(Buffer.from(body, 'latin1')).toString('latin1'), wire);
  });
}

test('any body, however split, arrives as it was and ends once', () => {
  const piece = fc.constantFrom('\r', '\n', '.', '\r\n', '\r\n.', 'x', '..', '\r\n.\r\n');
  fc.assert(
    fc.property(fc.array(fc.array(piece, { maxLength: 6 }), { maxLength: 12 }), (lists) => {
      const chunks = lists.map((list) => list.join(''));
      const body = chunks.join('');
      assert.equal(receive(stuff(chunks)), body === '' || body.endsWith('\r\n') ? body : `${body}\r\n`);
    }),
    { seed: 20261121, numRuns: 3000 },
  );
});

test('a chunk full of dots leaves in few pieces, as it was', () => {
  const body = '.\r\n..\r\n.x\r\nplain\r\n'.repeat(3_000);
  assert.ok(createDotStuffer().push(Buffer.from(body)).length < 50);
  assert.equal(receive(stuff([body])), body);
});
