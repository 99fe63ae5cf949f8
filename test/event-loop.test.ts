import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventLoop } from '../src/event-loop.ts';

test('what is for the end of a turn is done once, in the order of coming, when all else of the turn is', async () => {
  const seen: string[] = [];
  eventLoop.atTurnEnd(() => {
    seen.push('first');
    eventLoop.atTurnEnd(() => void seen.push('of the next turn'));
  });
  eventLoop.atTurnEnd(() => void seen.push('second'));
  process.nextTick(() => seen.push('a tick'));
  void Promise.resolve().then(() => seen.push('a promise'));
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
  assert.deepEqual(new Set(seen.slice(0, 2)), new Set(['a tick', 'a promise']));
  assert.deepEqual(seen.slice(2), ['first', 'second', 'of the next turn']);
});
