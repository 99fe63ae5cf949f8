/** What is known of a message outlives retries and restarts, and is nobody else's. */
import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { silentLog } from '../../../src/log.ts';
import { parseHeader } from '../../../src/protocol/message-header.ts';
import {
  type Claim,
  KEEP_MS,
  type Ledger,
  type LedgerEntry,
  ledgerKey,
  nameOf,
  senderMark,
} from '../../../src/upstream/graph/ledger.ts';
import { createLocalLedger } from '../../../src/upstream/graph/ledger-local.ts';
import { createTestClock } from '../../support/clock.ts';
import { waitFor } from '../../support/wait-for.ts';

const KEY = 'k'.repeat(32);

async function tempDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'graph-ledger-'));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}

async function claimOf(ledger: Ledger, key = KEY): Promise<Claim> {
  const claim = await ledger.claim(key);
  assert.ok(claim !== 'busy');
  return claim;
}

test('a key is the same for a retry and another for anything else', () => {
  const text = 'Message-ID: <1@c>\r\nSubject: s\r\n\r\nbody\r\n';
  const key = (t: string, to: readonly string[] = ['b@c', 'a@c']): string => ledgerKey(to, Buffer.from(t));
  assert.equal(key(text).length, 32);
  assert.equal(key(text), key(`Received: from x\r\n\tby y\r\n${text}`));
  assert.equal(key(text), key(text, ['a@c', 'b@c']));
  const others = [
    key(text, ['a@c']),
    // A device may give all it says one Message-ID.
    key(text.replace('Subject: s', 'Subject: t')),
    // And say the same again another day.
    key(text.replace('Subject: s', 'Subject: s\r\nDate: d')),
    key(text.replace('Subject: s', 'Subject: s\r\nDate: e')),
    key(text.replace('<1@c>', '<2@c>')),
    // Or introduce it anew to the same recipients.
    key(`Resent-From: a@c\r\nResent-Message-ID: <r1@c>\r\n${text}`),
    key(`Resent-From: a@c\r\nResent-Message-ID: <r2@c>\r\n${text}`),
    key(text.replace('body', 'bodies')),
    // Two devices of one model say the same, each from its own account.
    key(`From: ann@c\r\n${text}`),
    key(`From: bob@c\r\n${text}`),
  ];
  assert.equal(new Set([key(text), ...others]).size, 11);
  const confined = (to: string): string => {
    const header = parseHeader(Buffer.from(text));
    return ledgerKey(['b@c', 'a@c'], Buffer.from(text), header, header, to);
  };
  assert.equal(confined('ann'), confined('ann'));
  assert.equal(new Set([key(text), confined('ann'), confined('bob')]).size, 3);
  const without = 'Subject: s\r\nDate: d\r\n\r\nbody\r\n';
  assert.equal(key(without), key(`Received: later\r\n${without}`));
  assert.notEqual(
    key(without),
    key(without.replace('Date: d', 'Date: e')),
    'without Message-ID the header tells',
  );
  const added = `Message-ID: <new@relay>\r\nDate: now\r\n${without}`;
  const own = parseHeader(Buffer.from(without));
  assert.equal(
    ledgerKey(['a@c', 'b@c'], Buffer.from(added), parseHeader(Buffer.from(added)), own),
    key(without),
  );
});

test('a sender is the same for every try, and another for anybody else', () => {
  const ann = senderMark('ann@example.com');
  for (const same of ['Ann@EXAMPLE.com', 'prvs=1234abcdef=ann@example.com', 'ann+tag@example.com'])
    assert.equal(senderMark(same), ann, same);
  const others = ['', 'bob@example.com', 'ann@example.net', '+ann@example.com', 'a@b@example.com'];
  assert.equal(new Set([ann, ...others.map(senderMark)]).size, others.length + 1);
});

test('what is open is open of its sender, and of everybody where the sender was not noted', async () => {
  const ledger = createLocalLedger({ log: silentLog });
  const [ann, bob] = ['ann@c', 'bob@c'].map(senderMark);
  assert.ok(ann !== undefined && bob !== undefined);
  const open = async (): Promise<boolean[]> => [
    await ledger.hasOpen(),
    await ledger.hasOpen(ann),
    await ledger.hasOpen(bob),
  ];
  const claim = await claimOf(ledger);
  assert.deepEqual(await open(), [false, false, false]);
  await claim.note({ state: 'draft', at: Date.now(), draft: 'id', subject: { account: 'x', sender: ann } });
  assert.deepEqual(await open(), [true, true, false]);
  await claim.note({ state: 'sent', at: Date.now() });
  assert.deepEqual(await open(), [false, false, false]);
  await claim.note({ state: 'sending', at: Date.now() });
  assert.deepEqual(await open(), [true, true, true]);
  await claim.forget();
  assert.deepEqual(await open(), [false, false, false]);
});

test('one works on a message at a time; what was noted is known to the next', async () => {
  const ledger = createLocalLedger({ log: silentLog });
  await ledger.open();
  const claim = await claimOf(ledger);
  assert.equal(claim.known, undefined);
  assert.equal(await ledger.claim(KEY), 'busy');
  await claim.note({ state: 'draft', at: Date.now(), draft: 'id' });
  await claim.release();
  const next = await claimOf(ledger);
  assert.equal(next.known?.state, 'draft');
  await next.forget();
  await next.release();
  await next.release();
  assert.equal((await claimOf(ledger)).known, undefined);
  await ledger.close();
});

test('of whom a text was heard last ends in an hour for each recipient, whoever else hears it since', async () => {
  const clock = createTestClock();
  const ledger = createLocalLedger({ log: silentLog, clock });
  const other = await claimOf(ledger, 'other');
  for (const mark of ['a', 'b', 'c']) {
    const claim = await claimOf(ledger, mark);
    await claim.close({ family: 'f', marks: [mark] });
    clock.advance(40 * 60_000);
  }
  assert.deepEqual(await other.notHeardSince({ family: 'f', marks: ['a', 'b', 'c'] }), ['a']);
});

test('the journal outlives the process, half a line at its end too; nobody else may read it', async (t) => {
  const directory = await tempDirectory(t);
  const entries: LedgerEntry[] = [
    { state: 'creating', at: Date.now() },
    { state: 'draft', at: Date.now(), draft: 'id' },
    { state: 'sending', at: Date.now() },
    { state: 'sent', at: Date.now(), messageId: '<a@b>' },
  ];
  const first = createLocalLedger({ log: silentLog, directory });
  await first.open();
  for (const [i, entry] of entries.entries()) {
    const claim = await claimOf(first, String(i).repeat(32));
    await claim.note(entry);
  }
  const file = join(directory, 'graph-submissions.journal');
  // As a kill leaves it: not closed, the last line cut.
  await waitFor(async () => (await readFile(file, 'utf8')).split('\n').length > entries.length, {
    what: 'the journal',
  });
  await appendFile(file, `${'9'.repeat(32)} {"state":"dra`);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  const second = createLocalLedger({ log: silentLog, directory });
  await second.open();
  for (const [i, entry] of entries.entries())
    assert.deepEqual((await claimOf(second, String(i).repeat(32))).known, entry);
  const after = await claimOf(second, '9'.repeat(32));
  assert.equal(after.known, undefined);
  await after.note({ state: 'draft', at: Date.now(), draft: 'later' });
  await second.close();
  await first.close();
  const third = createLocalLedger({ log: silentLog, directory });
  await third.open();
  assert.equal((await claimOf(third, '9'.repeat(32))).known?.state, 'draft');
  await third.close();
});

test('what another version of the relay has noted is not forgotten: nobody can tell', async (t) => {
  const directory = await tempDirectory(t);
  const subject = { account: 'ann@example.com', messageId: '<1@c>' };
  const line = (entry: object): string => `${KEY} ${JSON.stringify({ at: Date.now(), subject, ...entry })}\n`;
  const later = line({ state: 'uploading', session: 'https://graph.example/s' });
  await writeFile(
    join(directory, 'graph-submissions.journal'),
    `${line({ state: 'draft', draft: 'id' })}${later}`,
  );
  for (let start = 0; start < 2; start++) {
    const ledger = createLocalLedger({ log: silentLog, directory });
    await ledger.open();
    const { known } = await claimOf(ledger);
    assert.equal(known?.state, 'sending');
    assert.match(known.unclear ?? '', /another version/);
    assert.deepEqual(known.subject, subject);
    assert.equal((await ledger.list()).length, 1, 'a person finds it');
    await ledger.close();
  }
});

test('drafts have an owner while they may be unsent, and what is not sent is listed', async (t) => {
  const clock = createTestClock();
  const directory = await tempDirectory(t);
  const ledger = createLocalLedger({ log: silentLog, clock, directory });
  const claim = await claimOf(ledger);
  const subject = { account: 'ann', messageId: '<1@c>', to: 'hash' };
  const entry: LedgerEntry = { state: 'draft', at: clock.now(), subject, draft: 'D', unclear: 'why' };
  await claim.note(entry);
  assert.equal(await ledger.ownerOf('D'), KEY);
  assert.deepEqual(await ledger.list(), [{ key: KEY, entry }]);
  await ledger.close();
  const next = createLocalLedger({ log: silentLog, clock, directory });
  assert.equal(await next.ownerOf('D'), KEY, 'after a restart too');
  assert.deepEqual(await next.list(), [{ key: KEY, entry }]);
  clock.advance(KEEP_MS + 1);
  const other = await claimOf(next, 'o'.repeat(32));
  await other.note({ state: 'draft', at: clock.now(), draft: 'E' });
  assert.equal(await next.ownerOf('D'), KEY, 'as long as it is not known to be sent');
  assert.equal((await next.list()).length, 2, 'known beyond 5 days, so that the draft can be deleted');
  const again = await claimOf(next);
  await again.note({ state: 'sent', at: clock.now() });
  assert.equal(await next.ownerOf('D'), KEY, 'a sent draft may still look like one');
  clock.advance(60 * 60_000);
  await other.note({ state: 'draft', at: clock.now(), draft: 'E' });
  assert.equal(await next.ownerOf('D'), undefined);
  await next.close();
});

test('whether others have the name of a message is known after restarts, and once it is sent', async (t) => {
  const directory = await tempDirectory(t);
  const [other, name] = ['o'.repeat(32), nameOf('<1@c>', 'hash')];
  for (const state of ['creating', 'sent', 'read'] as const) {
    const ledger = createLocalLedger({ log: silentLog, directory });
    const claim = await claimOf(ledger);
    if (state !== 'read') {
      assert.equal(await ledger.isShared(name, KEY), false, 'it has its name itself');
      await claim.note({ state, at: Date.now(), subject: { account: 'ann', name } });
    }
    assert.equal(await ledger.isShared(name, KEY), false);
    assert.equal(await ledger.isShared(name, other), true);
    await ledger.close();
  }
});

test('a step of the wall clock makes nothing old, nor new', async () => {
  const clock = createTestClock();
  const ledger = createLocalLedger({ log: silentLog, clock });
  await ledger.open();
  const claim = await claimOf(ledger);
  await claim.note({ state: 'draft', at: clock.now(), draft: 'D', unclear: 'no answer' });
  await claim.release();
  clock.step(KEEP_MS * 3);
  const after = await claimOf(ledger);
  assert.equal(after.known?.state, 'draft', 'set forward');
  await after.note({ state: 'sent', at: clock.now() });
  await after.release();
  clock.step(-KEEP_MS * 6);
  const later = await claimOf(ledger, 'o'.repeat(32));
  await later.note({ state: 'sent', at: clock.now() });
  await later.release();
  assert.equal((await claimOf(ledger, 'o'.repeat(32))).known?.state, 'sent', 'set back');
  assert.equal((await claimOf(ledger)).known?.state, 'sent');
});

test('after 5 days it is forgotten', async () => {
  const clock = createTestClock();
  const ledger = createLocalLedger({ log: silentLog, clock });
  await ledger.open();
  const claim = await claimOf(ledger);
  await claim.note({ state: 'sent', at: clock.now() });
  await claim.release();
  clock.advance(KEEP_MS - 1);
  const still = await claimOf(ledger);
  assert.equal(still.known?.state, 'sent');
  await still.release();
  clock.advance(2);
  assert.equal((await claimOf(ledger)).known, undefined);
});

test('a journal mostly out of date is written anew', async (t) => {
  const directory = await tempDirectory(t);
  const ledger = createLocalLedger({ log: silentLog, directory });
  await ledger.open();
  const claim = await claimOf(ledger);
  for (let i = 0; i < 25_000; i++) await claim.note({ state: 'sent', at: Date.now() });
  await ledger.close();
  const text = await readFile(join(directory, 'graph-submissions.journal'), 'utf8');
  assert.ok(text.split('\n').length < 10_000, `${text.split('\n').length} lines`);
});
