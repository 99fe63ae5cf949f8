/** Which of a server's replies is the verdict on a body, where it says one too many, or leaves one out. */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { UpstreamConnection } from '../../src/upstream/connection.ts';
import type { Decision } from '../../src/upstream/data-stream.ts';
import { UpstreamError } from '../../src/upstream/failure.ts';
import { Submission } from '../../src/upstream/submission.ts';
import { createTestClock } from '../support/clock.ts';
import { waitFor } from '../support/wait-for.ts';

const MAIL = { sender: 'ann@example.com', parameters: [] };
const BOB = { address: 'bob@example.net', parameters: [] };
const BODY = Buffer.from('Subject: x\r\n\r\nx\r\n');
const ENVELOPE = ['250 2.1.0 sender', '250 2.1.5 recipient'];

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
    await waitFor(() => refused.heard().endsWith('NOOP\r\n'));
    refused.says('450 4.7.0 try later', '250 2.0.0 NOOP');
    await assert.rejects(decided, isUnknown);

    const closed = stage();
    const open = sendByData(closed, isStream);
    await waitFor(() => closed.heard().endsWith('\r\n.\r\n'));
    closed.says('250 2.1.5 recipient');
    closed.closes();
    await assert.rejects(open, isUnknown);
  });

test('a server that answers bodies as it answers RCPT is believed, one message a connection', async () => {
  const room = stage();
  const decided = sendByData(room, false);
  await waitFor(() => room.heard().endsWith('\r\n.\r\n'));
  room.says('250 2.1.5 queued');
  await waitFor(() => room.heard().endsWith('NOOP\r\n'));
  room.says('250 2.1.5 NOOP');
  assert.equal((await decided).reply.text, 'queued');
  assert.equal(room.connection.dead, true);
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
  says('250 2.0.0 header', '250 2.0.0 queued', '250 2.0.0 NOOP');
  assert.equal((await decided).reply.text, 'queued');
});

for (const answer of ['421 4.7.0 enough messages on this connection', '502 5.5.1 what is NOOP'])
  test(`${answer.slice(0, 3)} in place of the answer to the NOOP behind a body takes nothing back`, async () => {
    const { sendWhole, heard, says } = stage();
    const decided = sendWhole();
    assert.match(heard(), /NOOP\r\n$/);
    says(...ENVELOPE, '250 2.0.0 queued', answer);
    assert.equal((await decided).reply.text, 'queued');
  });

test('a server that is silent on a body and answers the NOOP behind it has taken nothing', async () => {
  const ends: readonly ((room: ReturnType<typeof stage>) => void)[] = [
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
  for (const end of ends) {
    const room = stage();
    const decided = room.sendWhole();
    room.says(...ENVELOPE, '250 2.0.0 OK');
    end(room);
    await assert.rejects(decided, isUnknown);
  }
});

test('of several recipients none hears what may have been said of another: a reply too many', async () => {
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
  submission.waitedMs = () => clock.monotonic() - since;
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
