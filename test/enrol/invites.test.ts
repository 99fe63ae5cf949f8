import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createInvites } from '../../src/enrol/invites.ts';

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
