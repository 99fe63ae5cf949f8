/**
 * A consent belongs to a person, not to the name of an account: renamed, or shared by two accounts, it is never lost.
 * What a person signs in for anew serves that mailbox alone. The endpoint revokes a refresh token when it gives the next.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { silentLog } from '../../src/log.ts';
import { AccessToken } from '../../src/tokens/access-token.ts';
import { createSealer } from '../../src/tokens/sealing.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import type { AccountCredential, TokenService } from '../../src/tokens/token-service.ts';
import { startTrial, type Trial } from '../support/token-trial.ts';
import { waitFor } from '../support/wait-for.ts';
import { account } from './support.ts';

const sealer = createSealer(new Secret('correct horse battery staple'));
type Ground = 'memory' | 'file' | 'sealed file';

async function trialOn(t: TestContext, ground: Ground): Promise<Trial & { role: 'owner' | 'guest' }> {
  const directory = await mkdtemp(join(tmpdir(), 'consents-'));
  // Kept over restarts, as by a relay that runs on.
  const memory = { ...createMemoryStore(), close: async () => {} };
  const trial = await startTrial(1, (log) =>
    ground === 'memory'
      ? memory
      : createFileStore(
          directory,
          { log, sealer: ground === 'file' ? undefined : sealer },
          { role: made.role },
        ),
  );
  const made = Object.assign(trial, { role: 'owner' as 'owner' | 'guest' });
  t.after(async () => {
    await trial.close();
    await rm(directory, { recursive: true, force: true });
  });
  return made;
}

/** Accounts with one and the same entry of the accounts file. */
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

/** What the endpoint was asked for with. */
const usedTokens = ({ endpoint }: Trial): string[] =>
  endpoint.requests.map((request) => request.form.get('refresh_token') ?? '');

for (const ground of ['memory', 'file', 'sealed file'] as const) {
  for (const how of ['while the relay runs', 'while it stands'])
    test(`${ground}: an account that is renamed ${how}, and renamed back, keeps its grant`, async (t) => {
      const trial = await trialOn(t, ground);
      let service = await served(trial, 'first@x');
      const rename = async (id: string): Promise<void> => {
        if (how === 'while the relay runs') service.applyAccounts(named(trial, id));
        else {
          await service.close();
          service = await served(trial, id);
        }
      };
      await service.refresh('first@x');
      for (const id of ['second@x', 'first@x', 'a@x', 'first@x', 'second@x']) {
        await rename(id);
        await service.refresh(id);
        await service.refresh(id);
      }
      // Never asked with one that had been used: some endpoints revoke all for that.
      assert.equal(new Set(usedTokens(trial)).size, usedTokens(trial).length);
      await service.close();
    });

  test(`${ground}: two accounts with one consent refresh in turn, whatever their order over restarts`, async (t) => {
    const trial = await trialOn(t, ground);
    trial.endpoint.delayMs = 20;
    for (const ids of [['b@x', 'a@x'], ['a@x', 'b@x'], ['b@x'], ['b@x', 'a@x'], ['a@x'], ['c@x', 'b@x']]) {
      const service = await served(trial, ...ids);
      await Promise.all(ids.map((id) => service.refresh(id)));
      for (const id of ids) await service.refresh(id);
      await service.close();
    }
    assert.equal(trial.endpoint.maxConcurrent, 1);
    assert.equal(new Set(usedTokens(trial)).size, usedTokens(trial).length);
  });

  test(`${ground}: an account that is renamed while it is refreshed asks after that, with what came`, async (t) => {
    const trial = await trialOn(t, ground);
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
    assert.equal(new Set(usedTokens(trial)).size, usedTokens(trial).length);
    await service.close();
  });

  test(`${ground}: what a person signs in for anew serves that mailbox alone, renamed or not`, async (t) => {
    const trial = await trialOn(t, ground);
    const { clientId, clientSecret = '' } = trial.endpoint.account(trial.users[0] ?? '') ?? assert.fail();
    const anew = trial.endpoint.add('anew@x', { clientId, clientSecret });
    let service = await served(trial, 'ann@x', 'bob@x');
    await service.refresh('ann@x');
    await service.refresh('bob@x');
    const bobs = (await service.get('bob@x')).reveal();
    await service.adopt('ann@x', {
      refreshToken: new Secret(anew.refreshToken),
      accessToken: new AccessToken('of the new sign-in', Date.now() + 3_600_000, Date.now()),
      resource: 'smtp',
    });
    const wasAnew = (): boolean => trial.endpoint.requests.at(-1)?.user === 'anew@x';
    assert.equal((await service.get('bob@x')).reveal(), bobs);
    for (const restart of [false, true]) {
      if (restart) {
        await service.close();
        service = await served(trial, 'ann@x', 'bob@x');
      }
      for (const [id, isNew] of [
        ['bob@x', false],
        ['ann@x', true],
        ['bob@x', false],
        ['ann@x', true],
      ] as const) {
        await service.refresh(id);
        assert.equal(wasAnew(), isNew, id);
        const owner = isNew ? 'anew@x' : (trial.users[0] ?? '');
        assert.ok(trial.endpoint.verify(owner, (await service.get(id)).reveal()), id);
      }
    }
    // Under another name it is the same mailbox's.
    const renamed = named(trial, 'ann-renamed', 'bob@x').map((entry, i) =>
      i === 0 ? { ...entry, account: { ...entry.account, user: 'ann@x' } } : entry,
    );
    service.applyAccounts(renamed);
    await service.refresh('ann-renamed');
    assert.ok(wasAnew());
    // Under the name of another mailbox it is not.
    service.applyAccounts(named(trial, 'eve@x', 'bob@x'));
    await service.refresh('eve@x');
    assert.ok(!wasAnew());
    await service.close();
  });

  test(`${ground}: no access token goes from one account to another`, async (t) => {
    const trial = await trialOn(t, ground);
    const service = await served(trial, 'ann@x', 'bob@x');
    const [ann, bob] = [await service.get('ann@x'), await service.get('bob@x')];
    assert.notEqual(ann.reveal(), bob.reveal());
    service.applyAccounts(named(trial, 'eve@x', 'bob@x'));
    const eve = await service.get('eve@x');
    assert.ok(![ann.reveal(), bob.reveal()].includes(eve.reveal()));
    await service.close();
  });
}

test('a command that refreshes an account under a name the relay does not know yet takes nothing from it', async (t) => {
  const trial = await trialOn(t, 'file');
  const relay = await served(trial, 'old@x');
  await relay.refresh('old@x');
  for (let turn = 0; turn < 3; turn += 1) {
    trial.role = 'guest';
    const command = await served(trial, 'new@x');
    await command.refresh('new@x');
    await command.close();
    trial.role = 'owner';
    await relay.refresh('old@x');
  }
  relay.applyAccounts(named(trial, 'new@x'));
  await relay.refresh('new@x');
  assert.equal(new Set(usedTokens(trial)).size, usedTokens(trial).length);
  await relay.close();
});

test('nothing is asked on a lock that may have gone to another process, and a refusal is no verdict then', async (t) => {
  const trial = await trialOn(t, 'memory');
  let answers: readonly boolean[] = [];
  const lock = async () => {
    const left = [...answers];
    return { interrupted: undefined, isHeld: () => left.shift() ?? false, release: async () => {} };
  };
  const service = await trial.serve({ store: { ...createMemoryStore(), lock } });
  const [user = ''] = trial.users;
  await assert.rejects(service.refresh(user), { code: 'provider_fault' });
  assert.equal(trial.endpoint.count(), 0);
  // Lost while it was asked.
  answers = [true];
  trial.endpoint.revoke(user);
  await assert.rejects(service.refresh(user), { code: 'provider_fault', message: /not believed yet/ });
  await service.close();
});
