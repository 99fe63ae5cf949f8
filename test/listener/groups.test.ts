/** Several accounts for one sender, before the real relay and a simulated provider. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Account } from '../../src/accounts/account.ts';
import { inOrder, whyFirst } from '../../src/relay/choice.ts';
import { greeted } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { waitFor } from '../support/wait-for.ts';
import { type Front, startFront } from './front.ts';
import { account } from './stage.ts';

test('the most exact match comes first, then preference, then room', () => {
  const choice = (id: string, exactness: 'address' | 'domain' | 'any', preference?: number) => ({
    account: account(id, preference === undefined ? {} : { preference }),
    exactness,
    rank: ['address', 'domain', 'any'].indexOf(exactness),
    sender: 's@x.test',
  });
  const room = new Map([
    ['small', 0.1],
    ['large', 0.9],
    ['same', 0.9],
  ]);
  const order = inOrder(
    [
      choice('rest', 'any', 0),
      choice('small', 'domain'),
      choice('large', 'domain'),
      choice('same', 'domain'),
      choice('late', 'domain', 11),
      choice('own', 'address', 99),
    ],
    ({ id }) => room.get(id) ?? 1,
  );
  assert.deepEqual(
    order.map((c) => c.account.id),
    ['own', 'large', 'same', 'small', 'late', 'rest'],
  );
  const roomOf = ({ id }: { id: string }): number => room.get(id) ?? 1;
  assert.deepEqual(
    order.map((_, i) => whyFirst(order.slice(i), roomOf)),
    ['exactness', 'order', 'room', 'preference', 'exactness', 'order'],
  );
});

const USERS = ['one@a.test', 'two@a.test', 'three@a.test'];

test(
  'an account that can take nothing now is passed over before anything was sent',
  leakless(async (_t, defer) => {
    const front = await startFront(defer, {
      users: USERS,
      account: { senders: ['*@team.test'], messages_per_minute: 2 },
      relay: { maxHoldMs: 0 },
    });
    const client = await greeted(front.port);
    defer(() => client.socket.destroy());
    const send = async (): Promise<string> => {
      const mail = await client.send('MAIL FROM:<news@team.test>');
      if (mail.code !== 250) return mail.text.slice(0, 9);
      await client.expect('RCPT TO:<b@example.net>', 250);
      await client.expect('DATA', 354);
      await client.body('x');
      return front.provider.messages.at(-1)?.user ?? '';
    };
    const took: string[] = [];
    // Each takes two a minute; by room they take turns, and then nobody can.
    for (let i = 0; i < 6; i++) took.push(await send());
    for (const user of USERS) assert.equal(took.filter((t) => t === user).length, 2, took.join());
    assert.deepEqual(
      front.records.map((r) => r.chosenBy),
      // Equal with the next one, though not with the last.
      ['order', 'order', 'room', 'order', 'order', 'room'],
    );
    assert.equal(await send(), '451 4.7.1');
    assert.equal(front.provider.messages.length, 6);
  }),
);

test(
  'a drained account is passed over; when none is left the reply is temporary',
  leakless(async (_t, defer) => {
    const front = await startFront(defer, { users: USERS, account: { senders: ['*@team.test'] } });
    const client = await greeted(front.port);
    defer(() => client.socket.destroy());
    for (const user of USERS.slice(0, 2)) front.relay.drain(user);
    for (let i = 0; i < 3; i++) {
      await client.expect('MAIL FROM:<news@team.test>', 250);
      await client.expect('RCPT TO:<b@example.net>', 250);
      await client.expect('DATA', 354);
      assert.equal((await client.body('x')).code, 250);
    }
    assert.deepEqual(
      front.provider.messages.map(({ user }) => user),
      Array(3).fill('three@a.test'),
    );
    assert.ok(front.records.every((r) => r.chosenBy === 'passed_over'));
    front.relay.drain('three@a.test');
    await client.expect('MAIL FROM:<news@team.test>', '451 4.3.2');
  }),
);

async function sender(front: Front, defer: Defer) {
  const client = await greeted(front.port);
  defer(() => client.socket.destroy());
  return {
    client,
    async send() {
      await client.expect('MAIL FROM:<news@team.test>', 250);
      await client.expect('RCPT TO:<b@example.net>', 250);
      await client.expect('DATA', 354);
      return (await client.body('x')).text;
    },
  };
}

test(
  'an account whose grant was withdrawn is passed over, and so is one that cannot be reached',
  leakless(async (_t, defer) => {
    const front = await startFront(defer, {
      users: USERS,
      account: { senders: ['*@team.test'] },
      warm: false,
    });
    const [one, two] = front.accounts;
    assert.ok(one !== undefined && two !== undefined);
    front.provider.token.revoke(one.id);
    const { send, client } = await sender(front, defer);
    assert.match(await send(), /^250/);
    assert.equal(front.provider.messages[0]?.user, 'two@a.test');
    assert.equal(front.records[0]?.chosenBy, 'passed_over');
    // Nobody listens there any more.
    front.serve(front.accounts.map((a) => (a === two ? { ...a, upstream: { ...a.upstream, port: 1 } } : a)));
    await waitFor(() => front.upstreams.of(two.id)?.live === 0, { what: 'its connection being closed' });
    assert.match(await send(), /^250/);
    assert.equal(front.provider.messages[1]?.user, 'three@a.test');
    assert.equal(front.records[1]?.chosenBy, 'passed_over');
    // None is left: temporary, whatever each of them had.
    front.relay.drain('three@a.test');
    await client.expect('MAIL FROM:<news@team.test>', 451);
    assert.equal(front.records.at(-1)?.chosenBy, undefined);
  }),
);

test(
  'a sender that moves to another account between MAIL and DATA: this message leaves once, by the first',
  leakless(async (_t, defer) => {
    const front = await startFront(defer, { users: USERS, account: { senders: ['*@team.test'] } });
    const [one, two, three] = front.accounts;
    assert.ok(one !== undefined && two !== undefined && three !== undefined);
    const { send, client } = await sender(front, defer);
    const without = (account: Account): Account => ({ ...account, senders: [account.email] });
    front.serve([one, without(two), without(three)]);
    await client.expect('MAIL FROM:<news@team.test>', 250);
    await client.expect('RCPT TO:<b@example.net>', 250);
    front.serve([without(one), two, without(three)]);
    await client.expect('DATA', 354);
    assert.equal((await client.body('x')).code, 250);
    // The account itself goes, too.
    await client.expect('MAIL FROM:<news@team.test>', 250);
    await client.expect('RCPT TO:<b@example.net>', 250);
    front.serve([three]);
    await client.expect('DATA', 354);
    assert.equal((await client.body('x')).code, 250);
    assert.match(await send(), /^250/);
    assert.deepEqual(
      front.provider.messages.map(({ user }) => user),
      ['one@a.test', 'two@a.test', 'three@a.test'],
    );
  }),
);
