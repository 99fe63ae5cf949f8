/**
 * No grant is lost over real files, with an endpoint that revokes a refresh token when it gives the next:
 * 50 stops of each kind, each followed by a new process that must be able to refresh every account.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { createSealer } from '../../src/tokens/sealing.ts';
import { stateFiles } from '../../src/tokens/state-files.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import type { TokenService } from '../../src/tokens/token-service.ts';
import { startTrial, type Trial } from '../support/token-trial.ts';
import { waitFor } from '../support/wait-for.ts';
import { createTestLog } from './support.ts';

const STOPS = 50;
const ACCOUNTS = 4;
const pause = (ms: number): Promise<void> => new Promise((resume) => setTimeout(resume, ms));
/** One for all: deriving the key costs on purpose. */
const sealer = createSealer(new Secret('correct horse battery staple'));

async function trialOnFiles(t: TestContext, files = stateFiles): Promise<Trial> {
  const directory = await mkdtemp(join(tmpdir(), 'tokens-test-'));
  const trial = await startTrial(ACCOUNTS, (log) => createFileStore(directory, { log, sealer, files }));
  t.after(async () => {
    await trial.close();
    await rm(directory, { recursive: true, force: true });
  });
  return trial;
}

/** Begins a refresh of every account; resolves when the endpoint has all of them. */
async function begin({ endpoint, users }: Trial, service: TokenService): Promise<Promise<unknown>[]> {
  const before = endpoint.count();
  const asked = users.map((user) => service.refresh(user).catch(() => undefined));
  await waitFor(() => endpoint.count() === before + users.length, { what: 'the requests' });
  return asked;
}

test('a stop while refreshes are under way waits for their answers and keeps them', async (t) => {
  const trial = await trialOnFiles(t);
  for (let stop = 0; stop < STOPS; stop += 1) {
    const service = await trial.serve();
    trial.endpoint.delayMs = 5 + (stop % 10);
    await begin(trial, service);
    await pause(stop % 12);
    const asked = trial.endpoint.count();
    await service.close();
    assert.equal(trial.endpoint.count(), asked, 'something was asked after the stop');
    assert.deepEqual(await trial.lost(), [], `stop ${stop}`);
  }
});

test('a stop that comes while requests wait for their turn begins none of them', async (t) => {
  const trial = await trialOnFiles(t);
  const service = await trial.serve();
  trial.endpoint.delayMs = 50;
  await begin(trial, service);
  const asked = trial.endpoint.count();
  service.drain();
  const refused = await Promise.allSettled(trial.users.map((user) => service.get(user)));
  assert.ok(refused.every((r) => r.status === 'fulfilled' || String(r.reason).includes('stopping')));
  await service.close();
  assert.equal(trial.endpoint.count(), asked);
  await assert.rejects(service.get(trial.users[0] ?? ''));
});

test('accounts that are removed or mistyped during a refresh, and put back, lose nothing', async (t) => {
  const trial = await trialOnFiles(t);
  const [first, ...others] = trial.entries;
  assert.ok(first);
  const typo = {
    account: first.account,
    credential: { ...first.credential, refreshToken: new Secret('a typing error') },
  } as (typeof trial.entries)[number];
  const service = await trial.serve();
  for (let reload = 0; reload < STOPS; reload += 1) {
    trial.endpoint.delayMs = 5;
    const asked = await begin(trial, service);
    service.applyAccounts(reload % 2 === 0 ? others : [typo, ...others]);
    if (reload % 3 === 0) await Promise.all(asked);
    if (reload % 5 === 0) await service.get(first.account.id).catch(() => undefined);
    service.applyAccounts(trial.entries);
    trial.endpoint.delayMs = 0;
    const results = await Promise.allSettled(trial.users.map((user) => service.refresh(user)));
    for (const result of results) assert.equal(result.status, 'fulfilled', `reload ${reload}`);
  }
  await service.close();
  assert.deepEqual(await trial.lost(), []);
});

for (const isLate of [false, true])
  test(`an account that is removed and put back during a refresh is not asked for beside it${isLate ? ', late as its answer is' : ''}`, async (t) => {
    const trial = await trialOnFiles(t);
    const [user = ''] = trial.users;
    const service = await trial.serve({}, isLate ? { answerTimeoutMs: 50, lateMs: 5_000 } : {});
    let answer = (): void => undefined;
    const until = new Promise<void>((resume) => {
      answer = resume;
    });
    trial.endpoint.queue({ normal: true, until }, { user });
    const first = service.refresh(user).catch(() => undefined);
    await waitFor(() => trial.endpoint.count(user) === 1);
    // Nobody waits for it any longer; it is still read.
    if (isLate) await first;
    service.applyAccounts(trial.entries.slice(1));
    service.applyAccounts(trial.entries);
    const again = service.get(user).catch((error: Error) => error.message);
    await assert.rejects(waitFor(() => trial.endpoint.count(user) > 1, { timeoutMs: 300, what: 'another' }));
    answer();
    if (isLate) assert.match(String(await again), /still awaited/);
    else await again;
    await waitFor(
      async () => service.peek(user) !== undefined || (await service.get(user).catch(() => false)),
    );
    await service.close();
    assert.deepEqual(await trial.lost(), []);
  });

test('an answer for an account that has left the accounts file goes to the store', async (t) => {
  const trial = await trialOnFiles(t);
  for (let stop = 0; stop < STOPS; stop += 1) {
    const service = await trial.serve();
    trial.endpoint.delayMs = 5;
    await begin(trial, service);
    service.applyAccounts([]);
    await service.close();
    assert.deepEqual(await trial.lost(), [], `stop ${stop}`);
  }
});

test('of an answer whose access token is no good the refresh token is kept', async (t) => {
  const trial = await trialOnFiles(t);
  const odd = [
    { patch: { expires_in: 0 } },
    { patch: { expires_in: -1 } },
    { patch: { token_type: 'mac' } },
    { patch: { access_token: undefined } },
    { patch: { access_token: 'a\r\nb' } },
  ];
  for (let stop = 0; stop < STOPS; stop += 1) {
    const service = await trial.serve();
    trial.endpoint.always(odd[stop % odd.length]);
    const results = await Promise.allSettled(trial.users.map((user) => service.refresh(user)));
    assert.ok(results.every((result) => result.status === 'rejected'));
    trial.endpoint.always(undefined);
    await service.close();
    assert.deepEqual(await trial.lost(), [], JSON.stringify(odd[stop % odd.length]));
  }
});

test('an answer after the limit is read to its end and kept; waiters do not wait for it', async (t) => {
  const trial = await trialOnFiles(t);
  for (let stop = 0; stop < STOPS; stop += 1) {
    const service = await trial.serve({}, { answerTimeoutMs: 60, lateMs: 2000 });
    trial.endpoint.delayMs = 100 + (stop % 20);
    const results = await Promise.allSettled(trial.users.map((user) => service.refresh(user)));
    assert.ok(results.every((result) => result.status === 'rejected'));
    const asked = trial.endpoint.count();
    // Nothing is asked beside the answer that is still awaited; it may come just now.
    await service.get(trial.users[0] ?? '').catch((error: { code?: unknown }) => {
      assert.equal(error.code, 'provider_fault');
    });
    assert.equal(trial.endpoint.count(), asked);
    if (stop % 2 === 0) {
      await waitFor(() => trial.users.every((user) => service.peek(user) !== undefined), {
        what: 'the late tokens',
      });
    }
    await service.close({ deadlineMs: 2000 });
    assert.deepEqual(await trial.lost(), [], `stop ${stop}`);
  }
});

test('a full disk at the moment of rotation: kept when there is room, named when there is none at the stop', async (t) => {
  let full = false;
  const files = {
    ...stateFiles,
    async create(path: string, text: string) {
      if (full && path.includes('.grant.')) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
      await stateFiles.create(path, text);
    },
  };
  const trial = await trialOnFiles(t, files);
  for (let stop = 0; stop < STOPS; stop += 1) {
    const service = await trial.serve();
    full = true;
    await Promise.all(trial.users.map((user) => service.refresh(user)));
    assert.deepEqual([...service.unsaved()].sort(), trial.users);
    assert.equal(service.statusOf(trial.users[0] ?? '')?.unsaved, true);
    // Room is made between the rotation and the stop.
    full = false;
    await service.close();
    assert.deepEqual(await trial.lost(), [], `stop ${stop}`);
  }
  const log = createTestLog();
  const service = await trial.serve({ log });
  full = true;
  await service.refresh(trial.users[0] ?? '');
  await assert.rejects(service.close(), { name: 'GrantsUnsavedError', accountIds: [trial.users[0]] });
  const [line] = log.lines.filter((l) => l.fields.event === 'refresh_tokens_lost');
  assert.deepEqual([line?.level, line?.fields.accounts], ['error', [trial.users[0]]]);
  full = false;
});

test('a command that refreshes beside the relay takes nothing from it', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'tokens-test-'));
  let role: 'owner' | 'guest' = 'owner';
  const trial = await startTrial(ACCOUNTS, (log) => createFileStore(directory, { log, sealer }, { role }));
  t.after(async () => {
    await trial.close();
    await rm(directory, { recursive: true, force: true });
  });
  const relay = await trial.serve();
  role = 'guest';
  for (let turn = 0; turn < STOPS; turn += 1) {
    const command = await trial.serve();
    trial.endpoint.delayMs = 2;
    const both = [relay, command].flatMap((service) => trial.users.map((user) => service.refresh(user)));
    await Promise.all(both);
    await command.close();
  }
  await relay.close();
  role = 'owner';
  assert.deepEqual(await trial.lost(), []);
});
