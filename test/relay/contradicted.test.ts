/** A refusal, and yet the provider has the message or is in the middle of it: nothing is sent twice by us, and nothing more is said there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { ANN, type Room, type RoomOptions, startRoom } from '../support/relay-room.ts';
import { waitFor } from '../support/wait-for.ts';

const TIMEOUT = '451 4.4.2 Timeout - closing connection.';

/** One connection, used before: the next message leaves in one flight. */
async function start(defer: Defer, rules: NonNullable<RoomOptions['provider']>['rules'] = {}): Promise<Room> {
  const room = await startRoom(defer, { provider: { rules }, account: { max_connections: 1 } });
  assert.equal((await room.send()).final?.code, 250);
  return room;
}

/** A transaction given up after its recipients: the next one begins with RSET. */
async function giveUp(room: Room): Promise<void> {
  const { transaction } = await room.mail();
  await transaction?.rcpt([
    { address: 'p@x.net', parameters: [] },
    { address: 'q@x.net', parameters: [] },
  ]);
  transaction?.abort();
}

for (const stray of [
  TIMEOUT,
  '421 4.4.2 idle for too long',
  '503 5.5.1 Bad sequence of commands',
  '432 4.3.2 Concurrent connections limit exceeded',
])
  test(
    `${stray} ahead of the replies to a flight that was taken: the outcome is unknown, the message is there once`,
    leakless(async (_t, defer) => {
      const room = await start(defer);
      room.provider.smtp.script('MAIL', { user: ANN }, { ahead: `${stray}\r\n` });
      const { final } = await room.send({ to: ['once@x.net'] });
      assert.deepEqual([final?.code, final?.enhanced], [451, '4.4.2']);
      assert.equal(room.records.at(-1)?.outcome, 'unknown');
      assert.equal(room.provider.messages.length, 2);
      assert.equal((await room.send()).final?.code, 250);
    }),
  );

for (const refusal of [
  '451 4.3.0 Temporary server error',
  '503 5.5.1 Bad sequence of commands',
  '550 5.7.1 refused',
]) {
  test(
    `RSET hears ${refusal}: no body left with it, so what became of the message is known`,
    leakless(async (_t, defer) => {
      const room = await start(defer);
      await giveUp(room);
      const old = room.provider.smtp.sessions.at(-1);
      room.provider.smtp.script('RSET', { user: ANN }, { reply: refusal });
      const { final } = await room.send({ to: ['once@x.net'] });
      const isSaidAgain = refusal.startsWith('5');
      assert.deepEqual([final?.code, final?.enhanced], isSaidAgain ? [250, '2.0.0'] : [451, '4.3.0']);
      assert.equal(room.provider.messages.length, isSaidAgain ? 2 : 1);
      assert.equal(old?.commands.at(-1), 'RCPT TO:<once@x.net>');
    }),
  );

  test(
    `RSET hears ${refusal} and DATA behind it 354: the next message is no part of that one`,
    leakless(async (_t, defer) => {
      const room = await start(defer, { withhold: ['CHUNKING'] });
      await giveUp(room);
      const old = room.provider.smtp.sessions.at(-1);
      room.provider.smtp.script('RSET', { user: ANN }, { reply: refusal });
      await room.send({ to: ['first@x.net'] });
      await waitFor(() => old?.closed === true, { what: 'the end of the connection that waits for a body' });
      const body = 'Subject: x\r\n\r\nfor the second alone\r\n';
      assert.equal((await room.send({ to: ['second@x.net'], body })).final?.code, 250);
      const last = room.provider.messages.at(-1);
      assert.deepEqual(
        [last?.recipients.map((r) => r.address), last?.body.toString()],
        [['second@x.net'], body],
      );
    }),
  );
}

for (const withhold of [['CHUNKING'], ['PIPELINING', 'CHUNKING']] as const)
  for (const to of [['one@x.net'], ['one@x.net', 'two@x.net']])
    test(
      `a 5xx to RSET is no verdict on the message behind it: ${to.length} recipients without ${withhold.join(' and ')}`,
      leakless(async (_t, defer) => {
        const room = await start(defer, { withhold });
        await giveUp(room);
        room.provider.smtp.script('RSET', { user: ANN }, { reply: '550 5.7.1 refused' });
        const { rcpts, final } = await room.send({ to, together: true });
        assert.deepEqual(
          [...rcpts, final].map((r) => r?.code),
          [...to, 'final'].map(() => 250),
        );
        assert.equal(room.provider.messages.length, 2);
      }),
    );

test(
  'without PIPELINING a refused RSET is the answer to MAIL, and nothing more is said there',
  leakless(async (_t, defer) => {
    const room = await start(defer, { withhold: ['PIPELINING', 'CHUNKING'] });
    await giveUp(room);
    const old = room.provider.smtp.sessions.at(-1);
    room.provider.smtp.script('RSET', { user: ANN }, { reply: '451 4.3.0 Temporary server error' });
    assert.equal((await room.send()).final?.code, 451);
    assert.equal(old?.commands.at(-1), 'RSET');
  }),
);
