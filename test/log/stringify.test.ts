import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  boolean,
  members,
  number,
  object,
  orNull,
  text,
  texts,
  thousandths,
} from '../../src/log/stringify.ts';

test('a compiled stringifier writes what JSON.stringify writes', () => {
  const write = members<{
    a: string;
    b: number;
    c: boolean;
    d: readonly string[];
    e: { f: string | null } | null;
  }>({ a: text, b: number, c: boolean, d: texts, e: orNull(object({ f: orNull(text) })) });
  const strings = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('\ud800', '"', '\\', '\n', '\u2028'),
  );
  fc.assert(
    fc.property(
      fc.record({
        a: strings,
        b: fc.oneof(fc.double(), fc.integer()),
        c: fc.boolean(),
        d: fc.array(strings),
        e: fc.option(fc.record({ f: fc.option(strings) })),
      }),
      (value) => assert.deepEqual(JSON.parse(`{${write(value)}}`), JSON.parse(JSON.stringify(value))),
    ),
  );
});

test('a number of three decimals is what JSON makes of it', () => {
  for (const value of [0, 0.001, 0.01, 0.5, 1, 1.25, 12.003, 1234.999, 2e9, 0.0001, -1.5])
    assert.equal(JSON.parse(thousandths(value)), value < 0 ? value : Math.round(value * 1000) / 1000 || 0);
  assert.equal(thousandths(Number.NaN), 'null');
});
