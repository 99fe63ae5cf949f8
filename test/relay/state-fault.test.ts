/** A server that is out of step with us says nothing of the message: once more on a fresh connection, then 451. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatReply } from '../../src/protocol/reply.ts';
import { leakless } from '../support/leak-check.ts';
import { ANN, startRoom } from '../support/relay-room.ts';

const faults = [
  ['MAIL', '503 5.5.1 Bad sequence of commands'],
  ['RCPT', '503 5.5.2 Need mail command'],
  ['DATA', '503 5.5.1 RCPT first'],
] as const;

for (const [command, wire] of faults) {
  const start = (defer: Parameters<Parameters<typeof leakless>[0]>[1]) =>
    startRoom(defer, { provider: command === 'DATA' ? { rules: { withhold: ['CHUNKING'] } } : {} });

  test(
    `${wire} at ${command}, once: delivered over a fresh connection`,
    leakless(async (_t, defer) => {
      const room = await start(defer);
      const before = room.provider.smtp.connections;
      const script = room.provider.smtp.script(command, { user: ANN, times: 1 }, { reply: [wire] });
      const { final } = await room.send();
      assert.equal(final?.code, 250);
      assert.equal(script.hits, 1);
      assert.equal(room.provider.messages.length, 1);
      assert.equal(room.provider.smtp.connections, before + 1);
      assert.equal(room.records[0]?.replayed, true);
    }),
  );

  test(
    `${wire} at ${command}, always: 451 after the second try, and the account is well`,
    leakless(async (_t, defer) => {
      const room = await start(defer);
      const script = room.provider.smtp.script(
        command,
        { user: ANN, times: Number.POSITIVE_INFINITY },
        { reply: [wire] },
      );
      const { final } = await room.send();
      assert.ok(
        final !== undefined && formatReply(final).startsWith('451 4.5.0 '),
        final && formatReply(final),
      );
      assert.equal(script.hits, 2);
      assert.equal(room.upstreams.status(ANN)?.state.status, 'ready');
      script.remove();
      assert.equal((await room.send()).final?.code, 250);
    }),
  );
}

test(
  'at a third recipient, once: the whole envelope goes again over a fresh connection, and everybody gets the message',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    const script = room.provider.smtp.script(
      'RCPT',
      { user: ANN, line: /third/, times: 1 },
      { reply: ['503 5.5.2 Need mail command'] },
    );
    const recipients = ['first@example.net', 'second@example.net', 'third@example.net'];
    const { rcpts, final } = await room.send({ to: recipients });
    assert.deepEqual(
      rcpts.map((r) => r.code),
      [250, 250, 250],
    );
    assert.equal(final?.code, 250);
    assert.equal(script.hits, 1);
    assert.deepEqual(
      room.provider.messages.map((m) => m.recipients.map((r) => r.address)),
      [recipients],
    );
  }),
);
