/** A shared store with a directory behind it: what a command beside the relay kept there is found by the relay. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '../../src/log.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import { createTwofoldStore, SharedStoreAway } from '../../src/tokens/store-twofold.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import { idOf, rotation } from './store-suite.ts';

for (const when of ['the shared store is back', 'a refresh token was refused'] as const)
  test(`when ${when}, it is given what a command has kept in the directory meanwhile`, async (t) => {
    const path = mkdtempSync(join(tmpdir(), 'twofold-'));
    t.after(() => rmSync(path, { recursive: true }));
    const shared = createMemoryStore();
    let back = (): void => undefined;
    const twofold = (role: 'owner' | 'guest', more: Partial<TokenStore>): TokenStore =>
      createTwofoldStore(
        { ...shared, kind: 'redis', ...more },
        createFileStore(path, { log: silentLog, sealer: undefined }, { role }),
        silentLog,
      );
    const relay = twofold('owner', {
      onBack(listener) {
        back = listener;
      },
    });
    await relay.open();
    await relay.rotate(idOf('a@x'), rotation('first'));
    assert.equal((await relay.load(idOf('a@x')))?.refreshToken, 'first');
    const away = (): Promise<never> => Promise.reject(new Error('away'));
    const command = twofold('guest', { rotate: away, load: away });
    await assert.rejects(command.load(idOf('a@x')), (error: SharedStoreAway) => {
      assert.equal(error.here?.refreshToken, 'first');
      return error instanceof SharedStoreAway;
    });
    await assert.rejects(command.rotate(idOf('a@x'), rotation('second', 1)), SharedStoreAway);
    if (when === 'the shared store is back') back();
    else await relay.finish?.('grant-1');
    assert.equal((await relay.load(idOf('a@x')))?.refreshToken, 'second');
    assert.equal((await shared.load(idOf('a@x')))?.refreshToken, 'second');
    await relay.close();
  });
