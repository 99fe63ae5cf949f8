import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createActivity } from '../../src/activity.ts';
import { createTokenService } from '../../src/tokens/token-service.ts';
import { createTestClock } from '../support/clock.ts';
import { waitFor } from '../support/wait-for.ts';
import { createTestLog, entryFor, startEndpoint } from './support.ts';

const HOUR = 3_600_000;

async function twoAccounts(t: TestContext) {
  const endpoint = await startEndpoint(t);
  const clock = createTestClock();
  const activity = createActivity(24 * HOUR, clock);
  const tokens = createTokenService({ log: createTestLog(), random: () => 0, clock, activity });
  t.after(() => tokens.close());
  tokens.applyAccounts(['seldom', 'often'].map((id) => entryFor(endpoint.url, id)));
  await tokens.precache();
  const requests = (id: string): number =>
    endpoint.requests.filter(({ form }) => form.get('refresh_token') === `refresh-of-${id}`).length;
  /** Time passes, in steps in which the background does what is due; `often` sends. */
  async function pass(hours: number): Promise<void> {
    for (let i = 0; i < hours * 4; i++) {
      activity.note('often');
      clock.advance(HOUR / 4);
      await waitFor(() => ['seldom', 'often'].every((id) => tokens.statusOf(id)?.refreshing === false), {
        what: 'the background',
      });
    }
  }
  return { tokens, activity, requests, pass };
}

test('an account that has not sent for a day is refreshed once a day, and is ready all the same', async (t) => {
  const { tokens, requests, pass } = await twoAccounts(t);
  await pass(24);
  const asSend = requests('seldom');
  assert.equal(asSend, requests('often'));
  await pass(20);
  assert.ok(requests('often') > asSend + 15);
  assert.equal(requests('seldom'), asSend);
  assert.equal(tokens.peek('seldom'), undefined);
  assert.equal(tokens.statusOf('seldom')?.state.status, 'ready');
  assert.equal(tokens.statusOf('seldom')?.cached, false);
  assert.ok(tokens.statusOf('seldom')?.nextRefreshAt !== undefined);
  // The grant does not die of disuse.
  await pass(10);
  assert.equal(requests('seldom'), asSend + 1);
});

test('with its next message it is refreshed ahead again', async (t) => {
  const { tokens, activity, requests, pass } = await twoAccounts(t);
  await pass(30);
  const asleep = requests('seldom');
  activity.note('seldom');
  await tokens.get('seldom');
  assert.equal(requests('seldom'), asleep + 1);
  await pass(5);
  assert.ok(requests('seldom') > asleep + 4);
  assert.notEqual(tokens.peek('seldom'), undefined);
});

test('a start counts as a message, and 0 is never', () => {
  const clock = createTestClock();
  const idle = createActivity(1_000, clock);
  const never = createActivity(0, clock);
  const woken: string[] = [];
  idle.onWake((id) => woken.push(id));
  clock.advance(1_000);
  assert.equal(idle.isIdle('a'), false);
  clock.advance(1);
  assert.deepEqual([idle.isIdle('a'), never.isIdle('a')], [true, false]);
  idle.note('a');
  idle.note('a');
  assert.deepEqual([woken, idle.isIdle('a')], [['a'], false]);
  idle.keepOnly(new Set());
  assert.equal(idle.isIdle('a'), true);
});
