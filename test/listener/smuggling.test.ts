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
  'under reject a bare CR or LF refuses the message, and nothing of it is delivered',
  leakless(async (_t, defer) => {
    const front = await startFront(defer, { settings: { bareLineEnds: 'reject' } });
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

/** What an upstream that takes LF for a line end would read as the end of data. */
const LAX_END = /(?:^|\r\n|\n|\r)\.(?:\r\n|\n|\r)/;

/** Content lines as the upstream should get them, whatever ends they had; undefined where a bare CR refuses. */
const mended = (content: string): string | undefined =>
  /\r(?!\n)/.test(content) ? undefined : content.replace(/\r?\n/g, '\r\n');

for (const [mode, chunking] of [
  ['normalize', false],
  ['normalize', true],
  ['reject', false],
  ['reject', true],
] as const) {
  test(
    `false ends of data early and late in 900 kB never reach the upstream (${mode}, ${chunking ? 'BDAT' : 'DATA'})`,
    leakless(async (_t, defer) => {
      const front = await startFront(defer, { account: { chunking }, settings: { bareLineEnds: mode } });
      const client = await greeted(front, defer);
      const filler = `${'x'.repeat(70)}\r\n`.repeat(450);
      let delivered = 0;
      for (const end of ['\n.\r\n', '\n.\n', '\r.\r\n', '\n.\r', '\r\n.\n', '\r\n.\r']) {
        for (const before of [0, 1, 28]) {
          const head = `Subject: t\r\n\r\n${filler.repeat(before)}body`;
          const content = `${head}${end}${SMUGGLED}${filler.repeat(28 - before)}`;
          for (const split of [0, 1, 2, 3]) {
            await client.expect(`MAIL FROM:<${ANN}>`, 250);
            await client.expect('RCPT TO:<bob@example.net>', 250);
            await client.expect('DATA', 354);
            const at = head.length + split;
            await client.raw(Buffer.from(content.slice(0, at), 'latin1'));
            await client.raw(Buffer.from(content.slice(at), 'latin1'));
            await client.raw('.\r\n');
            const answer = await client.reply();
            const expected = mode === 'reject' ? undefined : mended(content);
            const label = `${JSON.stringify(end)} after ${before}, split at ${split}`;
            assert.equal(answer.code, expected === undefined ? 554 : 250, label);
            if (expected === undefined) continue;
            delivered += 1;
            const last = front.provider.messages.at(-1);
            assert.equal(last?.body.toString('latin1'), expected, label);
          }
        }
      }
      assert.equal(front.provider.messages.length, delivered);
      // Nothing that was begun upstream holds what some server takes for an end, nor a bare line end at all.
      for (const one of front.provider.submissions) {
        const octets = one.body.toString('latin1');
        assert.doesNotMatch(octets, /\r(?!\n)(?!$)|(?<!\r)\n/);
        if (!one.delivered) assert.doesNotMatch(octets, LAX_END);
        assert.deepEqual(
          one.recipients.map((r) => r.address),
          ['bob@example.net'],
        );
      }
    }),
  );
}

test(
  'messages with CRLF throughout are byte for byte the same, and SIZE goes on only where it is still true',
  leakless(async (_t, defer) => {
    const front = await startFront(defer);
    const client = await greeted(front, defer);
    const clean = `Subject: t\r\n\r\n..dots\r\n.\t\r\n\r\n${'\x00\xff'.repeat(50)}\r\n`;
    const transactions: [content: string, size: string | undefined][] = [
      [clean, 'SIZE=999'],
      [clean.replaceAll('\r\n', '\n'), undefined],
      [`${clean}${'y'.repeat(998)}\r\n`.repeat(100), 'SIZE=999'],
    ];
    for (const [content, size] of transactions) {
      await client.expect(`MAIL FROM:<${ANN}> SIZE=999`, 250);
      await client.expect('RCPT TO:<bob@example.net>', 250);
      await client.expect('DATA', 354);
      await client.raw(Buffer.from(content.replace(/(^|\n)\./g, '$1..'), 'latin1'));
      await client.raw(content.endsWith('\r\n') ? '.\r\n' : '\r\n.\r\n');
      await client.expect(undefined, 250);
      const last = front.provider.messages.at(-1);
      const expected = content.endsWith('\r\n') ? content : `${content.replaceAll('\n', '\r\n')}\r\n`;
      assert.equal(last?.body.toString('latin1'), expected);
      assert.equal(
        last?.mailParameters.find((p) => p.startsWith('SIZE')),
        size,
      );
    }
  }),
);

test(
  'asked for recipients before the body, the provider hears no SIZE that the body may yet belie',
  leakless(async (_t, defer) => {
    for (const [settings, size] of [
      [{}, undefined],
      [{ bareLineEnds: 'reject' }, 'SIZE=999'],
      [{ bareLineEnds: 'reject', completeHeader: true }, undefined],
    ] as const) {
      const front = await startFront(defer, { settings });
      const client = await greeted(front, defer);
      await client.expect(`MAIL FROM:<${ANN}> SIZE=999`, 250);
      await client.expect('RCPT TO:<bob@example.net>', 250);
      await client.expect('RCPT TO:<eve@example.net>', 250);
      await client.expect('DATA', 354);
      await client.raw('Subject: t\r\n\r\nx\r\n.\r\n');
      await client.expect(undefined, 250);
      const [message] = front.provider.messages;
      assert.equal(
        message?.mailParameters.find((p) => p.startsWith('SIZE')),
        size,
      );
    }
  }),
);

test(
  'a listener for devices asks for a first recipient at once, unless it is told otherwise',
  leakless(async (_t, defer) => {
    for (const [settings, codes] of [
      [{}, [250, 452, 452]],
      [{ completeHeader: true }, [550, 250, 250]],
      [{ authEqualsLine: true }, [550, 250, 250]],
      [{ completeHeader: true, firstRecipient: 'deferred' }, [250, 452, 452]],
    ] as const) {
      const front = await startFront(defer, { settings });
      front.provider.smtp.script('RCPT', { line: /bad@/ }, { reply: '550 5.1.1 no such user' });
      const client = await greeted(front, defer);
      await client.expect(`MAIL FROM:<${ANN}>`, 250);
      const heard: number[] = [];
      for (const name of ['bad', 'good', 'fine'])
        heard.push((await client.send(`RCPT TO:<${name}@example.net>`)).code);
      assert.deepEqual(heard, codes);
    }
  }),
);

test(
  'a command that ends in a bare LF is read, refused where that is set; one with a bare CR is refused',
  leakless(async (_t, defer) => {
    const strict = await greeted(await startFront(defer, { settings: { bareLineEnds: 'reject' } }), defer);
    await strict.raw(`MAIL FROM:<${ANN}>\nRSET\n`);
    await strict.expect(undefined, '500 5.5.2');
    await strict.expect(undefined, '500 5.5.2');
    const lenient = await greeted(await startFront(defer), defer);
    await lenient.raw(`MAIL FROM:<${ANN}>\nRSET\n`);
    await lenient.expect(undefined, 250);
    await lenient.expect(undefined, '250 2.0.0');
    for (const client of [strict, lenient]) {
      await client.raw(`MAIL FROM:<${ANN}>\rRSET\r\n`);
      await client.expect(undefined, '500 5.5.2');
    }
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
      ['\t', '501 5.1.7'],
      ['\r', '500 5.5.2'],
      ['\xe4', '500 5.5.2'],
      ['\xc3\xa4', '553 5.6.7'],
    ] as const) {
      await client.raw(Buffer.from(`MAIL FROM:<a${octets}nn@example.com>\r\n`, 'latin1'));
      await client.expect(undefined, code);
    }
    await client.expect(`MAIL FROM:<${ANN}>`, 250);
    await client.raw('RCPT TO:<b\n@example.net>\r\n');
    await client.expect(undefined, '501 5.1.3');
    await client.expect(undefined, '500 5.5.');
    await client.raw(Buffer.from('RCPT TO:<b\xc3\xb6b@example.net>\r\n', 'latin1'));
    await client.expect(undefined, '553 5.6.7');
    assert.equal(front.provider.submissions.length, 0);
  }),
);

test(
  'a body that does not wait for the answer to DATA runs as no commands where that is a refusal',
  leakless(async (_t, defer) => {
    const front = await startFront(defer);
    for (const [from, to, codes] of [
      ['nobody@elsewhere.example', 'bob@example.net', [550, 503, 503, 421]],
      [ANN, '<>', [250, 501, 503, 421]],
      [`${ANN}> SIZE=999999999999 <`, 'bob@example.net', [501, 503, 503, 421]],
    ] as const) {
      const client = await greeted(front, defer);
      const body = `Subject: a form\r\n\r\nRSET\r\n${SMUGGLED}.\r\n.\r\n`;
      await client.raw(`MAIL FROM:<${from}>\r\nRCPT TO:<${to}>\r\nDATA\r\n${body}`);
      for (const code of codes) await client.expect(undefined, code);
      assert.equal(await client.closed(), 'end');
    }
    assert.equal(front.provider.messages.length, 0);
    const patient = await greeted(front, defer);
    await patient.expect('DATA', 503);
    await patient.expect('NOOP', 250);
  }),
);

test(
  'nor does one that comes after the answer, of a client that has not read it, nor the octets of a BDAT',
  leakless(async (_t, defer) => {
    const front = await startFront(defer);
    const late = await greeted(front, defer);
    await late.expect('MAIL FROM:<nobody@elsewhere.example>', 550);
    await late.expect('RCPT TO:<bob@example.net>', 503);
    await late.expect('DATA', 503);
    await late.raw(`Subject: a form\r\n\r\nRSET\r\n${SMUGGLED}.\r\n.\r\n`);
    await late.expect(undefined, 421);
    assert.equal(await late.closed(), 'end');

    for (const first of ['Subject: a form', 'help me', 'a\0b', 'x'.repeat(5_000)]) {
      for (const gap of [false, true]) {
        const chunks = await greeted(front, defer);
        await chunks.expect(`MAIL FROM:<${ANN}>`, 250);
        await chunks.expect('RCPT TO:<bob@example.net>', 250);
        await chunks.raw(`BDAT 600 LAST\r\n${gap ? '' : `${first}\r\n\r\nRSET\r\n${SMUGGLED}.\r\n`}`);
        await chunks.expect(undefined, 502);
        if (gap) await chunks.raw(`${first}\r\n\r\nRSET\r\n${SMUGGLED}.\r\n`);
        if (gap && first === 'help me') await chunks.expect(undefined, 214);
        await chunks.expect(undefined, 421);
        assert.equal(await chunks.closed(), 'end');
      }
    }
    assert.equal(front.provider.messages.length, 0);

    const reader = await greeted(front, defer);
    for (const next of ['RSET', 'MAIL FROM:<>', 'EHLO again.test']) {
      await reader.expect('DATA', 503);
      await reader.send(next);
      await reader.expect('NO-COMMAND', 500);
    }
  }),
);
