/** A lock that is a file: one holder at a time, whoever died before. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { createFileLocks } from '../../src/tokens/file-lock.ts';
import { createProcesses, formatMark } from '../../src/tokens/process-mark.ts';
import { stateFiles } from '../../src/tokens/state-files.ts';
import { leakless } from '../support/leak-check.ts';

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
