import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createHeldBudget, createShare } from '../../src/listener/held-budget.ts';
import { createTestClock } from '../support/clock.ts';

const never = new AbortController().signal;

test('what does not fit waits its turn, first come first served', async () => {
  const budget = createHeldBudget(100);
  assert.equal(budget.take(60), true);
  const order: string[] = [];
  const large = budget.wait(80, 60_000, never).then(() => order.push('large'));
  // A small one would fit, but it does not overtake.
  assert.equal(budget.take(10), false);
  const small = budget.wait(10, 60_000, never).then(() => order.push('small'));
  budget.release(60);
  await Promise.all([large, small]);
  assert.deepEqual(order, ['large', 'small']);
  assert.equal(budget.held, 90);
});

test('waiting ends with its time or its owner, and lets those behind through', async () => {
  const budget = createHeldBudget(100);
  budget.take(60);
  const owner = new AbortController();
  const large = budget.wait(80, 60_000, owner.signal);
  const small = budget.wait(10, 60_000, never);
  owner.abort();
  assert.equal(await large, false);
  assert.equal(await small, true);
  assert.equal(await budget.wait(80, 1, never), false);
  assert.equal(budget.held, 70);
});

test('a reservation larger than the budget gets all of it', async () => {
  const budget = createHeldBudget(100);
  assert.equal(budget.take(1000), true);
  assert.equal(budget.held, 100);
  budget.release(1000);
  assert.equal(budget.held, 0);
});

test('one message gets all there is, also where that is less than it may hold and it has a part already', async () => {
  const clock = createTestClock();
  const budget = createHeldBudget(100, clock);
  const share = createShare(budget, { most: 1000, waitMs: 30_000, onWait: () => {} });
  assert.equal(share.cover(40), true);
  const other = createShare(budget, { most: 1000, waitMs: 60_000, onWait: () => {} });
  assert.equal(other.cover(60), true);
  const more = share.cover(41);
  other.release();
  clock.advance(30_000);
  assert.equal(await more, true);
  assert.equal(share.cover(5000), true);
  assert.equal(budget.held, 100);
  share.release();
  assert.equal(budget.held, 0);
});
