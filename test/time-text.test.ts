import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDate } from '../src/protocol/received.ts';
import { isoTime, onceIn } from '../src/time-text.ts';

const TIMES = [
  0, 1, 999, 1_000, 1_001, -1, -1_000, 1_764_237_704_007, 1_764_237_704_999, 253_402_300_800_000,
];

test('times are written as Date writes them, asked for once more, backwards and again', () => {
  for (const at of [...TIMES, ...TIMES.toReversed(), ...TIMES.flatMap((at) => [at, at])]) {
    assert.equal(isoTime(at), new Date(at).toISOString());
    assert.equal(formatDate(at), new Date(at).toUTCString().replace('GMT', '+0000'));
  }
});

test('what is no time a date can have throws, as Date does', () => {
  for (const at of [Number.NaN, 9e15]) assert.throws(() => isoTime(at), RangeError);
});

test('made once while times lie in one unit', () => {
  const made: number[] = [];
  const of = onceIn(1_000, (start) => made.push(start));
  for (const at of [0, 999, 1_000, 1_999, 500, 999]) of(at);
  assert.deepEqual(made, [0, 1_000, 0]);
});
