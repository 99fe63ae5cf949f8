/** A relay that was stopped for a while looks before it begins anything. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { createLeases } from '../../src/fleet/leases.ts';
import type { Held } from '../../src/fleet/redis-limits.ts';
import { createTestClock } from '../support/clock.ts';

/** `extend`: what Redis says had ended; undefined: it does not answer. */
function stage(extend: (held: readonly Held[]) => readonly Held[] | undefined) {
  const clock = createTestClock();
  const lent: string[] = [];
  const leases = createLeases({
    clock,
    held: (isWaiting) => ['x'].map((id) => ({ mailboxId: 'a', id, as: isWaiting(id) ? 'waiting' : 'begun' })),
    extend: async (held) => extend(held),
    lend: (_mailboxId, id) => void lent.push(id),
  });
  return { clock, leases, lent };
}

test("a place is the relay's own until its message begins", () => {
  const { clock, leases, lent } = stage((held) => held);
  leases.granted('a', 'x', clock.monotonic(), 0);
  clock.advance(1_000);
  assert.equal(leases.claim('x'), true);
  assert.deepEqual(lent, []);
  leases.close();
});

test('a process that was stopped: its place may have been given to others meanwhile', () => {
  const { clock, leases, lent } = stage(() => undefined);
  // Asked before it was stopped, the answer is read after.
  leases.granted('a', 'x', clock.monotonic() - 14_000, 0);
  assert.equal(leases.claim('x'), false);
  assert.deepEqual(lent, ['x'], 'counted no more');
  leases.close();
});

test('a machine that was stopped: only its wall clock shows it', () => {
  const { clock, leases, lent } = stage(() => undefined);
  leases.granted('a', 'x', clock.monotonic(), 0);
  clock.step(20_000);
  assert.equal(leases.claim('x'), false);
  assert.deepEqual(lent, ['x']);
  leases.close();
});

for (const [name, ended, isOwn] of [
  ['Redis has extended it', false, true],
  ['Redis says that it had ended', true, false],
] as const)
  test(`a client that waits for its minute: ${name}`, async () => {
    const { clock, leases } = stage((held) => (ended ? held : []));
    leases.granted('a', 'x', clock.monotonic(), 15_000);
    for (let i = 0; i < 15; i++) {
      clock.advance(1_000);
      await setImmediate();
    }
    assert.equal(leases.claim('x'), isOwn);
    leases.close();
  });
