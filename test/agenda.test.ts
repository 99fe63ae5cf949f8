import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAgenda } from '../src/agenda.ts';
import { createTestClock } from './support/clock.ts';

test('each comes at its time, in order, with one timer; a later time takes the place of an earlier', () => {
  const clock = createTestClock();
  const done: string[] = [];
  const agenda = createAgenda<string>(clock, (item) => done.push(`${item} at ${clock.monotonic()}`));
  agenda.set('late', 300);
  agenda.set('early', 100);
  agenda.set('moved', 50);
  agenda.set('gone', 60);
  agenda.set('moved', 200);
  agenda.delete('gone');
  assert.equal(clock.pending(), 1);
  assert.equal(agenda.at('moved'), 200);
  assert.equal(agenda.at('gone'), undefined);
  clock.advance(1_000);
  assert.deepEqual(done, ['early at 100', 'moved at 200', 'late at 300']);
  assert.equal(clock.pending(), 0);
  agenda.set('never', 2_000);
  agenda.clear();
  assert.equal(clock.pending(), 0);
});

test('of any thousand in any order nothing is lost, forgotten or out of turn', () => {
  const clock = createTestClock();
  const wanted = new Map<number, number>();
  const done: number[] = [];
  let late = 0;
  const agenda = createAgenda<number>(clock, (item) => {
    if (wanted.get(item) !== clock.monotonic()) late++;
    done.push(item);
  });
  let seed = 7;
  const next = (below: number): number => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  for (let i = 0; i < 5_000; i++) {
    const item = next(1_000);
    if (next(4) === 0) {
      agenda.delete(item);
      wanted.delete(item);
    } else {
      const at = 1 + next(10_000);
      agenda.set(item, at);
      wanted.set(item, at);
    }
  }
  clock.advance(20_000);
  assert.equal(late, 0);
  assert.deepEqual(
    done.toSorted((a, b) => a - b),
    [...wanted.keys()].toSorted((a, b) => a - b),
  );
});
