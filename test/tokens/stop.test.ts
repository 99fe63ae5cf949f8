/** What a stop waits for, and what it believes. */

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { grantFingerprint } from '../../src/tokens/grant-form.ts';
import { createProcesses } from '../../src/tokens/process-mark.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import { createTokenService } from '../../src/tokens/token-service.ts';
import { createTestClock } from '../support/clock.ts';
import { waitFor } from '../support/wait-for.ts';
import { createTestLog, entryFor } from './support.ts';

const URL = 'http://127.0.0.1:1/token';

/** An endpoint that answers when told. */
function createEndpoint() {
  let answer = (_status: number, _text: string): void => undefined;
  const state = { asked: 0, isClosed: false };
  return {
    state,
    answer: (status: number, text: string) => answer(status, text),
    http: {
      post: (_url: string, _form: string, signal: AbortSignal) => {
        state.asked++;
        return new Promise<never>((resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason));
          answer = (status, text) =>
            resolve({
              status,
              header: () => undefined,
              body: (async function* () {
                yield Buffer.from(text);
              })(),
            } as never);
        });
      },
      close: async () => {
        state.isClosed = true;
      },
    },
  };
}

/** A token service whose endpoint has been asked and has not answered. */
async function asking() {
  const endpoint = createEndpoint();
  const clock = createTestClock();
  const tokens = createTokenService({ log: createTestLog(), clock }, { endpoint: { http: endpoint.http } });
  tokens.applyAccounts([entryFor(URL, 'a')]);
  void tokens.refresh('a').catch(() => undefined);
  await waitFor(() => endpoint.state.asked === 1, { what: 'the request' });
  return { endpoint, clock, tokens };
}

test('a stop waits for an answer as long as it may take since the stop began, not since the rest was closed', async () => {
  const { endpoint, clock, tokens } = await asking();
  tokens.drain();
  clock.advance(15_000);
  const closed = tokens.close({ deadlineMs: 1_000 });
  clock.advance(4_900);
  await new Promise(setImmediate);
  assert.equal(endpoint.state.isClosed, false);
  clock.advance(100);
  await waitFor(() => endpoint.state.isClosed, { what: 'the end of the wait' });
  await closed;
});

test('a refusal that is heard at a stop is no verdict on the account', async () => {
  const endpoint = createEndpoint();
  const clock = createTestClock();
  const tokens = createTokenService({ log: createTestLog(), clock }, { endpoint: { http: endpoint.http } });
  tokens.applyAccounts([entryFor(URL, 'a')]);
  const refreshed = tokens.refresh('a');
  await waitFor(() => endpoint.state.asked === 1, { what: 'the request' });
  tokens.drain();
  endpoint.answer(400, JSON.stringify({ error: 'invalid_grant' }));
  await assert.rejects(refreshed, { code: 'provider_fault', message: /stopping/ });
  await tokens.close();
});

for (const [what, attempt] of [
  [
    'is held by another relay',
    async (isWanted: () => boolean) => {
      while (isWanted()) await new Promise(setImmediate);
    },
  ],
  ['is never answered about', () => new Promise<never>(() => {})],
] as const)
  test(`a stop does not outlast its deadline for a lock that ${what}: nothing was asked`, async () => {
    const endpoint = createEndpoint();
    const clock = createTestClock();
    let waiting = 0;
    const store = {
      ...createMemoryStore(),
      async lock(_id: string, _consent?: string, isWanted = () => true) {
        waiting += 1;
        await attempt(isWanted);
        return undefined;
      },
    };
    const tokens = createTokenService(
      { log: createTestLog(), clock, store },
      { endpoint: { http: endpoint.http } },
    );
    tokens.applyAccounts([entryFor(URL, 'a')]);
    void tokens.refresh('a').catch(() => undefined);
    await waitFor(() => waiting === 1, { what: 'a wait for the lock' });
    tokens.drain();
    const closed = tokens.close({ deadlineMs: 2_000 });
    await new Promise(setImmediate);
    clock.advance(2_000);
    await closed;
    assert.equal(endpoint.state.asked, 0);
  });

test('a stop that waits for an answer waits for what is done with it, too: no lock is left that tells of a cut refresh', async () => {
  const endpoint = createEndpoint();
  const clock = createTestClock();
  const done: string[] = [];
  const store = {
    ...createMemoryStore(),
    lock: async () => ({
      interrupted: undefined,
      isHeld: () => true,
      async release() {
        for (let i = 0; i < 20; i++) await new Promise(setImmediate);
        done.push('released');
      },
    }),
    close: async () => void done.push('closed'),
  };
  const tokens = createTokenService(
    { log: createTestLog(), clock, store },
    { endpoint: { http: endpoint.http } },
  );
  tokens.applyAccounts([entryFor(URL, 'a')]);
  void tokens.refresh('a').catch(() => undefined);
  await waitFor(() => endpoint.state.asked === 1, { what: 'the request' });
  const closed = tokens.close();
  await new Promise(setImmediate);
  endpoint.answer(200, '{"access_token":"t","token_type":"Bearer","expires_in":3600,"refresh_token":"r2"}');
  await closed;
  assert.deepEqual(done, ['released', 'closed']);
});

test('whoever closes the service while it is closed hears the same end, not an earlier one', async () => {
  const endpoint = createEndpoint();
  const memory = createMemoryStore();
  let isAway = true;
  const store = {
    ...memory,
    rotate: (...words: Parameters<typeof memory.rotate>) =>
      isAway ? Promise.reject(new Error('away')) : memory.rotate(...words),
  };
  const tokens = createTokenService({ log: createTestLog(), store }, { endpoint: { http: endpoint.http } });
  tokens.applyAccounts([entryFor(URL, 'a')]);
  const asked = tokens.refresh('a');
  await waitFor(() => endpoint.state.asked === 1, { what: 'the request' });
  endpoint.answer(
    200,
    JSON.stringify({ access_token: 't', token_type: 'Bearer', expires_in: 3600, refresh_token: 'newest' }),
  );
  await asked;
  const first = tokens.close();
  await waitFor(() => endpoint.state.isClosed, { what: 'the last attempt to save' });
  let isOver = false;
  const second = tokens.close().finally(() => {
    isOver = true;
  });
  await new Promise(setImmediate);
  assert.equal(isOver, false);
  isAway = false;
  await Promise.all([first, second]);
});

test('of two who close the service, the one with less patience decides', async () => {
  const { endpoint, clock, tokens } = await asking();
  const closed = [tokens.close({ deadlineMs: 60_000 }), tokens.close()];
  await new Promise(setImmediate);
  clock.advance(20_000);
  await waitFor(() => endpoint.state.isClosed, { what: 'the end of the wait' });
  await Promise.all(closed);
});

test('an answer that a stop cuts is told, and its lock is left as word of it for the next start', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'stop-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const endpoint = createEndpoint();
  const clock = createTestClock();
  const log = createTestLog();
  const { own } = createProcesses();
  const ended = { own: { ...own, pid: 2 ** 22 + 1 }, isAlive: () => true };
  const store = createFileStore(directory, { log, sealer: undefined, clock, processes: ended });
  const tokens = createTokenService({ log, clock, store }, { endpoint: { http: endpoint.http } });
  await tokens.open();
  tokens.applyAccounts([entryFor(URL, 'a')]);
  void tokens.refresh('a').catch(() => undefined);
  await waitFor(() => endpoint.state.asked === 1, { what: 'the request' });
  clock.advance(20_000);
  // It is read on for its refresh token.
  await waitFor(() => tokens.statusOf('a')?.lastError !== undefined, { what: 'the end of the wait' });
  tokens.drain();
  const closed = tokens.close({ deadlineMs: 1_000 });
  await waitFor(
    () => {
      clock.advance(1_000);
      return endpoint.state.isClosed;
    },
    { what: 'the end of the stop' },
  );
  await closed;
  const told = log.lines.filter(({ fields }) => fields.event === 'token_answer_cut');
  assert.deepEqual(
    told.map(({ level, fields }) => [level, fields.account]),
    [['warn', 'a']],
  );
  const next = createFileStore(directory, { log, sealer: undefined });
  await next.open();
  const { account: _account, credential } = entryFor(URL, 'a');
  const lock = await next.lock?.('a', grantFingerprint(credential));
  assert.equal(lock?.interrupted?.isOver, true);
  await lock?.release();
  await next.close();
});
