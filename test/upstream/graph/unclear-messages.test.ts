/** What a person decides of messages that stay unclear, and drafts that nobody comes back for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../../src/log.ts';
import { formatReply } from '../../../src/protocol/reply.ts';
import { KEEP_MS, nameOf } from '../../../src/upstream/graph/ledger.ts';
import { createLocalLedger } from '../../../src/upstream/graph/ledger-local.ts';
import type { GraphEnding } from '../../../src/upstream/graph/outcome.ts';
import { createSweep } from '../../../src/upstream/graph/sweep.ts';
import { createUnclearMessages } from '../../../src/upstream/graph/unclear-messages.ts';
import { createTestClock } from '../../support/clock.ts';
import { ANN, type GraphRoom, mailTo, startGraphRoom } from '../../support/graph-room.ts';
import { leakless } from '../../support/leak-check.ts';
import { waitFor } from '../../support/wait-for.ts';

const BOB = 'bob@example.net';
const heard = (d: GraphEnding): string => formatReply(d.kind === 'taken' ? d.reply : d.verdict.answer);

async function leaveUnclear(room: GraphRoom, id: string, carriedOut: boolean): Promise<string> {
  room.server.fault('send_mail', { carriedOut, answer: { status: 504 } });
  assert.match(heard(await room.send(mailTo(BOB, id), [BOB])), /^451 4\.4\.2 delivery status unknown/);
  const rows = await createUnclearMessages(room.ledger, room.clock).list();
  const row = rows.find((r) => r.messageId === `<${id}@client.test>`);
  assert.ok(row);
  assert.deepEqual([row.account, row.clears], [ANN, 'person']);
  assert.match(row.why, /504/);
  return row.key;
}

test(
  'one call, unclear: delivered means 250 and nothing is sent; again means sent, once',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { permissions: 'send' });
    const unclear = createUnclearMessages(room.ledger, room.clock);
    const wasSent = await leaveUnclear(room, 'sent', true);
    const wasNot = await leaveUnclear(room, 'not', false);
    assert.match(heard(await room.send(mailTo(BOB, 'sent'), [BOB])), /^451/, 'until somebody decides');
    assert.equal(await unclear.decide(wasSent, 'delivered'), 'done');
    assert.equal(await unclear.decide(wasNot, 'again'), 'done');
    assert.deepEqual(await unclear.list(), []);
    assert.equal(await unclear.decide(wasSent, 'again'), 'none', 'what is decided stays so');
    for (const id of ['sent', 'not', 'sent', 'not'])
      assert.match(heard(await room.send(mailTo(BOB, id), [BOB])), /^250 /);
    assert.deepEqual(room.server.delivered.map((d) => d.messageId).sort(), [
      '<not@client.test>',
      '<sent@client.test>',
    ]);
  }),
);

test(
  'one call without a Message-ID: the decision holds for one retry, the next that looks the same is another',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { permissions: 'send' });
    const unclear = createUnclearMessages(room.ledger, room.clock);
    const message = mailTo(BOB, 'x').replace(/^Message-ID.*\r\n/, '');
    room.server.fault('send_mail', { carriedOut: true, answer: 'reset' });
    assert.match(heard(await room.send(message, [BOB])), /^451/);
    const [row] = await unclear.list();
    assert.equal(await unclear.decide(row?.key ?? '', 'delivered'), 'done');
    assert.match(heard(await room.send(message, [BOB])), /^250 /);
    assert.equal(room.server.delivered.length, 1);
    assert.match(heard(await room.send(message, [BOB])), /^250 /);
    assert.equal(room.server.delivered.length, 2);
  }),
);

test(
  'a draft that a person deleted: unclear until decided, then made anew',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const unclear = createUnclearMessages(room.ledger, room.clock);
    room.server.fault('send', { answer: 'reset' });
    room.server.fault('look', { answer: { status: 404 } }, 1_000);
    assert.match(heard(await room.send(mailTo(BOB, 'gone'), [BOB])), /^451 4\.4\.2/);
    const [row] = await unclear.list();
    assert.equal(row?.clears, 'retry');
    assert.equal(await unclear.decide(row.key, 'again'), 'done');
    assert.match(heard(await room.send(mailTo(BOB, 'gone'), [BOB])), /^250 /);
    assert.equal(room.server.delivered.length, 1);
    assert.equal(room.server.count('create'), 1, 'the draft is found and sent');
  }),
);

test(
  'a draft made so late that nobody saw it is deleted beside the one that was sent',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const [messageId, to] = ['<late@client.test>', room.hashOfRecipients([BOB])];
    const subject = { account: ANN, messageId, to, name: nameOf(messageId, to) };
    room.server.fault('create', { answer: { status: 503 } });
    assert.match(heard(await room.send(mailTo(BOB, 'late'), [BOB])), /^451 /);
    assert.match(heard(await room.send(mailTo(BOB, 'late'), [BOB])), /^250 /);
    const client = room.clientOf(ANN);
    await client.create(Buffer.from(mailTo(BOB, 'late')));
    const [row] = await room.ledger.list();
    assert.equal(row?.entry.state, 'sent');
    assert.deepEqual(row.entry.subject, subject);
    assert.equal(await room.ledger.hasOpen(), false, 'no retry is waited for');
    let ahead = 0;
    const clock = { ...room.clock, now: () => room.clock.now() + ahead };
    const sweep = createSweep({ ledger: room.ledger, clientOf: () => client, log: silentLog, clock });
    defer(() => sweep.close());
    await sweep.run();
    assert.equal(room.server.drafts.length, 1, 'it may still come');
    ahead = 3_600_000;
    await sweep.run();
    assert.deepEqual(room.server.drafts, []);
    assert.deepEqual(await room.ledger.list(), []);
    assert.match(heard(await room.send(mailTo(BOB, 'late'), [BOB])), /^250 /);
    assert.equal(room.server.delivered.length, 1);
  }),
);

test('what is worked on now cannot be decided; no such key is told', async () => {
  const ledger = createLocalLedger({ log: silentLog });
  const unclear = createUnclearMessages(ledger);
  const claim = await ledger.claim('k'.repeat(32));
  assert.equal(await unclear.decide('k'.repeat(32), 'again'), 'busy');
  assert.ok(claim !== 'busy');
  await claim.note({ state: 'sending', at: Date.now() });
  assert.deepEqual(await unclear.list(), [], 'under way is not unclear');
  await claim.release();
  assert.equal(await unclear.decide('o'.repeat(32), 'again'), 'none');
});

test(
  'drafts of messages given up 5 days ago are deleted; what was sent, is younger or another’s stays',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const room = await startGraphRoom(defer);
    const ledger = createLocalLedger({ log: silentLog, clock });
    const client = room.clientOf(ANN);
    const sweep = createSweep({
      ledger,
      clientOf: (id) => (id === ANN ? client : undefined),
      log: silentLog,
      clock,
    });
    defer(() => sweep.close());
    const draft = async (id: string): Promise<string> => {
      const made = await client.create(Buffer.from(mailTo(BOB, id)));
      assert.equal(made.kind, 'ok');
      return made.kind === 'ok' ? made.value.id : '';
    };
    const note = async (name: string, entry: Parameters<typeof ledger.claim>[0] | object) => {
      const claim = await ledger.claim(name.repeat(32));
      assert.ok(claim !== 'busy');
      await claim.note({ at: clock.now(), ...(entry as object) } as never);
      await claim.release();
    };
    const subject = (id: string) => ({
      account: ANN,
      messageId: `<${id}@client.test>`,
      to: room.hashOfRecipients([BOB]),
    });
    const [old, sent, unknown, another, young] = await Promise.all(
      ['old', 'sent', 'unknown', 'unknown', 'young'].map(draft),
    );
    await client.send(sent ?? '', 10_000);
    await note('a', { state: 'draft', draft: old, subject: subject('old') });
    await note('b', { state: 'draft', draft: sent, subject: subject('sent') });
    await note('c', { state: 'creating', subject: subject('unknown') });
    await note('d', { state: 'draft', draft: another, subject: { account: 'not-served' } });
    await sweep.run();
    assert.equal(room.server.drafts.length, 4, 'nothing is deleted before its time');
    clock.advance(KEEP_MS + 1);
    await note('e', { state: 'draft', draft: young, subject: subject('young') });
    await sweep.run();
    assert.deepEqual(room.server.drafts.map((d) => d.id).sort(), [another, young].sort());
    assert.ok(unknown !== undefined && room.server.delivered.length === 1);
    assert.deepEqual(
      (await ledger.list()).map((row) => row.key[0]),
      ['d', 'e'],
    );
    room.server.fault('delete', { answer: { status: 503 } });
    clock.advance(KEEP_MS + 1);
    await sweep.run();
    assert.ok(
      room.server.drafts.some((d) => d.id === young),
      'what could not be deleted is tried again',
    );
    await sweep.run();
    assert.deepEqual(
      room.server.drafts.map((d) => d.id),
      [another],
    );
  }),
);

test('delivered: drafts that may have been left over beside the one that was sent stay noted', async () => {
  const ledger = createLocalLedger({ log: silentLog });
  const key = 'k'.repeat(32);
  const noting = await ledger.claim(key);
  assert.ok(noting !== 'busy');
  const at = Date.now();
  const subject = { account: ANN, messageId: '<1@c>' };
  await noting.note({
    state: 'draft',
    at,
    draft: 'D',
    leftoversSince: at - 1,
    subject,
    unclear: 'no answer',
  });
  await noting.release();
  assert.equal(await createUnclearMessages(ledger).decide(key, 'delivered'), 'done');
  const [row] = await ledger.list();
  assert.deepEqual(
    row?.entry.state === 'sent' && row.entry.leftovers,
    { since: at - 1 },
    'D itself may be one',
  );
  assert.equal(await ledger.ownerOf('D'), key, 'its copy is no other message’s');
  await ledger.close();
});

const given = (room: GraphRoom, ahead: number) =>
  createSweep({
    ledger: room.ledger,
    clientOf: room.clientOf,
    log: silentLog,
    clock: { ...room.clock, now: () => room.clock.now() + ahead },
  });

test(
  'delivered: the draft that was noted is deleted where it is one still',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('send', { answer: { status: 504 } });
    room.server.fault('look', { answer: { status: 403 } }, 1_000);
    assert.match(heard(await room.send(mailTo(BOB, 'by-hand'), [BOB])), /^451 4\.4\.2/);
    room.server.clearFaults();
    const unclear = createUnclearMessages(room.ledger, room.clock);
    const [row] = await unclear.list();
    assert.equal(await unclear.decide(row?.key ?? '', 'delivered'), 'done');
    assert.equal(room.server.drafts.length, 1);
    const sweep = given(room, 3_600_000);
    await sweep.run();
    sweep.close();
    assert.deepEqual(room.server.drafts, []);
  }),
);

test(
  'given up 5 days ago: what was left over beside its draft is deleted, too',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('create', { carriedOut: true, answer: { status: 429 } });
    room.server.fault('send', { answer: { status: 503 } }, 3);
    assert.match(heard(await room.send(mailTo(BOB, 'given-up'), [BOB])), /^451 /);
    assert.equal(room.server.drafts.length, 2);
    const sweep = given(room, KEEP_MS + 3_600_000);
    await sweep.run();
    sweep.close();
    assert.deepEqual(room.server.drafts, []);
  }),
);

test(
  'more drafts left over than one search finds are deleted in the end',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const message = mailTo(BOB, 'many');
    room.server.fault('create', { answer: 'reset' });
    assert.match(heard(await room.send(message, [BOB])), /^451 /);
    for (let i = 0; i < 21; i++) await room.clientOf(ANN).create(Buffer.from(message));
    const sweep = given(room, KEEP_MS + 3_600_000);
    await sweep.run();
    await sweep.run();
    sweep.close();
    assert.deepEqual(room.server.drafts, []);
    assert.deepEqual(await room.ledger.list(), []);
  }),
);

test(
  'not sent for certain, and its draft cannot be looked at: another is made, and nobody is called',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const gone = { gone: () => room.server.drafts.length > 0 };
    assert.equal((await room.send(mailTo(BOB, 'unsent'), [BOB], gone)).kind, 'refused');
    room.server.fault('look', { answer: { status: 403 } }, 1_000);
    assert.match(heard(await room.send(mailTo(BOB, 'unsent'), [BOB])), /^250 /);
    assert.deepEqual(await createUnclearMessages(room.ledger, room.clock).list(), []);
    assert.equal(room.server.delivered.length, 1);
    await waitFor(() => room.server.drafts.length === 0, { what: 'the first draft being deleted' });
  }),
);
