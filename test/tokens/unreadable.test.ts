/**
 * A single file that cannot be read: of another user, under another key, on a bad disk. Nothing is asked with an earlier
 * refresh token than the one it may hold, and nobody else is held up. The endpoint revokes a refresh token when it gives the
 * next.
 */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import type { TokenError } from '../../src/tokens/access-token.ts';
import { createSealer } from '../../src/tokens/sealing.ts';
import { StateFileRefused, stateFiles } from '../../src/tokens/state-files.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import type { AccountCredential, TokenService } from '../../src/tokens/token-service.ts';
import { startTrial, type Trial } from '../support/token-trial.ts';
import { idOf } from './store-suite.ts';
import { account, createTestLog } from './support.ts';

const OLD = 'first passphrase of the relay, old';
const NEW = 'another passphrase altogether, new';
const WAYS = ['of another user', 'under another key', 'on a bad disk'] as const;

/** The cure names the file, and what is to be done with it. */
const foreign = (path: string): StateFileRefused =>
  new StateFileRefused(`${path} belongs to another user (uid 4711): chown`, 'STATE_FILE_FOREIGN');

const CURES: Readonly<Record<(typeof WAYS)[number], RegExp>> = {
  'of another user': /\.grant belongs to another user .*chown/,
  'under another key': /state_key/,
  'on a bad disk': /\.grant readable for the relay \(EIO\)/,
};

interface Room extends Trial {
  /** From the next run on the file of the account cannot be read; undefined: all can be. */
  hide(accountId: string | undefined): Promise<void>;
  readonly log: ReturnType<typeof createTestLog>;
  run(...ids: readonly string[]): Promise<TokenService>;
}

async function roomFor(t: TestContext, way: (typeof WAYS)[number]): Promise<Room> {
  const directory = await mkdtemp(join(tmpdir(), 'unreadable-'));
  const keys = (...texts: string[]) => createSealer(new Secret(texts.join('\n')));
  let sealer = keys(OLD);
  let hidden: string | undefined;
  const read: typeof stateFiles.read = (path, octets) => {
    if (hidden === undefined || !basename(path).startsWith(`${hidden}-`) || !path.endsWith('.grant'))
      return stateFiles.read(path, octets);
    if (way === 'of another user') throw foreign(path);
    throw Object.assign(new Error('i/o error'), { code: 'EIO' });
  };
  const trial = await startTrial(4, (log) =>
    createFileStore(directory, { log, sealer, files: { ...stateFiles, read: async (...of) => read(...of) } }),
  );
  t.after(async () => {
    await trial.close();
    await rm(directory, { recursive: true, force: true });
  });
  const log = createTestLog();
  return Object.assign(trial, {
    log,
    async hide(accountId: string | undefined) {
      if (way !== 'under another key') {
        hidden = accountId;
        return;
      }
      sealer = keys(NEW, OLD);
      const store = trial.openStore(log);
      await store.open();
      const names = (await readdir(directory)).filter((name) => name.endsWith('.grant'));
      const others = names.map((name) => name.replace(/-[0-9a-f]{16}\.grant$/, ''));
      for (const other of others) if (other !== accountId) await store.load(idOf(other));
      await store.close();
      if (accountId !== undefined) sealer = keys(NEW);
    },
    async run(...ids: readonly string[]) {
      const service = await trial.serve({ log });
      service.applyAccounts([...trial.entries.slice(1), ...named(trial, ...ids)]);
      return service;
    },
  });
}

/** Accounts with one and the same entry of the accounts file. */
const named = (trial: Trial, ...ids: readonly string[]): AccountCredential[] =>
  ids.map((id) => ({ account: account(id), credential: trial.entries[0]?.credential ?? assert.fail() }));

async function assertWaits(room: Room, service: TokenService, id: string, cure: RegExp): Promise<void> {
  const { length } = room.endpoint.requests;
  const error = await service.refresh(id).then(
    () => assert.fail(`${id} was refreshed`),
    (failure: TokenError) => failure,
  );
  assert.equal(error.code, 'provider_fault');
  assert.match(error.cure ?? '', cure);
  assert.equal(room.endpoint.requests.length, length);
}

for (const way of WAYS) {
  test(`the file ${way} is no word about the other accounts, and names itself and its cure`, async (t) => {
    const room = await roomFor(t, way);
    const [, second = '', third = ''] = room.users;
    let service = await room.run('first@x');
    for (const id of ['first@x', second, third]) await service.refresh(id);
    await service.close();
    await room.hide('first@x');
    room.endpoint.revoke(second);
    service = await room.run('first@x');
    if (way === 'on a bad disk') await assert.rejects(service.refresh('first@x'), { code: 'provider_fault' });
    else {
      await assertWaits(room, service, 'first@x', CURES[way]);
      await assert.rejects(service.refresh(second), { code: 'needs_consent' });
    }
    await service.refresh(third);
    const told = room.log.lines.map(({ fields }) => fields.event);
    if (way !== 'on a bad disk') assert.ok(!told.includes('token_store_failed'), String(told));
    const warned = room.log.lines.find(
      ({ level, fields }) => level === 'warn' && fields.account === 'first@x' && fields.cure !== undefined,
    );
    if (way !== 'on a bad disk') assert.match(String(warned?.fields.cure), CURES[way]);
    await service.close();
  });

  test(`a renamed account asks for nothing while its file ${way} may hold the newest refresh token`, async (t) => {
    const room = await roomFor(t, way);
    const [, second = '', third = '', fourth = ''] = room.users;
    let service = await room.run('first@x');
    for (const id of ['first@x', second, third]) await service.refresh(id);
    await service.close();
    await room.hide('first@x');
    service = await room.run('renamed@x');
    await assertWaits(room, service, 'renamed@x', CURES[way]);
    // Nor does one of which nothing is there yet; it may be the renamed one.
    await assertWaits(room, service, fourth, CURES[way]);
    for (const id of [second, third]) await service.refresh(id);
    if (way === 'under another key') {
      await service.close();
      await room.hide(undefined);
      service = await room.run('renamed@x');
    } else await room.hide(undefined);
    for (const id of ['renamed@x', fourth]) await service.refresh(id);
    assert.ok(room.endpoint.requests.every(({ status }) => status === 200));
    await service.close();
  });

  test(`of two accounts with one consent the one asks for nothing while the file of the other is ${way}`, async (t) => {
    const room = await roomFor(t, way);
    const [, second = '', third = ''] = room.users;
    let service = await room.run('first@x', 'twin@x');
    for (const id of ['twin@x', 'first@x', second, third]) await service.refresh(id);
    await service.close();
    await room.hide('first@x');
    service = await room.run('first@x', 'twin@x');
    await assertWaits(room, service, 'twin@x', CURES[way]);
    await service.close();
    await room.hide(undefined);
    service = await room.run('first@x', 'twin@x');
    await service.refresh('twin@x');
    assert.ok(room.endpoint.requests.every(({ status }) => status === 200));
    await service.close();
  });
}

/** The newest refresh token of the account stands beside its file only, as a process leaves it that is killed. */
async function leaveHalf(directory: string, accountId: string, older: string): Promise<void> {
  const path = await fileOf(directory, accountId);
  await rename(path, `${path}.4711.3.tmp`);
  await writeFile(path, older, { mode: 0o600 });
}

const fileOf = async (directory: string, accountId: string): Promise<string> => {
  const names = await readdir(directory);
  return join(directory, names.find((name) => name.startsWith(accountId) && name.endsWith('.grant')) ?? '');
};

for (const when of ['at the start', 'while it runs'] as const)
  test(`${when}: what was left beside the file of an account serves it also where it cannot be put in its place`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'unreadable-'));
    const log = createTestLog();
    const trial = await startTrial(2, () => createFileStore(directory, { log, sealer: undefined }));
    t.after(async () => {
      await trial.close();
      await rm(directory, { recursive: true, force: true });
    });
    const { endpoint, users } = trial;
    const [first = ''] = users;
    let service = await trial.serve();
    for (const user of users) await service.refresh(user);
    const older = await readFile(await fileOf(directory, first), 'utf8');
    await service.refresh(first);
    await service.close();
    await mkdir(`${await fileOf(directory, first)}.lock`);
    if (when === 'at the start') await leaveHalf(directory, first, older);
    service = await trial.serve({ log });
    if (when !== 'at the start') await leaveHalf(directory, first, older);
    for (let i = 0; i < 2; i++) for (const user of users) await service.refresh(user);
    await service.close();
    service = await trial.serve();
    for (const user of users) await service.refresh(user);
    await service.close();
    assert.ok(endpoint.requests.every(({ status }) => status === 200));
  });

/** So many accounts over a directory whose files are read by `read`. */
async function trialOver(
  t: TestContext,
  accounts: number,
  read: typeof stateFiles.read,
): Promise<{ readonly trial: Trial; readonly directory: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'unreadable-'));
  const files = { ...stateFiles, read };
  const trial = await startTrial(accounts, (log) =>
    createFileStore(directory, { log, sealer: undefined, files }),
  );
  t.after(async () => {
    await trial.close();
    await rm(directory, { recursive: true, force: true });
  });
  return { trial, directory };
}

for (const isServed of [true, false])
  test(`what was left half written under another name of the consent, which is ${isServed ? '' : 'not '}served, is not passed over`, async (t) => {
    let isForeign = true;
    const read: typeof stateFiles.read = async (path, octets) => {
      if (isForeign && path.endsWith('.4711.3.tmp')) throw foreign(path);
      return stateFiles.read(path, octets);
    };
    const { trial, directory } = await trialOver(t, 1, read);
    const serve = async (...ids: string[]): Promise<TokenService> => {
      const service = await trial.serve();
      service.applyAccounts(named(trial, ...ids));
      return service;
    };
    let service = await serve('first@x');
    await service.refresh('first@x');
    await service.close();
    const file = await fileOf(directory, 'first@x');
    await rename(file, `${file}.4711.3.tmp`);
    await mkdir(`${file}.lock`);
    service = await (isServed ? serve('first@x', 'twin@x') : serve('twin@x'));
    await assert.rejects(service.refresh('twin@x'), (error: TokenError) => {
      assert.equal(error.code, 'provider_fault');
      assert.match(error.cure ?? '', /\.tmp belongs to another user .*chown/);
      return true;
    });
    isForeign = false;
    await service.refresh('twin@x');
    assert.deepEqual(
      trial.endpoint.requests.map(({ status }) => status),
      [200, 200],
    );
    await service.close();
  });

test('of a consent that hundreds of files have some are read at once, not all', async (t) => {
  let now = 0;
  let most = 0;
  const read: typeof stateFiles.read = async (path, octets) => {
    most = Math.max(most, ++now);
    return stateFiles.read(path, octets).finally(() => now--);
  };
  const { trial } = await trialOver(t, 1, read);
  const ids = Array.from({ length: 200 }, (_, i) => `u${i}@x`);
  let service = await trial.serve();
  service.applyAccounts(named(trial, ...ids));
  for (const id of ids) await service.refresh(id);
  await service.close();
  most = 0;
  service = await trial.serve();
  service.applyAccounts(named(trial, 'new@x'));
  await service.refresh('new@x');
  assert.ok(most > 1 && most <= 16, `${most} at once`);
  await service.close();
});

test('what was left half written of a served account that has no file yet is no word about the others', async (t) => {
  const read: typeof stateFiles.read = async (path, octets) => {
    if (path.endsWith('.4711.3.tmp')) throw foreign(path);
    return stateFiles.read(path, octets);
  };
  const { trial, directory } = await trialOver(t, 2, read);
  const [, other = ''] = trial.users;
  const serve = async (): Promise<TokenService> => {
    const service = await trial.serve();
    service.applyAccounts([...trial.entries.slice(1), ...named(trial, 'first@x')]);
    return service;
  };
  let service = await serve();
  await service.refresh('first@x');
  await service.close();
  const file = await fileOf(directory, 'first@x');
  await rename(file, `${file}.4711.3.tmp`);
  service = await serve();
  await service.refresh(other);
  await assert.rejects(service.refresh('first@x'), { code: 'provider_fault' });
  await service.close();
});

for (const [way, cure] of [
  ['of another user', /\.tmp belongs to another user .*chown/],
  ['on a bad disk', /\.tmp readable for the relay \(EIO\)/],
] as const)
  test(`what was left half written is ${way}: its account asks for nothing, and goes on with it when it can be read`, async (t) => {
    let isHidden = true;
    const read: typeof stateFiles.read = async (path, octets) => {
      if (!isHidden || !path.endsWith('.4711.3.tmp')) return stateFiles.read(path, octets);
      if (way === 'on a bad disk') throw Object.assign(new Error('i/o error'), { code: 'EIO' });
      throw foreign(path);
    };
    const { trial, directory } = await trialOver(t, 2, read);
    const [first = '', second = ''] = trial.users;
    let service = await trial.serve();
    for (const user of trial.users) await service.refresh(user);
    const older = await readFile(await fileOf(directory, first), 'utf8');
    await service.refresh(first);
    await service.close();
    await leaveHalf(directory, first, older);
    service = await trial.serve();
    await assert.rejects(service.refresh(first), (error: TokenError) => {
      assert.equal(error.code, 'provider_fault');
      assert.match(error.cure ?? '', cure);
      return true;
    });
    await service.refresh(second);
    isHidden = false;
    await service.refresh(first);
    await service.close();
    assert.ok(trial.endpoint.requests.every(({ status }) => status === 200));
  });
