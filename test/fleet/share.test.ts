/** The part of a day that a relay may use while Redis is away. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shareOf, withinShare } from '../../src/fleet/share.ts';
import { MailboxCounts } from '../../src/relay/mailbox-counts.ts';

const LIMITS = { atOnce: 9, perMinute: undefined, perDay: 100, recipientsPerDay: 1_000 };

/** How many messages of `recipients` each this relay of three sends, where all together had used `seen` when Redis was lost. */
function sends(seen: { day: number; recipients: number }, recipients: number): number {
  const counts = new MailboxCounts();
  const wall = 1e12;
  counts.lastSeen = { at: 0, minute: 0, ...seen };
  counts.lost(0, 0);
  const apart = { now: 60_000, wall, lostAt: 0, relays: 3, share: (limit: number) => shareOf(limit, 3, 0) };
  for (let sent = 0; ; sent++) {
    if (typeof withinShare(counts, LIMITS, 0, apart) !== 'number') return sent;
    counts.begin(`${sent}`, LIMITS, apart.now, wall);
    counts.end(`${sent}`, LIMITS, apart.now, wall, { unsent: false, recipients });
  }
}

test('messages and recipients of a day: a third of what all together had left', () => {
  assert.equal(sends({ day: 10, recipients: 0 }, 1), 30);
  assert.equal(sends({ day: 0, recipients: 900 }, 11), 3, 'the last message may go beyond by its own');
  assert.equal(sends({ day: 0, recipients: 1_000 }, 1), 0);
  assert.equal(sends({ day: 99, recipients: 0 }, 1), 0);
});
