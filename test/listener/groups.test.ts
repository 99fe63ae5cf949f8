/** Several accounts for one sender, before the real relay and a simulated provider. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inOrder } from '../../src/relay/choice.ts';
import { leakless } from '../support/leak-check.ts';
import { smtpClient } from '../support/smtp-client.ts';
import { startFront } from './front.ts';
import { account } from './stage.ts';

test('the most exact match comes first, then preference, then room', () => {
  const choice = (id: string, exactness: 'address' | 'domain' | 'any', preference?: number) => ({
    account: account(id, preference === undefined ? {} : { preference }),
    exactness,
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
    const client = await smtpClient(front.port);
    defer(() => client.socket.destroy());
    await client.expect(undefined, 220);
    await client.expect('EHLO c', 250);
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
    assert.equal(await send(), '451 4.7.1');
    assert.equal(front.provider.messages.length, 6);
  }),
);

test(
  'a drained account is passed over; when none is left the reply is temporary',
  leakless(async (_t, defer) => {
    const front = await startFront(defer, { users: USERS, account: { senders: ['*@team.test'] } });
    const client = await smtpClient(front.port);
    defer(() => client.socket.destroy());
    await client.expect(undefined, 220);
    await client.expect('EHLO c', 250);
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
    front.relay.drain('three@a.test');
    await client.expect('MAIL FROM:<news@team.test>', '451 4.3.2');
  }),
);
