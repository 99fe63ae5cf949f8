/** What is seen in a mailbox, and when it may be believed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { GraphClient, GraphMessage } from '../../../src/upstream/graph/client.ts';
import type { Ledger } from '../../../src/upstream/graph/ledger.ts';
import { createMailboxSearch } from '../../../src/upstream/graph/mailbox-search.ts';
import { createTestClock } from '../../support/clock.ts';

test('a draft that was seen before it was sent, and told of late, is no proof that it was not sent', async () => {
  const clock = createTestClock();
  const SENT_AT = 2_000;
  let looks = 0;
  const look: GraphClient['look'] = async () => {
    const isDraft = clock.monotonic() < SENT_AT;
    // The second answer is on its way for longer than a draft has to be one.
    if (++looks === 2) await new Promise<void>((resume) => void clock.after(6_000, resume));
    return { kind: 'ok', value: { id: 'draft-1', isDraft } as GraphMessage };
  };
  const search = createMailboxSearch({ client: { look } as GraphClient, ledger: {} as Ledger, clock });
  let seen: Awaited<ReturnType<typeof search.look>> | undefined;
  const looking = search.look('draft-1', 60_000, 3_000).then((found) => {
    seen = found;
  });
  for (let ms = 0; ms < 60_000 && seen === undefined; ms += 50) {
    clock.advance(50);
    await new Promise((resume) => setImmediate(resume));
  }
  await looking;
  assert.equal(seen?.is, 'sent');
});
