/** A lock that is a file: one holder at a time, whoever died before. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { createFileLocks } from '../../src/tokens/file-lock.ts';
import { createProcesses, formatMark } from '../../src/tokens/process-mark.ts';
import { type StateFiles, stateFiles } from '../../src/tokens/state-files.ts';
import { createTestClock } from '../support/clock.ts';
import { leakless } from '../support/leak-check.ts';
import { waitFor } from '../support/wait-for.ts';

test(
  'many find the lock of a dead holder at once: one after the other has it',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'file-lock-'));
    defer(() => rmSync(directory, { recursive: true }));
    const { own, isAlive } = createProcesses();
    const dead = formatMark({ ...own, pid: 2 ** 22 - 3 }, Date.now());
    const turn = (): Promise<void> => new Promise((resume) => setImmediate(resume));
    for (let round = 0; round < 60; round++) {
      const path = join(directory, `${round}.lock`);
      writeFileSync(path, dead, { mode: 0o600 });
      let holders = 0;
      const contend = async (pid: number): Promise<void> => {
        const processes = {
          own: { ...own, pid },
          isAlive: (mark: typeof own) => mark.pid < 100 || isAlive(mark),
        };
        const locks = createFileLocks({ files: stateFiles, clock: systemClock, processes });
        for (;;) {
          const attempt = await locks.attempt(path);
          if (!attempt.taken) {
            await turn();
            continue;
          }
          assert.equal(++holders, 1, `round ${round}`);
          for (let i = 0; i < 3; i++) await turn();
          holders--;
          await attempt.lock.release();
          return;
        }
      };
      await Promise.all(Array.from({ length: 8 }, (_, i) => contend(i + 1)));
    }
    assert.deepEqual(readdirSync(directory), []);
  }),
);

/** Locks of one process on a disk that can be made read-only. */
function ground(t: TestContext, more: Partial<StateFiles> = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'file-lock-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const clock = createTestClock();
  const disk = { isReadOnly: false };
  const files: StateFiles = { ...stateFiles };
  for (const name of ['create', 'rename', 'remove', 'touch'] as const)
    Object.assign(files, {
      [name]: async (...words: [string, string]) => {
        // That it is there is said first.
        const isThere = name === 'create' && existsSync(words[0]);
        if (disk.isReadOnly && !isThere) throw Object.assign(new Error('read-only'), { code: 'EROFS' });
        return stateFiles[name](...words);
      },
    });
  Object.assign(files, more);
  const processes = createProcesses();
  const locks = createFileLocks({ files, clock, processes });
  return { path: join(directory, 'a.lock'), clock, disk, locks, processes };
}

/** Lets file operations end that a timer began. */
const settle = (): Promise<unknown> => stateFiles.changedAt('/').then(() => new Promise(setImmediate));

async function advance(clock: ReturnType<typeof createTestClock>, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 1000) {
    clock.advance(1000);
    for (let turns = 0; turns < 5; turns++) await settle();
  }
}

for (const standsMs of [0, 20_000])
  test(`a lock that could not be removed goes once the disk can be written, ${standsMs} ms later`, async (t) => {
    const { path, clock, disk, locks } = ground(t);
    const { lock } = await taken(locks.attempt(path));
    disk.isReadOnly = true;
    await assert.rejects(lock.release(), { code: 'EROFS' });
    await advance(clock, standsMs);
    await assert.rejects(locks.attempt(path), { code: 'EROFS' }, 'the disk is the trouble, no other process');
    disk.isReadOnly = false;
    await waitFor(
      () => {
        clock.advance(1000);
        return !existsSync(path);
      },
      { what: 'the lock going' },
    );
    const second = await taken(locks.attempt(path));
    // Nothing tries to remove this one.
    await advance(clock, 3000);
    assert.ok(existsSync(path));
    await second.lock.release();
  });

test('a lock that cannot be removed for hours is tried ever more seldom, and goes within half a minute then', async (t) => {
  let looks = 0;
  const own = ground(t, {
    changedAt: (path) => {
      if (path === own.path) looks++;
      return stateFiles.changedAt(path);
    },
  });
  const { path, clock, disk, locks } = own;
  const { lock } = await taken(locks.attempt(path));
  disk.isReadOnly = true;
  await assert.rejects(lock.release(), { code: 'EROFS' });
  await advance(clock, 600_000);
  assert.ok(looks < 60, `${looks} times in ten minutes`);
  disk.isReadOnly = false;
  await advance(clock, 30_000);
  assert.equal(existsSync(path), false);
});

test('a lock that was made although it seems not goes again', async (t) => {
  let isOdd = true;
  const { path, clock, locks } = ground(t, {
    async create(file, text) {
      await stateFiles.create(file, text);
      if (!isOdd) return;
      isOdd = false;
      throw Object.assign(new Error('an answer was lost'), { code: 'EIO' });
    },
  });
  await assert.rejects(locks.attempt(path), { code: 'EIO' });
  assert.ok(existsSync(path));
  await waitFor(
    () => {
      clock.advance(1000);
      return !existsSync(path);
    },
    { what: 'the lock going' },
  );
});

test('a holder whose disk was read-only for a while gives signs of life again', async (t) => {
  const { path, clock, disk, locks } = ground(t);
  const { lock } = await taken(locks.attempt(path));
  disk.isReadOnly = true;
  await advance(clock, 20_000);
  assert.ok(!lock.isHeld());
  disk.isReadOnly = false;
  await waitFor(
    () => {
      clock.advance(1000);
      return lock.isHeld();
    },
    { what: 'a sign of life' },
  );
  await lock.release();
  assert.ok(!existsSync(path));
});

test('a holder that stood still for so long that another one elsewhere took its lock leaves it alone', async (t) => {
  const { path, clock, disk, locks, processes } = ground(t);
  const { lock } = await taken(locks.attempt(path));
  disk.isReadOnly = true;
  await advance(clock, 20_000);
  disk.isReadOnly = false;
  const theirs = formatMark({ ...processes.own, place: 'elsewhere' }, 1);
  writeFileSync(path, theirs);
  await advance(clock, 20_000);
  assert.ok(!lock.isHeld());
  await lock.release();
  await advance(clock, 3000);
  assert.equal(readFileSync(path, 'utf8'), theirs);
});

test('who stands still while he takes a lock does not believe that he has it', async (t) => {
  const { path, clock, locks, processes } = ground(t, {
    async create(file, text) {
      await stateFiles.create(file, text);
      if (!isSlow) return;
      isSlow = false;
      writeFileSync(file, theirs);
      clock.advance(16_000);
    },
  });
  let isSlow = true;
  const theirs = formatMark(processes.own, 1);
  assert.equal((await locks.attempt(path)).taken, false);
  assert.equal(readFileSync(path, 'utf8'), theirs);
});

test('a process that is another one by its beginning is not the holder, whoever it belongs to', (t) => {
  const { own, isAlive } = createProcesses();
  t.mock.method(process, 'kill', () => {
    throw Object.assign(new Error('not permitted'), { code: 'EPERM' });
  });
  assert.equal(isAlive(own), true);
  assert.equal(isAlive({ ...own, started: '' }), true, 'it cannot be told');
  if (own.started !== '') assert.equal(isAlive({ ...own, started: `${own.started}0` }), false);
});

async function taken(attempt: ReturnType<ReturnType<typeof createFileLocks>['attempt']>) {
  const result = await attempt;
  assert.ok(result.taken);
  return result;
}
