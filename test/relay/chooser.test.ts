import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { reply } from '../../src/protocol/reply.ts';
import type { Choice } from '../../src/relay/choice.ts';
import { createChooser, type Refused, type Taken } from '../../src/relay/chooser.ts';
import type { MailCommand } from '../../src/relay/relay.ts';

const BUSY: Refused = { answer: reply(451, '4.3.2', 'busy'), retryAfterMs: 100, isBusy: true };

test('of many busy accounts a message waits for some, and leaves by another that is free before it is refused', async () => {
  const asked = new Map<string, number>();
  const chooser = createChooser({
    ask: async ({ account }, maxHoldMs) => {
      const times = (asked.get(account.id) ?? 0) + 1;
      asked.set(account.id, times);
      if (times < 2 || maxHoldMs > 0) return BUSY;
      return { command: { account }, place: { waitMs: 0, end() {} } } as unknown as Taken;
    },
    roomOf: () => 0,
    clock: systemClock,
    maxHoldMs: 1_000,
  });
  const choices = Array.from(
    { length: 10 },
    (_, i) => ({ account: { id: `a${i}` }, sender: 'x@example.com', rank: 0 }) as unknown as Choice,
  );
  const result = await chooser.choose({} as MailCommand, choices, []);
  assert.ok(!('answer' in result));
  assert.equal(result.chosenBy, 'ready_first');
});
