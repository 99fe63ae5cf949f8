/** What an account has begun and not sent, and another goes on with. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../../src/log.ts';
import { KEEP_MS } from '../../../src/upstream/graph/ledger.ts';
import { createSweep } from '../../../src/upstream/graph/sweep.ts';
import { ANN, type GraphRoom, mailTo, startGraphRoom } from '../../support/graph-room.ts';
import { leakless } from '../../support/leak-check.ts';

const BOB = 'bob@example.net';
const BEA = 'bea@example.com';
const HOUR_MS = 60 * 60_000;
const FIRSTS: Readonly<Record<string, (room: GraphRoom) => { gone?: () => boolean }>> = {
  'nobody knows whether a draft was made'({ server }) {
    server.fault('create', { carriedOut: true, answer: 'reset' });
    return {};
  },
  'the client left before the draft was sent': ({ server }) => ({ gone: () => server.drafts.length > 0 }),
};

for (const [what, first] of Object.entries(FIRSTS))
  test(
    `${what}: another account sends it, and the draft of the first is deleted in time`,
    leakless(async (_t, defer) => {
      const room = await startGraphRoom(defer);
      const message = mailTo(BOB, 'moved');
      const ending = await room.send(message, [BOB], first(room));
      assert.equal(ending.kind === 'refused' && ending.verdict.answer.code, 451);
      assert.equal((await room.send(message, [BOB], { mailbox: BEA })).kind, 'taken');
      assert.deepEqual(
        room.server.delivered.map((d) => d.mailbox),
        [BEA],
      );
      assert.equal(room.server.drafts.length, 1);
      const sweep = createSweep({
        ledger: room.ledger,
        clientOf: room.clientOf,
        log: silentLog,
        clock: { ...room.clock, now: () => room.clock.now() + KEEP_MS + HOUR_MS },
      });
      await sweep.run();
      sweep.close();
      assert.deepEqual(room.server.drafts, []);
      assert.equal((await room.send(message, [BOB])).kind, 'taken');
      assert.equal(room.server.delivered.length, 1);
    }),
  );

for (const [what, first] of Object.entries(FIRSTS))
  test(
    `${what}, and from then on the account may only send: nobody is called, and the draft is known`,
    leakless(async (_t, defer) => {
      const options: { permissions: 'read_write' | 'send' } = { permissions: 'read_write' };
      const room = await startGraphRoom(defer, options);
      const message = mailTo(BOB, 'narrowed');
      await room.send(message, [BOB], first(room));
      options.permissions = 'send';
      assert.equal((await room.send(message, [BOB])).kind, 'taken');
      assert.equal(room.server.delivered.length, 1);
      const [row, ...more] = await room.ledger.list();
      assert.ok(row !== undefined && more.length === 0);
      assert.match(row.entry.state, /^(?:creating|draft)$/);
      assert.equal((await room.send(message, [BOB])).kind, 'taken');
      assert.equal(room.server.delivered.length, 1);
    }),
  );

test(
  'a draft of which nobody knows whether it was sent, and a grant that has ended: the client hears so at once',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const message = mailTo(BOB, 'ended');
    room.server.fault('send', { carriedOut: true, answer: 'reset' });
    room.server.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
    await room.send(message, [BOB]);
    let asked = 0;
    Object.defineProperty(room.tokens, 'broken', { configurable: true, get: () => ++asked > 0 });
    const ending = await room.send(message, [BOB]);
    assert.equal(ending.kind === 'refused' && ending.verdict.class, 'unknown');
    assert.equal(asked, 2, 'one look at the draft, one for a copy');
    Object.defineProperty(room.tokens, 'broken', { value: false });
    assert.equal((await room.send(message, [BOB])).kind, 'taken');
    assert.equal(room.server.delivered.length, 1);
  }),
);

test(
  'two devices of one model say the same, each from its own account: both go out, the one beside the unclear one too',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const alarm = mailTo(BOB, 'paper-jam');
    room.server.fault('send', { answer: { status: 504 } });
    room.server.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
    assert.equal((await room.send(alarm, [BOB])).kind, 'refused');
    const beas = { mailbox: BEA, sender: BEA };
    const hers = alarm.replace(`From: ${ANN}`, `From: ${BEA}`);
    for (const [text, more] of [[hers, beas], [alarm], [hers, beas]] as const)
      assert.equal((await room.send(text, [BOB], more)).kind, 'taken');
    assert.deepEqual(
      room.server.delivered.map((d) => d.mailbox),
      [BEA, ANN],
    );
  }),
);

test(
  'a sender that is written anew for each try (SRS, VERP) makes no other message of it',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const message = mailTo(BOB, 'forwarded');
    room.server.fault('send', { carriedOut: true, answer: { status: 504 } });
    room.server.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
    const as = (day: string) => ({ sender: `SRS0=abcd=${day}=c.test=ann@example.com` });
    assert.equal((await room.send(message, [BOB], as('6A'))).kind, 'refused');
    assert.equal((await room.send(message, [BOB], as('6B'))).kind, 'taken');
    assert.equal(room.server.delivered.length, 1);
  }),
);
