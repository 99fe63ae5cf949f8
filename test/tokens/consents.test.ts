/** A consent belongs to a person, not to the name of an account: renamed, or shared by two accounts, it is never lost. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { silentLog } from '../../src/log.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import type { AccountCredential, TokenService } from '../../src/tokens/token-service.ts';
import { startTrial, type Trial } from '../support/token-trial.ts';
import { waitFor } from '../support/wait-for.ts';
import { account } from './support.ts';

async function trialOnFiles(t: TestContext): Promise<Trial> {
  const directory = await mkdtemp(join(tmpdir(), 'consents-'));
  const trial = await startTrial(1, (log) => createFileStore(directory, { log, sealer: undefined }));
  t.after(async () => {
    await trial.close();
    await rm(directory, { recursive: true, force: true });
  });
  return trial;
}

const named = (trial: Trial, ...ids: readonly string[]): AccountCredential[] =>
  ids.map((id) => ({
    account: account(id),
    credential: trial.entries[0]?.credential as AccountCredential['credential'],
  }));

/** As after a restart with these accounts. */
async function served(trial: Trial, ...ids: readonly string[]): Promise<TokenService> {
  const service = await trial.serve({ log: silentLog });
  service.applyAccounts(named(trial, ...ids));
  return service;
}

for (const how of ['while the relay runs', 'while it stands'])
  test(`an account that is renamed ${how}, and renamed back, keeps its grant`, async (t) => {
    const trial = await trialOnFiles(t);
    let service = await served(trial, 'first@x');
    const rename = async (id: string): Promise<void> => {
      if (how === 'while the relay runs') service.applyAccounts(named(trial, id));
      else {
        await service.close();
        service = await served(trial, id);
      }
    };
    await service.refresh('first@x');
    for (const id of ['second@x', 'first@x', 'a@x', 'first@x']) {
      await rename(id);
      await service.refresh(id);
      await service.refresh(id);
    }
    await service.close();
    service = await served(trial, 'first@x');
    await service.refresh('first@x');
  });

test('an account that is renamed while it is refreshed asks after that, with what came', async (t) => {
  const trial = await trialOnFiles(t);
  let service = await served(trial, 'first@x');
  trial.endpoint.delayMs = 100;
  const before = trial.endpoint.count();
  const under = service.refresh('first@x').catch(() => undefined);
  await waitFor(() => trial.endpoint.count() > before, { what: 'the request' });
  service.applyAccounts(named(trial, 'second@x'));
  await service.refresh('second@x');
  await under;
  assert.equal(trial.endpoint.maxConcurrent, 1);
  await service.close();
  service = await served(trial, 'second@x');
  await service.refresh('second@x');
});

test('two accounts with one consent refresh in turn, whatever their order over restarts', async (t) => {
  const trial = await trialOnFiles(t);
  trial.endpoint.delayMs = 20;
  for (const ids of [['b@x', 'a@x'], ['a@x', 'b@x'], ['b@x'], ['b@x', 'a@x'], ['a@x']]) {
    const service = await served(trial, ...ids);
    await Promise.all(ids.map((id) => service.refresh(id)));
    for (const id of ids) await service.refresh(id);
    await service.close();
  }
  assert.equal(trial.endpoint.maxConcurrent, 1);
});

test('of two accounts with one consent one leaves, and the other goes on', async (t) => {
  const trial = await trialOnFiles(t);
  let service = await served(trial, 'a@x', 'b@x');
  await service.refresh('a@x');
  service.applyAccounts(named(trial, 'b@x'));
  await service.refresh('b@x');
  service.applyAccounts(named(trial, 'b@x', 'a@x'));
  await service.refresh('a@x');
  await service.close();
  service = await served(trial, 'a@x');
  await service.refresh('a@x');
});
