import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createInvites, type Invites } from '../../src/enrol/invites.ts';
import { createTestClock } from '../support/clock.ts';

const create = (...known: readonly string[]) => createInvites({ isKnown: (id) => known.includes(id) });

test('of what an earlier process kept, invitations to accounts that are there stay, each for its mailbox', () => {
  const before = create('a', 'b');
  const keys = [before.make('a', 'a@x').key, before.make('b', 'b@x').key];
  const after = create('a');
  after.restore(JSON.parse(JSON.stringify(before.snapshot())));
  assert.deepEqual(
    keys.map((key) => after.find(key)?.user),
    ['a@x', undefined],
  );
});

test('an invitation that names no mailbox, as earlier versions kept it, has ended and costs no other', () => {
  const before = create('a', 'b');
  const keys = [before.make('a', 'a@x').key, before.make('b', 'b@x').key];
  const kept = JSON.parse(JSON.stringify(before.snapshot()));
  delete kept[0].user;
  const after = create('a', 'b');
  after.restore(kept);
  assert.deepEqual(
    keys.map((key) => after.find(key)?.accountId),
    [undefined, 'b'],
  );
});

test('what is no invitation is refused, from an earlier process and from another relay', () => {
  const invites = create('a');
  const { key } = invites.make('a', 'a@x');
  for (const kept of ['x', {}, [{ user: 'a@x' }], [{ user: 1 }]])
    assert.throws(() => invites.restore(kept), /no invitation/);
  for (const told of ['x', null, {}, { accountId: 'a', user: 'a@x' }])
    assert.throws(() => invites.take('a', told), /no invitation/);
  assert.equal(invites.find(key)?.state, 'open');
});

/** Two relays; what the one tells the other hears, unless `isApart`. */
function fleet() {
  const place = { isApart: false, told: 0 };
  const known = [new Set(['a']), new Set(['a'])];
  const relays: Invites[] = known.map((ids, i) =>
    createInvites({
      isKnown: (id) => ids.has(id),
      onChange(accountId, invite) {
        place.told += 1;
        assert.ok(place.told < 20, 'they tell each other without end');
        if (!place.isApart) relays[1 - i]?.take(accountId, invite);
      },
    }),
  );
  const [here, there] = [relays[0] ?? assert.fail(), relays[1] ?? assert.fail()];
  /** Redis has lost its data, and the one tells of what it has. */
  const tellAgain = (from: Invites, to: Invites): void => {
    place.isApart = false;
    const [told] = from.snapshot() as { accountId: string }[];
    to.take('a', told);
  };
  return { place, known, here, there, tellAgain };
}

test('what another relay tells of again, which has not heard of its end, has ended for both', () => {
  for (const end of ['forget', 'spend', 'make'] as const) {
    const { place, here, there, tellAgain } = fleet();
    const { key } = here.make('a', 'a@x');
    assert.equal(there.find(key)?.state, 'open');
    place.isApart = true;
    const made = end === 'make' ? here.make('a', 'a@x').key : undefined;
    if (end !== 'make') here[end]('a');
    tellAgain(there, here);
    for (const relay of [here, there]) {
      assert.equal(relay.find(key)?.state, end === 'spend' ? 'used' : undefined);
      if (made !== undefined) assert.equal(relay.find(made)?.state, 'open');
    }
    tellAgain(here, there);
  }
});

test('one that stood before a relay began which has no such account is over, one made since is not: its file is behind', () => {
  const clock = createTestClock();
  const { here } = fleet();
  const ids = new Set<string>();
  const told: unknown[] = [];
  const standing = here.make('a', 'a@x');
  clock.advance(60_000);
  const late = createInvites({
    clock,
    isKnown: (id) => ids.has(id),
    onChange: (id, invite) => told.push([id, invite]),
  });
  late.take('a', (here.snapshot() as unknown[])[0]);
  assert.deepEqual(told, [['a', undefined]]);
  ids.add('a');
  assert.equal(late.find(standing.key), undefined);
  ids.clear();
  const there = createInvites({ clock, isKnown: () => true });
  const made = there.make('a', 'a@x');
  late.take('a', (there.snapshot() as unknown[])[0]);
  ids.add('a');
  assert.equal(late.find(made.key)?.state, 'open');
  assert.equal(told.length, 1);
});
