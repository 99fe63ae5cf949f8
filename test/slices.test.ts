import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAccounts } from '../src/accounts/accounts-file.ts';
import { createDirectoryInSlices } from '../src/accounts/directory.ts';
import { diffAccounts } from '../src/accounts/reload-diff.ts';
import { createSlices, mapInSlices } from '../src/slices.ts';
import { countTurns } from './support/turns.ts';

/** Turns of the event loop while `work` goes on. */
async function turnsDuring(work: () => Promise<unknown>): Promise<number> {
  const turn = countTurns();
  await work();
  turn.stop();
  return turn.now();
}

test('a slice ends with its time, and begins anew after a rest', async () => {
  let now = 0;
  const slices = createSlices({ monotonic: () => now }, 5);
  assert.equal(slices.isOver, false);
  now = 5;
  assert.equal(slices.isOver, true);
  await slices.rest();
  assert.equal(slices.isOver, false);
});

test('of many works at once one goes on in a turn of the loop', async () => {
  const turn = countTurns();
  const goneOn: number[] = [];
  const work = async (): Promise<void> => {
    const slices = createSlices({ monotonic: () => 0 });
    for (let i = 0; i < 5; i++) {
      await slices.rest();
      goneOn.push(turn.now());
    }
  };
  await Promise.all(Array.from({ length: 20 }, work));
  turn.stop();
  assert.equal(goneOn.length, 100);
  assert.equal(new Set(goneOn).size, 100);
});

test('while the clock stands still there is one slice', async () => {
  const slices = createSlices({ monotonic: () => 0 });
  assert.deepEqual(await mapInSlices([1, 2, 3], (n) => n * 2, slices), [2, 4, 6]);
});

test('reading, comparing and looking up thousands of accounts leave the loop its turns', async () => {
  const entries = Array.from({ length: 2_000 }, (_, i) => ({
    email: `user${i}@example.com`,
    provider: 'gmail',
    client_id: 'client',
    client_secret: 'secret',
    refresh_token: `token ${i}`,
  }));
  const text = JSON.stringify({ accounts: entries });
  const read = () => parseAccounts(text, { env: {}, directory: '/' });
  // Two slices would be one turn; the work takes tens of milliseconds on any machine.
  assert.ok((await turnsDuring(read)) > 10);
  const [before, after] = [await read(), await read()];
  assert.ok((await turnsDuring(() => diffAccounts(before.accounts, after.accounts))) > 3);
  const { accounts } = after;
  assert.ok((await turnsDuring(() => createDirectoryInSlices(accounts.map((a) => a.account)))) > 1);
});
