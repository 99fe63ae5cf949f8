/** A client that is gone is not sent to: it would send the message again. One that only closed its side is served. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { ANN } from '../support/relay-room.ts';
import { type SmtpClient, smtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';
import { startFront } from './front.ts';

const WHOLE = [
  'EHLO client.test',
  `MAIL FROM:<${ANN}>`,
  'RCPT TO:<bob@example.net>',
  'DATA',
  'Subject: hi',
  '',
  'hello',
  '.',
  '',
].join('\r\n');

async function sendWhole(port: number): Promise<SmtpClient> {
  const client = await smtpClient(port);
  await client.raw(WHOLE);
  for (const code of [220, 250, 250, 250, 354]) await client.expect(undefined, code);
  return client;
}

for (const how of ['reset', 'end'] as const) {
  const isGone = how === 'reset';
  test(
    `a message that waits for a connection is ${isGone ? 'not sent when its client resets' : 'sent when its client only closed its side'}`,
    leakless(async (_t, defer) => {
      const front = await startFront(defer, { account: { max_connections: 1 } });
      let goOn = (): void => {};
      const until = new Promise<void>((resolve) => {
        goOn = resolve;
      });
      front.provider.smtp.script('end-of-data', {}, { until, normal: true });
      const first = await sendWhole(front.port);
      await waitFor(() => front.upstreams.status(ANN)?.counts.busy === 1);
      const second = await sendWhole(front.port);
      second[how]();
      if (isGone) {
        await waitFor(() => second.socket.destroyed);
        // Whatever comes after the reset is seen after it.
        const third = await smtpClient(front.port);
        await third.expect(undefined, 220);
        third.end();
      }
      goOn();
      await first.expect(undefined, 250);
      if (!isGone) await second.expect(undefined, 250);
      await waitFor(() => front.records.length === 2);
      assert.equal(front.provider.messages.length, isGone ? 1 : 2);
      assert.equal(front.records[1]?.outcome, isGone ? 'aborted' : 'relayed');
      first.end();
    }),
  );

  test(
    `a message that waits for a busy provider is ${isGone ? 'not offered again when its client resets' : 'offered again when its client only closed its side'}`,
    leakless(async (_t, defer) => {
      const front = await startFront(defer, { provider: { flavour: 'microsoft' } });
      front.provider.smtp.script(
        'end-of-data',
        {},
        { reply: '432 4.3.2 Concurrent connections limit exceeded.' },
      );
      const client = await sendWhole(front.port);
      await waitFor(() => front.provider.submissions.length === 1);
      client[how]();
      if (!isGone) await client.expect(undefined, 250);
      await waitFor(() => front.records.length === 1);
      assert.equal(front.provider.messages.length, isGone ? 0 : 1);
      assert.equal(front.records[0]?.outcome, isGone ? 'aborted' : 'relayed');
    }),
  );
}
