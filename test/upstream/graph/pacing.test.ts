/** Graph is never asked more than it allows. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGraphPacing, type GraphPlace } from '../../../src/upstream/graph/pacing.ts';
import { createTestClock } from '../../support/clock.ts';

const ann = { app: 'app', mailbox: 'ann' };
const bob = { app: 'app', mailbox: 'bob' };
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function take(
  pacing: ReturnType<typeof createGraphPacing>,
  key = ann,
  waitMs = 0,
): Promise<GraphPlace | undefined> {
  const place = await pacing.enter(key, 0, waitMs);
  return 'leave' in place ? place : undefined;
}

test('4 at once for one application and mailbox; the fifth waits its turn', async () => {
  const clock = createTestClock();
  const pacing = createGraphPacing(clock);
  const places = [await take(pacing), await take(pacing), await take(pacing), await take(pacing)];
  assert.ok(places.every((p) => p !== undefined));
  assert.ok(await take(pacing, bob), 'another mailbox has its own');
  let fifth: GraphPlace | undefined;
  void take(pacing, ann, 1_000).then((p) => {
    fifth = p;
  });
  await settle();
  assert.equal(fifth, undefined);
  places[0]?.leave();
  places[0]?.leave();
  await settle();
  assert.ok(fifth !== undefined);
  const sixth = take(pacing, ann, 1_000);
  await settle();
  clock.advance(1_000);
  assert.equal(await sixth, undefined, 'a wait ends');
});

test('two throttled mailboxes within 10 s: the 4 count for the application, for 10 minutes', async () => {
  const clock = createTestClock();
  const pacing = createGraphPacing(clock);
  pacing.throttled(ann, 1_000, true);
  clock.advance(10_001);
  pacing.throttled(bob, 1_000, true);
  assert.equal(pacing.isNarrowed('app'), false, 'too long between');
  clock.advance(5_000);
  pacing.throttled(ann, 1_000, true);
  assert.equal(pacing.isNarrowed('app'), true);
  clock.advance(1_000);
  const places = [await take(pacing), await take(pacing, bob), await take(pacing), await take(pacing, bob)];
  assert.ok(places.every((p) => p !== undefined));
  assert.equal(await take(pacing, { app: 'app', mailbox: 'eve' }), undefined);
  const waiting = take(pacing, { app: 'app', mailbox: 'eve' }, 5_000);
  await settle();
  places[0]?.leave();
  assert.ok(await waiting, 'a freed place serves any mailbox');
  assert.ok(await take(pacing, { app: 'other', mailbox: 'ann' }), 'another application is not concerned');
  clock.advance(10 * 60_000);
  assert.equal(pacing.isNarrowed('app'), false);
});

test('what is throttled for another reason than requests at once narrows nothing', () => {
  const pacing = createGraphPacing(createTestClock());
  pacing.throttled(ann, 1_000, false);
  pacing.throttled(bob, 1_000, true);
  assert.equal(pacing.isNarrowed('app'), false);
  assert.equal(pacing.pausedFor(ann), 1_000);
});

test('Retry-After is waited for, or refused where it is longer than the wait', async () => {
  const clock = createTestClock();
  const pacing = createGraphPacing(clock);
  pacing.throttled(ann, 3_000, false);
  assert.deepEqual(await pacing.enter(ann, 0, 2_000), { waitMs: 3_000 });
  const place = take(pacing, ann, 5_000);
  clock.advance(2_999);
  await settle();
  assert.equal(pacing.pausedFor(ann), 1);
  clock.advance(1);
  assert.ok(await place);
});

test('10,000 requests in 10 minutes and 150 MB in 5 are not exceeded', async () => {
  const clock = createTestClock();
  const pacing = createGraphPacing(clock);
  let asked = 0;
  for (; asked < 20_000; asked++) {
    const place = await take(pacing);
    if (place === undefined) break;
    place.leave();
  }
  assert.ok(asked <= 10_000 && asked > 9_000, String(asked));
  clock.advance(10 * 60_000 + 10_000);
  assert.ok(await take(pacing));
  const other = { app: 'app', mailbox: 'large' };
  let octets = 0;
  for (let i = 0; i < 100; i++) {
    const place = await pacing.enter(other, 4_000_000, 0);
    if (!('leave' in place)) {
      assert.ok(place.waitMs > 0 && place.waitMs <= 5 * 60_000 + 5_000);
      break;
    }
    place.leave();
    octets += 4_000_000;
  }
  assert.ok(octets <= 150_000_000 && octets > 140_000_000, String(octets));
});
