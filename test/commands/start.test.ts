import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findStart } from '../../src/commands/start.ts';

const AT = Date.parse('2026-01-02T00:00:00.000Z');
const lines = (pid: number, at: number): string =>
  [
    { level: 30, time: new Date(at).toISOString(), event: 'listening', pid },
    { level: 30, time: new Date(at).toISOString(), event: 'ready', usable: pid },
  ]
    .map((line) => `${JSON.stringify(line)}\n`)
    .join('');

test('the log of earlier runs tells nothing of this one, whatever their process numbers', () => {
  const earlier = lines(1234, AT + 1) + lines(123, AT - 1);
  assert.equal(findStart(earlier, 123, AT), undefined);
  assert.equal(findStart(earlier + lines(123, AT), 123, AT)?.ready.usable, 123);
  assert.equal(findStart((earlier + lines(123, AT)).slice(0, -1), 123, AT), undefined);
});
