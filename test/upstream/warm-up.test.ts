import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDialer, type Dial } from '../../src/upstream/dial.ts';
import { leakless } from '../support/leak-check.ts';
import { startRoom } from '../support/relay-room.ts';
import { waitFor } from '../support/wait-for.ts';

const users = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => `${name}@example.com`);
const last = 'f@example.com';

test(
  'a message of an account whose warm connection is far from its turn opens one of its own at once; there is no second',
  leakless(async (_t, defer) => {
    const direct = createDialer();
    let asked = 0;
    let isHeld = true;
    let letGo = (): void => {};
    const free = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const dial: Dial = async (...how) => {
      asked++;
      if (isHeld) await free;
      return direct(...how);
    };
    const room = await startRoom(defer, { users, warm: false, upstreams: { maxOpening: 4 }, open: { dial } });
    defer(() => letGo());
    await room.tokens.precache();
    const warmed = room.ways.warmUp(users);
    await waitFor(() => asked > 0);
    isHeld = false;
    assert.equal((await room.send({ from: last })).final?.code, 250);
    assert.deepEqual(
      room.provider.smtp.sessions.map(({ user }) => user),
      [last],
    );
    letGo();
    assert.deepEqual(await warmed, { warm: users.length, cold: 0 });
    for (const user of users) assert.equal(room.provider.smtp.logins(user), 1, user);
  }),
);

test(
  'of several warm connections of an account the second comes behind the first of every other',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      users,
      account: { max_connections: 2, min_connections: 2 },
      upstreams: { maxOpening: 1 },
    });
    const logins = room.provider.smtp.sessions.map(({ user }) => user);
    assert.deepEqual([...logins.slice(0, users.length)].sort(), users);
    assert.deepEqual([...logins.slice(users.length)].sort(), users);
  }),
);
