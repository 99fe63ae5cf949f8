/** A device gives all it says one Message-ID: a copy in Sent Items is that of the message it was sent for, and no other's. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pause } from '../../../src/clock.ts';
import { ANN, type GraphRoom, type GraphRoomOptions, startGraphRoom } from '../../support/graph-room.ts';
import { leakless } from '../../support/leak-check.ts';
import { waitFor } from '../../support/wait-for.ts';

const BOB = 'bob@example.net';
const alarm = (text: string): string =>
  `Message-ID: <alarm@device.test>\r\nFrom: ${ANN}\r\nTo: ${BOB}\r\nSubject: alarm\r\n\r\n${text}\r\n`;

test(
  'a draft that somebody deletes is not taken for sent because another was, restarts ago',
  leakless(async (t, defer) => {
    const directory = await mkdtemp(join(tmpdir(), 'graph-device-'));
    t.after(() => rm(directory, { recursive: true }));
    const room = await startGraphRoom(defer, { directory, speed: 100 });
    assert.equal((await room.send(alarm('one'), [BOB])).kind, 'taken');
    // The first start reads how it was sent, and writes the journal anew; the second reads only that it was.
    await room.restart();
    await room.restart();
    room.server.fault('send', { answer: { status: 504 } });
    room.server.fault('look', { answer: { status: 500 } }, 50);
    assert.equal((await room.send(alarm('two'), [BOB])).kind, 'refused');
    room.server.clearFaults();
    const client = room.clientOf(ANN);
    for (const { id } of room.server.drafts) await client.remove(id);
    const ending = await room.send(alarm('two'), [BOB]);
    assert.equal(ending.kind === 'refused' && ending.verdict.class, 'unknown');
    assert.equal(room.server.delivered.length, 1);
  }),
);

test(
  'one call that was not clear, and the account may look now: what was sent long after is another message',
  leakless(async (_t, defer) => {
    const options: GraphRoomOptions & { permissions: 'read_write' | 'send' } = {
      permissions: 'send',
      speed: 2_000,
      client: { answerMs: 86_400_000, uploadMs: 86_400_000 },
    };
    const room = await startGraphRoom(defer, options);
    room.server.fault('send_mail', { answer: { status: 504 } });
    assert.equal((await room.send(alarm('one'), [BOB])).kind, 'refused');
    await pause(room.clock, 20 * 60_000);
    assert.equal((await room.send(alarm('two'), [BOB])).kind, 'taken');
    options.permissions = 'read_write';
    const ending = await room.send(alarm('one'), [BOB]);
    assert.equal(ending.kind === 'refused' && ending.verdict.class, 'unknown');
    assert.equal(room.server.delivered.length, 1);
  }),
);

const bodies = (room: GraphRoom): string[] =>
  room.server.delivered.map((d) => d.text.trim().slice(-3)).sort();

test(
  'nobody knows whether drafts of two were made: neither is sent as the other, and none stays',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('create', { answer: { status: 504 } });
    assert.equal((await room.send(alarm('one'), [BOB])).kind, 'refused');
    room.server.fault('create', { carriedOut: true, answer: { status: 504 } });
    room.server.fault('search', { answer: { status: 503 } });
    assert.equal((await room.send(alarm('two'), [BOB])).kind, 'refused');
    room.server.clearFaults();
    assert.equal((await room.send(alarm('one'), [BOB])).kind, 'taken');
    assert.equal((await room.send(alarm('two'), [BOB])).kind, 'taken');
    assert.deepEqual(bodies(room), ['one', 'two']);
    await waitFor(() => room.server.drafts.length === 0, { what: 'the draft left over being deleted' });
  }),
);

test(
  'a process that knows nothing of an earlier one does not send its draft as another message',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('create', { carriedOut: true, answer: 'reset' });
    room.server.fault('search', { answer: { status: 503 } });
    await room.send(alarm('one'), [BOB]);
    await room.restart();
    room.server.fault('create', { answer: 'reset' });
    await room.send(alarm('two'), [BOB]);
    await room.send(alarm('two'), [BOB]);
    assert.equal((await room.send(alarm('one'), [BOB])).kind, 'taken');
    assert.deepEqual(bodies(room), ['one', 'two']);
  }),
);

test(
  'one call that was not clear, and another right after it: its copy is not that of the first, after a restart neither',
  leakless(async (t, defer) => {
    const directory = await mkdtemp(join(tmpdir(), 'graph-device-'));
    t.after(() => rm(directory, { recursive: true }));
    const options: GraphRoomOptions & { permissions: 'read_write' | 'send' } = {
      permissions: 'send',
      directory,
    };
    const room = await startGraphRoom(defer, options);
    room.server.fault('send_mail', { answer: { status: 504 } });
    assert.equal((await room.send(alarm('one'), [BOB])).kind, 'refused');
    assert.equal((await room.send(alarm('two'), [BOB])).kind, 'taken');
    options.permissions = 'read_write';
    await room.restart();
    await room.restart();
    const ending = await room.send(alarm('one'), [BOB]);
    assert.equal(ending.kind === 'refused' && ending.verdict.class, 'unknown');
  }),
);

test(
  'what was left over beside one is not deleted while another is being made',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { client: { uploadMs: 5_000 } });
    room.server.fault('create', { answer: { status: 504 } });
    assert.equal((await room.send(alarm('one'), [BOB])).kind, 'refused');
    // It is there, and its id is still on the way.
    room.server.fault('create', { carriedOut: true, answer: 'silence' });
    const two = room.send(alarm('two'), [BOB]);
    await waitFor(() => room.server.drafts.length === 1, { what: 'the draft of two' });
    assert.equal((await room.send(alarm('one'), [BOB])).kind, 'taken');
    await waitFor(() => room.server.count('search') >= 3, { what: 'what is left over being looked for' });
    await two;
    assert.equal(room.server.count('delete'), 0);
  }),
);

test(
  'more were sent than one search finds: the draft left over is found and deleted all the same',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    for (let n = 1; n <= 20; n++) assert.equal((await room.send(alarm(`${n}`), [BOB])).kind, 'taken');
    room.server.fault('create', { carriedOut: true, answer: 'reset' });
    assert.equal((await room.send(alarm('last'), [BOB])).kind, 'refused');
    assert.equal((await room.send(alarm('last'), [BOB])).kind, 'taken');
    await waitFor(() => room.server.drafts.length === 0, { what: 'the draft left over being deleted' });
    assert.equal(room.server.delivered.length, 21);
  }),
);

test(
  'the same said again another day is sent, whatever became of the one before; its retry, after a restart too, is not',
  leakless(async (t, defer) => {
    const directory = await mkdtemp(join(tmpdir(), 'graph-device-'));
    t.after(() => rm(directory, { recursive: true }));
    const room = await startGraphRoom(defer, { directory });
    const on = (day: string): string => `Date: ${day} Nov 2026 10:00:00 +0000\r\n${alarm('on battery')}`;
    const sends = async (day: string, heard: 'yes' | 'perhaps', delivered: number): Promise<void> => {
      const { kind } = await room.send(on(day), [BOB], { heard });
      assert.deepEqual([kind, room.server.delivered.length], ['taken', delivered]);
    };
    await sends('2', 'yes', 1);
    await sends('2', 'yes', 1);
    await sends('3', 'yes', 2);
    await room.restart();
    await sends('3', 'yes', 2);
    room.server.fault('send', { carriedOut: true, answer: { status: 504 } });
    await sends('4', 'perhaps', 3);
    await sends('4', 'yes', 3);
    await sends('5', 'yes', 4);
    await sends('6', 'yes', 5);
  }),
);

test(
  'the same said again, of which nothing is clear: the copy of the one before is not taken for its own',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { speed: 100 });
    const on = (day: string): string => `Date: ${day} Nov 2026 10:00:00 +0000\r\n${alarm('on battery')}`;
    assert.equal((await room.send(on('2'), [BOB])).kind, 'taken');
    room.server.fault('send', { answer: { status: 504 } });
    room.server.fault('look', { answer: { status: 500 } }, 50);
    assert.equal((await room.send(on('3'), [BOB])).kind, 'refused');
    room.server.clearFaults();
    for (const { id } of room.server.drafts) await room.clientOf(ANN).remove(id);
    assert.equal((await room.send(on('3'), [BOB])).kind, 'refused');
    assert.equal(room.server.delivered.length, 1);
  }),
);
