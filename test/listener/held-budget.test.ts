import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createHeldBudget } from '../../src/listener/held-budget.ts';

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
