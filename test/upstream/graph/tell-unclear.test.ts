import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../../src/log.ts';
import type { LedgerEntry } from '../../../src/upstream/graph/ledger.ts';
import { createLocalLedger } from '../../../src/upstream/graph/ledger-local.ts';
import { outgoingOf } from '../../../src/upstream/graph/outgoing.ts';
import { createTellUnclear } from '../../../src/upstream/graph/tell-unclear.ts';
import { createUnclearMessages } from '../../../src/upstream/graph/unclear-messages.ts';
import { createTestClock } from '../../support/clock.ts';

const HOUR = 60 * 60_000;

test('a draft that an hour of retries has not cleared calls a person, once', async () => {
  const clock = createTestClock();
  const ledger = createLocalLedger({ log: silentLog, clock });
  const called: string[] = [];
  const tell = createTellUnclear({ log: silentLog, clock, onPerson: ({ key }) => called.push(key) });
  const { list } = createUnclearMessages(ledger, clock);
  const message = Buffer.from('Message-ID: <m@client.test>\r\nSubject: s\r\n\r\nbody\r\n');
  const outgoing = outgoingOf({ sender: 'ann@example.com', parameters: [] }, [], message, () => false);
  const entry: LedgerEntry = { state: 'draft', at: clock.now(), draft: 'd' };
  const retry = async (): Promise<string | undefined> => {
    const claim = await ledger.claim(outgoing.key);
    assert.ok(claim !== 'busy');
    const ending = await tell(
      outgoing,
      claim,
      claim.known ?? entry,
      'Graph does not find the draft',
      'retry',
    );
    assert.equal(ending.kind === 'refused' && ending.verdict.class, 'unknown');
    await claim.release();
    return (await list())[0]?.clears;
  };
  assert.equal(await retry(), 'retry');
  clock.advance(HOUR / 2);
  assert.equal(await retry(), 'retry');
  assert.deepEqual(called, []);
  clock.advance(HOUR);
  assert.equal(await retry(), 'person');
  assert.equal(await retry(), 'person');
  assert.deepEqual(called, [outgoing.key]);
});
