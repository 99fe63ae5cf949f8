import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPlaces, type PoolPlace } from '../../src/upstream/places.ts';
import { within } from '../support/wait-for.ts';

test('what is relied on of generic-pool: counts change at once, nothing waits', async () => {
  const closed: number[] = [];
  const places = createPlaces<number>({ close: (n) => closed.push(n), sorted: () => {} });
  const fill = async (n: number): Promise<PoolPlace<number>> => {
    const place = await places.takeEmpty();
    assert.equal(place.connection, undefined);
    place.connection = n;
    return place;
  };
  const all = [await fill(1), await fill(2), await fill(3)];
  assert.deepEqual([places.size, places.idle], [3, 0]);
  for (const place of all) places.giveBack(place);
  assert.deepEqual([places.size, places.idle], [3, 3]);
  const taking = places.take();
  assert.equal(places.idle, 2, 'within the call');
  const newest = await taking;
  assert.equal(newest.connection, 3);
  const empty = places.takeEmpty();
  assert.equal(places.isSorting, true);
  assert.equal((await empty).connection, undefined);
  assert.deepEqual([places.size, places.idle], [4, 2], 'idle ones stay');
  places.drop(await empty);
  assert.deepEqual([places.size, places.idle], [3, 2]);
  await places.sweep((n) => n !== 1);
  assert.deepEqual([closed, places.size, places.idle], [[1], 2, 1]);
  places.drop(await places.take());
  places.drop(newest);
  assert.deepEqual([closed, places.size], [[1, 2, 3], 0]);
  await within(places.close(), 1_000, 'closing');
});

test('what is given back while an empty place is sought is idle afterwards, with its connection', async () => {
  let sorted = 0;
  const places = createPlaces<number>({ close: () => {}, sorted: () => sorted++ });
  const place = await places.takeEmpty();
  place.connection = 1;
  const empty = places.takeEmpty();
  places.giveBack(place);
  assert.equal(places.idle, 0);
  assert.equal((await empty).connection, undefined);
  assert.deepEqual([places.size, places.idle, sorted], [2, 1, 2]);
  assert.equal((await places.take()).connection, 1);
  places.drop(place);
  places.drop(await empty);
  await within(places.close(), 1_000, 'closing');
});
