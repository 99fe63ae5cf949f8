/** A sender of several accounts does not wait for one that lets every message wait. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mailboxOf } from '../../src/accounts/account.ts';
import { silentLog } from '../../src/log.ts';
import type { Choice } from '../../src/relay/choice.ts';
import { createRelay } from '../../src/relay/create-relay.ts';
import { createLimiter, type Limiter } from '../../src/relay/limits.ts';
import type { TransactionRecord } from '../../src/relay/record.ts';
import type { Way } from '../../src/upstream/way.ts';
import { account } from '../listener/stage.ts';
import { createTestClock } from '../support/clock.ts';
import { waitFor } from '../support/wait-for.ts';

const DOWN = { code: 451, enhanced: '4.4.1', text: 'no answer in time' };

const BUSY = { granted: false, limit: 'busy', retryAfterMs: 250 } as const;
const mailboxNamed = (id: string): string => mailboxOf(account(id));
/** The first account's mailbox has a place only for whoever waits. */
const firstIsBusy: Limiter['reserve'] = (mailbox, _limits, maxWaitMs) =>
  mailbox === mailboxNamed('a0@x.test') && maxWaitMs === 0
    ? BUSY
    : { granted: true, place: { waitMs: 0, end() {} } };

function room(ranks: readonly number[] = [0, 0], reserve?: Limiter['reserve']) {
  const clock = createTestClock();
  const asked: string[] = [];
  const told: unknown[] = [];
  const log = { ...silentLog, info: (line: object) => told.push(line) };
  const records: TransactionRecord[] = [];
  const silent = new Set<string>();
  const accounts = ranks.map((_, i) => account(`a${i}@x.test`));
  const choices = accounts.map((of, i): Choice => {
    return { account: of, sender: 'shared@x.test', exactness: 'domain', rank: ranks[i] ?? 0 };
  });
  const wayOf = (id: string): Way => ({
    account: account(id),
    facts: {
      recipients: 'live',
      body: 'streams',
      maxBytes: 1_000,
      withoutDomain: 'passes',
      capabilities: undefined,
    },
    async ready() {
      asked.push(id);
      if (!silent.has(id)) return undefined;
      clock.advance(15_000);
      return DOWN;
    },
    begin: () => ({
      ask: () => assert.fail(),
      send: () => assert.fail(),
      open: () => assert.fail(),
      close() {},
      giveUp() {},
    }),
  });
  const limiter: Limiter = { ...createLimiter(clock), ...(reserve && { reserve }) };
  const relay = createRelay(
    { ways: { of: wayOf }, log, onRecord: (record) => records.push(record), clock, limiter },
    { replayBytes: 0, maxHoldMs: 1_000 },
  );
  return {
    clock,
    asked,
    silent,
    records,
    told,
    async mail() {
      const since = clock.monotonic();
      const [first] = choices;
      assert.ok(first !== undefined);
      const session = { id: 's', remoteAddress: '', helo: '', tls: false };
      const command = { account: first.account, sender: first.sender, parameters: [], session, choices };
      const { reply, transaction, account: taken } = await relay.mail(command);
      transaction?.abort();
      return [reply.code, taken?.id ?? '', (clock.monotonic() - since) / 1_000].join(' ');
    },
  };
}

test('an account that kept a message waiting and refused it is asked last for a minute, then by one message', async () => {
  const { clock, asked, silent, records, mail } = room();
  silent.add('a0@x.test');
  assert.equal(await mail(), '250 a1@x.test 15');
  for (let i = 0; i < 3; i++) assert.equal(await mail(), '250 a1@x.test 0');
  assert.deepEqual(
    records.map((r) => r.chosenBy),
    Array(4).fill('passed_over'),
  );
  clock.advance(60_000);
  asked.length = 0;
  const both = await Promise.all([mail(), mail()]);
  assert.ok(both.every((heard) => heard.startsWith('250 a1@x.test')));
  assert.deepEqual(asked, ['a0@x.test', 'a1@x.test', 'a1@x.test']);

  silent.delete('a0@x.test');
  clock.advance(60_000);
  assert.equal(await mail(), '250 a0@x.test 0');
  assert.equal(await mail(), '250 a0@x.test 0');
});

test('where the others refuse it is asked all the same', async () => {
  const { silent, mail } = room();
  silent.add('a0@x.test');
  assert.equal(await mail(), '250 a1@x.test 15');
  silent.delete('a0@x.test');
  silent.add('a1@x.test');
  assert.equal(await mail(), '250 a0@x.test 15');
});

test('an account that matches the sender less exactly does not come before it', async () => {
  const { silent, mail } = room([0, 1]);
  silent.add('a0@x.test');
  for (let i = 0; i < 2; i++) assert.equal(await mail(), '250 a1@x.test 15');
  silent.delete('a0@x.test');
  assert.equal(await mail(), '250 a0@x.test 0');
});

test('mail waits for an account that is busy for a moment: it does not leave by one that matches the sender less exactly', async () => {
  const { records, told, mail } = room([0, 1], firstIsBusy);
  assert.equal(await mail(), '250 a0@x.test 0');
  assert.equal(records[0]?.chosenBy, 'ready_first');
  assert.deepEqual(told, [], 'nobody was passed over');
});

test('of accounts that match the sender alike one that is busy leaves it to another', async () => {
  const { records, mail } = room([0, 0], firstIsBusy);
  assert.equal(await mail(), '250 a1@x.test 0');
  assert.equal(records[0]?.chosenBy, 'passed_over');
});

test('of accounts that are all busy the first that is free takes it; the others are waited for no more, and a place that comes too late goes back', async () => {
  const waiting = new Map<
    string,
    { readonly grant: (as: string) => void; readonly withdrawn: AbortSignal }
  >();
  const ended: string[] = [];
  const { records, mail } = room([0, 0, 0, 1], (mailbox, _limits, maxWaitMs, withdrawn) => {
    if (maxWaitMs === 0) return BUSY;
    assert.ok(withdrawn !== undefined);
    return new Promise((resolve) => {
      const grant = (as: string): void =>
        resolve({
          granted: true,
          place: { waitMs: 0, end: ({ unsent }) => ended.push(`${as} ${unsent}`) },
        });
      waiting.set(mailbox, { grant, withdrawn });
    });
  });
  const heard = mail();
  const of = (id: string) => waitFor(() => waiting.get(mailboxNamed(id)));
  const [first, second, third] = [await of('a0@x.test'), await of('a1@x.test'), await of('a2@x.test')];
  assert.equal(waiting.size, 3, 'nobody waits for one that matches less exactly');
  second.grant('in time');
  assert.equal(await heard, '250 a1@x.test 0');
  assert.equal(records[0]?.chosenBy, 'ready_first');
  assert.ok(first.withdrawn.aborted && third.withdrawn.aborted);
  third.grant('late');
  await waitFor(() => ended.length === 2);
  assert.deepEqual(ended.sort(), ['in time true', 'late true']);
});

test('who asks others for a place, too, asks the account once whether it may send: after a pause that is one message alone', async () => {
  for (const ranks of [[0], [0, 0]]) {
    const { mail, asked } = room(ranks, async () => ({ granted: true, place: { waitMs: 0, end() {} } }));
    assert.equal(await mail(), '250 a0@x.test 0');
    assert.deepEqual(asked, ['a0@x.test']);
  }
});
