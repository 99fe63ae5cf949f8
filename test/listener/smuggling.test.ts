import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { ANN } from '../support/relay-room.ts';
import { type SmtpClient, smtpClient } from '../support/smtp-client.ts';
import { type Front, startFront } from './front.ts';

/** Ends of data that some server somewhere takes for one; what stands behind would be a second message. */
const FALSE_ENDS = [
  '\n.\n',
  '\r.\r',
  '\n.\r\n',
  '\r\n.\n',
  '\r\n.\r',
  '\r.\r\n',
  '\n\n.\n\n',
  '\r\r.\r\r',
  '\r\n\0.\r\n',
  '\r\n.\0\r\n',
  '\r\n.\r\r\n',
  '\n.\r\r\n',
  '\n\r.\n\r',
];
const SMUGGLED = `MAIL FROM:<${ANN}>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n`;

async function greeted(front: Front, defer: Defer): Promise<SmtpClient> {
  const client = await smtpClient(front.port);
  defer(() => client.socket.destroy());
  await client.expect(undefined, 220);
  await client.expect('EHLO client.test', 250);
  return client;
}

/** RFC 5321 §4.5.2: every line that begins with a dot loses it. Only CRLF makes a line. */
const unstuffed = (wire: string): string => wire.replace(/(^|\r\n)\./g, '$1');

for (const chunking of [true, false]) {
  test(
    `no false end of data ends a message, however it is split (${chunking ? 'BDAT' : 'DATA'} upstream)`,
    leakless(async (_t, defer) => {
      const front = await startFront(defer, { account: { chunking }, settings: { bareLineEnds: 'pass' } });
      const client = await greeted(front, defer);
      let sent = 0;
      for (const end of FALSE_ENDS) {
        const content = `Subject: t\r\n\r\nbody${end}${SMUGGLED}`;
        const ways: string[][] = [[content], [...content]];
        const at = content.indexOf(end);
        for (let i = 0; i <= end.length; i++) ways.push([content.slice(0, at + i), content.slice(at + i)]);
        for (const way of ways) {
          await client.expect(`MAIL FROM:<${ANN}>`, 250);
          await client.expect('RCPT TO:<bob@example.net>', 250);
          await client.expect('DATA', 354);
          for (const part of way) await client.raw(Buffer.from(part, 'latin1'));
          await client.raw('.\r\n');
          await client.expect(undefined, 250);
          sent += 1;
          const messages = front.provider.messages;
          assert.equal(messages.length, sent, JSON.stringify(way.slice(0, 3)));
          const last = messages.at(-1);
          assert.equal(last?.body.toString('latin1'), unstuffed(content), JSON.stringify(end));
          assert.deepEqual(
            last?.recipients.map((r) => r.address),
            ['bob@example.net'],
          );
          assert.equal(last?.via, chunking ? 'BDAT' : 'DATA');
        }
      }
    }),
  );
}

test(
  'by default a bare CR or LF refuses the message, and nothing of it is delivered',
  leakless(async (_t, defer) => {
    const front = await startFront(defer);
    const client = await greeted(front, defer);
    for (const end of FALSE_ENDS.filter((e) => /\r(?!\n)|(?<!\r)\n/.test(e))) {
      await client.expect(`MAIL FROM:<${ANN}>`, 250);
      await client.expect('RCPT TO:<bob@example.net>', 250);
      await client.expect('DATA', 354);
      await client.raw(`Subject: t\r\n\r\nbody${end}${SMUGGLED}.\r\n`);
      await client.expect(undefined, '554 5.6.0');
      await client.expect('NOOP', 250);
    }
    assert.equal(front.provider.messages.length, 0);
    assert.equal(front.provider.submissions.filter((s) => s.delivered).length, 0);
  }),
);

test(
  'a command that ends in a bare LF is refused by default and read where that is set',
  leakless(async (_t, defer) => {
    const strict = await greeted(await startFront(defer), defer);
    await strict.raw(`MAIL FROM:<${ANN}>\nRSET\n`);
    await strict.expect(undefined, '500 5.5.2');
    await strict.expect(undefined, '500 5.5.2');
    await strict.raw(`MAIL FROM:<${ANN}>\rRSET\r\n`);
    await strict.expect(undefined, '500 5.5.2');
    const lenient = await greeted(await startFront(defer, { settings: { bareLineEnds: 'pass' } }), defer);
    await lenient.raw(`MAIL FROM:<${ANN}>\nRSET\n`);
    await lenient.expect(undefined, 250);
    await lenient.expect(undefined, '250 2.0.0');
  }),
);

test(
  'addresses cannot carry line ends, NUL or undeclared 8-bit upstream',
  leakless(async (_t, defer) => {
    const front = await startFront(defer, { settings: { limits: { maxBadCommands: 100 } } });
    const client = await greeted(front, defer);
    for (const [octets, code] of [
      ['\0', '500 5.5.2'],
      ['\x7f', '500 5.5.2'],
      ['\t', '500 5.5.2'],
      ['\r', '500 5.5.2'],
      ['\xe4', '500 5.5.2'],
      ['\xc3\xa4', '553 5.6.7'],
    ] as const) {
      await client.raw(Buffer.from(`MAIL FROM:<a${octets}nn@example.com>\r\n`, 'latin1'));
      await client.expect(undefined, code);
    }
    await client.expect(`MAIL FROM:<${ANN}>`, 250);
    await client.raw('RCPT TO:<b\n@example.net>\r\n');
    await client.expect(undefined, '500 5.5.2');
    await client.expect(undefined, '500 5.5.');
    await client.raw(Buffer.from('RCPT TO:<b\xc3\xb6b@example.net>\r\n', 'latin1'));
    await client.expect(undefined, '553 5.6.7');
    assert.equal(front.provider.submissions.length, 0);
  }),
);
