/** Which of a server's replies is the verdict on a body, where it says one too many, or leaves one out. */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { formatReply } from '../../src/protocol/reply.ts';
import { UpstreamConnection } from '../../src/upstream/connection.ts';
import { UpstreamError } from '../../src/upstream/failure.ts';
import { Submission } from '../../src/upstream/submission.ts';
import type { Decision } from '../../src/upstream/talk.ts';
import { createTestClock } from '../support/clock.ts';
import { waitFor } from '../support/wait-for.ts';

const MAIL = { sender: 'ann@example.com', parameters: [] };
const BOB = { address: 'bob@example.net', parameters: [] };
const BODY = Buffer.from('Subject: x\r\n\r\nx\r\n');
const ENVELOPE = ['250 2.1.0 sender', '250 2.1.5 recipient'];
/** The reply to EHLO, like no other. */
const GREETING = '250-mx.example.net\r\n250 PIPELINING';

/** A submission to a server that says what it is told, when it is told. */
function stage() {
  const clock = createTestClock();
  let heard = '';
  const socket = new Duplex({
    read: () => {},
    write(octets, _encoding, done) {
      heard += String(octets);
      done();
    },
  });
  const connection = new UpstreamConnection(socket as Socket, 'ann', { clock });
  connection.capabilities = {
    ...connection.capabilities,
    pipelining: true,
    chunking: true,
    enhancedStatusCodes: true,
  };
  connection.heloName = 'relay.test';
  connection.greeting = 'mx.example.net\nPIPELINING';
  const submission = new Submission(connection, true, { flights: 0 });
  return {
    clock,
    connection,
    submission,
    heard: () => heard,
    sendWhole: () => submission.sendWhole(MAIL, BOB, [BODY], BODY.length),
    says: (...replies: readonly string[]) =>
      void socket.emit('data', Buffer.from(replies.map((r) => `${r}\r\n`).join(''))),
    closes: () => void socket.emit('end'),
  };
}

/** The server may have the message, or not. */
const isUnknown = (error: unknown): boolean =>
  error instanceof UpstreamError && error.event.kind === 'lost' && error.event.finalByteSent;

/** The server cannot have the message. */
const isBeforeEnd = (error: unknown): boolean =>
  error instanceof UpstreamError && error.event.kind === 'lost' && !error.event.finalByteSent;

test('a 250 too many among the replies to chunks does not speak for the message', async () => {
  const { connection, submission, heard, says } = stage();
  // It has served before: how its replies look is known.
  Object.assign(connection.said, { mail: '2.1.0', rcpt: '2.1.5', end: '2.0.0' });
  const { stream } = await submission.startStream();
  assert.ok(stream);
  stream.push(Buffer.from(`Subject: x\r\n\r\n${'x'.repeat(300_000)}`));
  stream.push(Buffer.alloc(300_000, 'y'));
  const decided = stream.finish();
  await new Promise(setImmediate);
  assert.match(heard().replaceAll('y', ''), / LAST\r\n/);
  says('250 2.0.0 header', '250 2.0.0 said twice', '250 2.0.0 chunk', '554 5.7.1 spam');
  await assert.rejects(decided, isUnknown);
});

/** A body by DATA, up to where its verdict is due. */
async function sendByData(room: ReturnType<typeof stage>, isStream: boolean): Promise<Decision> {
  const { connection, says } = room;
  connection.capabilities = { ...connection.capabilities, chunking: false };
  const submission = new Submission(connection, false, { flights: 0 });
  const begun = submission.sendEnvelope(MAIL, [BOB]);
  says(...ENVELOPE);
  await begun;
  const opened = isStream ? submission.startStream() : undefined;
  const sent = opened === undefined ? submission.sendBody([BODY], BODY.length) : undefined;
  says('354 go ahead');
  if (sent !== undefined) return sent;
  const stream = (await opened)?.stream;
  assert.ok(stream);
  stream.push(BODY);
  return stream.finish();
}

for (const isStream of [false, true])
  test(`what was said to RCPT and is said again does not speak for the first body of a connection (${isStream ? 'streamed' : 'held'})`, async () => {
    const refused = stage();
    const decided = sendByData(refused, isStream);
    await waitFor(() => refused.heard().endsWith('\r\n.\r\n'));
    refused.says('250 2.1.5 recipient');
    await waitFor(() => refused.heard().endsWith('EHLO relay.test\r\n'));
    refused.says('450 4.7.0 try later', GREETING);
    await assert.rejects(decided, isUnknown);

    const twice = stage();
    const late = sendByData(twice, isStream);
    await waitFor(() => twice.heard().endsWith('\r\n.\r\n'));
    twice.says('250 2.1.5 recipient');
    await waitFor(() => twice.heard().endsWith('EHLO relay.test\r\n'));
    twice.says('250 2.1.5 recipient');
    await assert.rejects(late, isUnknown);

    const closed = stage();
    const open = sendByData(closed, isStream);
    await waitFor(() => closed.heard().endsWith('\r\n.\r\n'));
    closed.says('250 2.1.5 recipient');
    closed.closes();
    await assert.rejects(open, isUnknown);
  });

test('a verdict of an address in words of its own is one, whatever comes behind it', async () => {
  for (const [last, isOver] of [
    ['', false],
    ['\r\n421 4.7.0 enough', true],
    ['\r\n451 4.4.2 bye', true],
  ] as const) {
    const room = stage();
    const decided = sendByData(room, false);
    await waitFor(() => room.heard().endsWith('\r\n.\r\n'));
    room.says(`250 2.1.5 queued${last}`);
    assert.equal((await decided).reply.text, 'queued');
    assert.equal(room.connection.dead, isOver);
  }
});

test('a server that answers bodies as it answers RCPT is believed, and serves the next message', async () => {
  const room = stage();
  const decided = sendByData(room, false);
  await waitFor(() => room.heard().endsWith('\r\n.\r\n'));
  room.says('250 2.1.5 recipient');
  await waitFor(() => room.heard().endsWith('EHLO relay.test\r\n'));
  room.says(GREETING);
  assert.equal((await decided).reply.text, 'recipient');
  assert.equal(room.connection.dead, false);
  const next = sendByData(room, false);
  await waitFor(() => room.heard().endsWith('\r\n.\r\n'));
  room.says('250 2.1.5 recipient');
  assert.equal((await next).reply.text, 'recipient');
});

test('a server that answers chunks when it has them all is waited for as long as for its verdict', async () => {
  const { clock, connection, submission, says } = stage();
  Object.assign(connection.said, { mail: '2.1.0', rcpt: '2.1.5', end: '2.0.0' });
  const { stream } = await submission.startStream();
  assert.ok(stream);
  stream.push(BODY);
  const decided = stream.finish();
  await new Promise(setImmediate);
  clock.advance(500_000);
  says('250 2.0.0 header', '250 2.0.0 queued', GREETING);
  assert.equal((await decided).reply.text, 'queued');
});

for (const [answer, isKept] of [
  ['421 4.7.0 enough messages on this connection', false],
  ['221 2.0.0 bye', false],
  ['502 5.5.1 what is EHLO', true],
  ['503 5.5.1 duplicate EHLO', true],
] as const)
  test(`${answer.slice(0, 3)} in place of the answer to the EHLO behind a body takes nothing back`, async () => {
    for (const verdict of ['250 2.0.0 queued', '550 5.7.1 spam']) {
      const { connection, sendWhole, heard, says } = stage();
      const decided = sendWhole();
      await new Promise(setImmediate);
      assert.match(heard(), /EHLO relay\.test\r\n$/);
      says(...ENVELOPE, verdict, answer);
      assert.equal(formatReply((await decided).reply), verdict);
      assert.equal(!connection.dead, isKept && verdict.startsWith('2'));
    }
  });

test('a verdict does not wait for a server that is slow about what follows', async () => {
  const { clock, sendWhole, says } = stage();
  const decided = sendWhole();
  says(...ENVELOPE, '250 2.0.0 queued');
  clock.advance(5_000);
  assert.equal((await decided).reply.text, 'queued');
});

test('a verdict waits longer where EHLO took long at the login, too', async () => {
  const { clock, connection, sendWhole, says } = stage();
  connection.ehloMs = 6_000;
  const decided = sendWhole();
  says(...ENVELOPE, '250 2.0.0 queued');
  clock.advance(6_000);
  says('250-mx.example.net\r\n250 PIPELINING');
  assert.equal((await decided).reply.text, 'queued');
  assert.equal(connection.dead, false);
});

test('the answer to EHLO is no verdict, one of its words in a verdict does no harm', async () => {
  for (const [verdict, isTaken] of [
    ['250-mx.example.net\r\n250-PIPELINING\r\n250 SIZE 100', false],
    ['250-2.0.0 queued as 1234\r\n250 SIZE 42 octets', true],
    ['250-2.0.0 queued\r\n250-as 1234\r\n250 SIZE 42 octets', true],
  ] as const) {
    const { connection, sendWhole, says } = stage();
    connection.greeting = 'mx.example.net at your service\nPIPELINING\nSIZE 100';
    Object.assign(connection.said, { mail: '2.1.0', rcpt: '2.1.5', end: '2.0.0' });
    const decided = sendWhole();
    says(...ENVELOPE, verdict);
    if (isTaken) assert.equal((await decided).reply.code, 250);
    else await assert.rejects(decided, isUnknown);
  }
});

test('the last word of a server that closes is no reply too many', async () => {
  const { clock, connection, sendWhole, says } = stage();
  // How its replies look is known: nothing follows the body.
  Object.assign(connection.said, { mail: '2.1.0', rcpt: '2.1.5', end: '2.0.0' });
  const decided = sendWhole();
  says(...ENVELOPE, '550 5.7.1 spam', '221 2.0.0 closing');
  clock.advance(1);
  assert.equal((await decided).reply.text, 'spam');
});

test('what was said of a chunk twice is no verdict where none comes', async () => {
  for (const end of ENDS) {
    const room = stage();
    const { stream } = await room.submission.startStream();
    assert.ok(stream);
    stream.push(Buffer.from(`Subject: x\r\n\r\n${'x'.repeat(300_000)}`));
    stream.push(Buffer.alloc(300_000, 'y'));
    const decided = stream.finish();
    await new Promise(setImmediate);
    room.says('250 2.0.0 taken', '250 2.0.0 taken', '250 2.0.0 taken');
    end(room);
    await assert.rejects(decided, isUnknown);
  }
});

test('a server that offers something else behind a login is in step', async () => {
  const { connection, sendWhole, says } = stage();
  connection.greeting = 'mx.example.net at your service\nSIZE 100\nAUTH XOAUTH2\nPIPELINING';
  const decided = sendWhole();
  says(...ENVELOPE, '250 2.0.0 queued', '250-mx.example.net hello ann\r\n250-SIZE 200\r\n250 PIPELINING');
  assert.equal((await decided).reply.text, 'queued');
  assert.ok(!connection.dead, 'the connection is kept');
});

/** How a connection ends. */
const ENDS: readonly ((room: ReturnType<typeof stage>) => void)[] = [
  ({ closes }) => closes(),
  ({ clock, closes }) => {
    clock.advance(10_000);
    closes();
  },
  ({ clock, says }) => {
    clock.advance(300_000);
    says('421 4.4.2 idle for too long');
  },
  ({ clock }) => clock.advance(3_600_000),
  ({ submission }) => submission.giveUp(),
];

test('a server that is silent on a body and answers the EHLO behind it has taken nothing', async () => {
  for (const end of ENDS) {
    const room = stage();
    const decided = room.sendWhole();
    room.says(...ENVELOPE, GREETING);
    end(room);
    await assert.rejects(decided, isUnknown);
  }
});

test('a verdict counts however the connection ends behind it, if it is not what was said to RCPT', async () => {
  const cases: readonly (readonly [readonly string[], string, boolean])[] = [
    [ENVELOPE, '250 2.0.0 queued', true],
    // It may have been said of another recipient, or twice of this one.
    [ENVELOPE, '250 2.1.5 queued', false],
    [ENVELOPE, '250 2.1.5 recipient', false],
    [ENVELOPE, '250 2.1.9 queued', true],
    // Of these the second may be MAIL's once more, and what follows RCPT's.
    [['250 2.1.0 OK', '250 2.1.0 OK'], '250 2.1.5 OK', false],
    [['250 sender', '250 recipient'], '250 queued', true],
    [['250 sender', '250 recipient'], '250 recipient', false],
    // What it says to everything tells nothing.
    [['250 OK', '250 OK'], '250 OK', true],
  ];
  for (const [envelope, verdict, isTaken] of cases)
    for (const end of ENDS) {
      const room = stage();
      const decided = room.sendWhole();
      room.says(...envelope, verdict);
      end(room);
      if (isTaken) assert.equal((await decided).reply.code, 250);
      else await assert.rejects(decided, isUnknown);
    }
});

test('none hears what may have been said of another: a reply too many', async () => {
  const gone = '550 5.1.1 no such user';
  const ok = '250 2.1.5 recipient';
  for (const replies of [
    [ok, ok, gone, ok],
    [gone, gone, ok, gone],
  ]) {
    for (const isFirst of [true, false]) {
      const { submission, says } = stage();
      const asked: Promise<unknown> = isFirst
        ? submission.sendEnvelope(MAIL, [BOB, BOB, BOB])
        : submission.addRecipients([BOB, BOB, BOB]);
      says(...(isFirst ? ['250 2.1.0 sender'] : []), ...replies);
      await assert.rejects(asked, isBeforeEnd);
    }
  }
  // Alone he does not hear it either, nor does the message.
  const alone = stage();
  const one = alone.submission.addRecipients([BOB]);
  alone.says(gone, ok);
  await assert.rejects(one, isBeforeEnd);
  const data = stage();
  data.connection.capabilities = { ...data.connection.capabilities, chunking: false };
  const going = new Submission(data.connection, false, { flights: 0 }).sendBody([BODY], BODY.length);
  data.says(gone, '354 go ahead');
  await assert.rejects(going, isBeforeEnd);
  const end = stage();
  const decided = end.sendWhole();
  end.says(...ENVELOPE, gone, '250 2.0.0 queued');
  await assert.rejects(decided, isUnknown);
  // Over behind its answers: each stays whose it is.
  const { submission, says } = stage();
  const asked = submission.addRecipients([BOB, BOB]);
  says(ok, gone, '421 4.7.0 enough');
  assert.deepEqual(
    (await asked).map((r) => r.code),
    [250, 550],
  );
});

test('recipients that are asked for one by one share the time of one wait', async () => {
  const { clock, connection, says } = stage();
  connection.capabilities = { ...connection.capabilities, pipelining: false };
  const submission = new Submission(connection, false, { flights: 0 });
  const since = clock.monotonic();
  submission.waitsSince = since;
  let end: unknown;
  const asked = submission.addRecipients(Array.from({ length: 100 }, () => BOB));
  asked.catch((error: unknown) => {
    end = error;
  });
  for (; end === undefined && clock.monotonic() - since < 300_000; clock.advance(15_000)) {
    says('250 2.1.5 recipient');
    await new Promise(setImmediate);
  }
  assert.ok(end instanceof UpstreamError);
});

test('354 to anything but DATA ends the connection: nothing said behind it is delivered', async () => {
  const reset = stage();
  reset.connection.needsReset = true;
  const asked = new Submission(reset.connection, false, { flights: 0 }).sendWhole(
    MAIL,
    BOB,
    [BODY],
    BODY.length,
  );
  reset.says('354 go ahead');
  await assert.rejects(asked, isBeforeEnd);

  const room = stage();
  const decided = new Submission(room.connection, false, { flights: 0 }).sendWhole(
    MAIL,
    BOB,
    [BODY],
    BODY.length,
  );
  room.says('250 2.1.0 sender', '421 4.3.2 bye', '354 go ahead');
  assert.equal((await decided).reply.code, 421);
  assert.equal(room.connection.dead, true);
  assert.ok(room.heard().endsWith('DATA\r\n'));
});
