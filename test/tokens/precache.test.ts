import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../src/log.ts';
import { runPrecache } from '../../src/tokens/precache.ts';
import { createTokenService } from '../../src/tokens/token-service.ts';
import type { Slot } from '../../src/tokens/token-slot.ts';
import { createTestClock } from '../support/clock.ts';
import { countTurns } from '../support/turns.ts';
import { waitFor } from '../support/wait-for.ts';
import { answerJson, createTestLog, entryFor, grant, startEndpoint } from './support.ts';

const names = (count: number): string[] => Array.from({ length: count }, (_, i) => `user${i}@x`);

test('all accounts are fetched at once, within the bound', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer = async (request, response) => {
    await waitFor(() => endpoint.peak() >= 8, { what: 'as many as may be' });
    grant(response, { access_token: `for-${request.form.get('refresh_token')}` });
  };
  const tokens = createTokenService({ log: createTestLog() }, { concurrency: 8 });
  t.after(() => tokens.close());
  tokens.applyAccounts(names(40).map((id) => entryFor(endpoint.url, id)));
  const result = await tokens.precache();
  assert.deepEqual({ ...result, ms: 0 }, { accounts: 40, cached: 0, fetched: 40, failed: 0, ms: 0 });
  assert.equal(endpoint.peak(), 8);
  assert.equal(tokens.peek('user7@x')?.reveal(), 'for-refresh-of-user7@x');
  const again = await tokens.precache(['user1@x', 'user2@x', 'nobody']);
  assert.deepEqual({ ...again, ms: 0 }, { accounts: 2, cached: 2, fetched: 0, failed: 0, ms: 0 });
});

test('requests of a round go out in turns of the event loop of their own', async () => {
  const turns = countTurns();
  const asked: number[] = [];
  const slots = names(5).map(() => ({ state: { name: 'empty' } }) as unknown as Slot);
  const deps = {
    clock: createTestClock(),
    log: silentLog,
    random: () => 0,
    hasToken: () => false,
    pausedUntil: () => 0,
    fetch: async () => void asked.push(turns.now()),
  };
  await runPrecache(deps, slots, 5);
  turns.stop();
  assert.equal(new Set(asked).size, 5);
});

test('a round goes on after 429, not before the time the provider named', async (t) => {
  const endpoint = await startEndpoint(t);
  let refusedAt = 0;
  endpoint.answer = (request, response) => {
    if (refusedAt === 0) refusedAt = request.at;
    if (request.at - refusedAt < 900) {
      answerJson(response, 429, {}, { 'retry-after': '1' });
    } else grant(response, { access_token: 'good' });
  };
  const tokens = createTokenService({ log: createTestLog() }, { concurrency: 4 });
  t.after(() => tokens.close());
  tokens.applyAccounts(names(20).map((id) => entryFor(endpoint.url, id)));
  const result = await tokens.precache();
  assert.deepEqual({ ...result, ms: 0 }, { accounts: 20, cached: 0, fetched: 20, failed: 0, ms: 0 });
  assert.ok(endpoint.requests.length <= 24, `${endpoint.requests.length} requests`);
});

test('failures end a round with counts, one line each and no secret', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer = (request, response) => {
    const given = request.form.get('refresh_token');
    if (given === 'refresh-of-user1@x') {
      answerJson(response, 400, { error: 'invalid_grant', error_description: `token ${given} is dead` });
    } else grant(response, { access_token: 'access-secret' });
  };
  const log = createTestLog();
  const tokens = createTokenService({ log });
  t.after(() => tokens.close());
  tokens.applyAccounts(names(3).map((id) => entryFor(endpoint.url, id)));
  const result = await tokens.precache();
  assert.deepEqual({ ...result, ms: 0 }, { accounts: 3, cached: 0, fetched: 2, failed: 1, ms: 0 });
  assert.equal(log.lines.filter((l) => l.level === 'warn').length, 1);
  assert.doesNotMatch(log.text(), /refresh-of|access-secret|client-secret/);
});
