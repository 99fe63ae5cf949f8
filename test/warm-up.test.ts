import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AccountStatus } from '../src/accounts/account.ts';
import { createAppWarmUp } from '../src/app-warm-up.ts';
import { silentLog } from '../src/log.ts';
import type { TokenService } from '../src/tokens/token-service.ts';
import type { AccountWays } from '../src/upstream/ways.ts';

/** A warm-up over accounts of which `stateOf` tells the token's state; retries end when `end` is called. */
function setUp(stateOf: (id: string) => AccountStatus) {
  const asked: string[] = [];
  const ends: (() => void)[] = [];
  const warmUp = createAppWarmUp(
    {
      tokens: { stateOf: (id) => ({ status: stateOf(id) }) } as Pick<TokenService, 'stateOf'> as TokenService,
      ways: { status: () => ({ state: { status: 'ready' } }) } as unknown as AccountWays,
      log: silentLog,
      backend: {
        async retry(id) {
          asked.push(id);
          await new Promise<void>((end) => ends.push(end));
        },
        readiness: async () => ({ usable: 0 }),
      },
      isStopping: () => false,
      changed: () => {},
    },
    { precache: true },
  );
  return { warmUp, asked, ends };
}

const turns = async (): Promise<void> => {
  for (let i = 0; i < 100; i++) await new Promise((resume) => setImmediate(resume));
};

test('after an outage a reload tries thousands again, but not all at once', async () => {
  const { warmUp, asked, ends } = setUp(() => 'unreachable');
  const untouched = Array.from({ length: 500 }, (_, i) => `a${i}@example.com`);
  warmUp.reloaded({ added: [], changed: [], untouched });
  await turns();
  assert(asked.length > 0 && asked.length <= 100, `${asked.length} at once`);
  while (ends.length > 0) {
    for (const end of ends.splice(0)) end();
    await turns();
  }
  assert.deepEqual(asked, untouched);
});

test('an account that nobody has asked for yet is not tried again', async () => {
  const { warmUp, asked } = setUp((id) => (id === 'ill' ? 'needs_consent' : 'refreshing'));
  warmUp.reloaded({ added: [], changed: [], untouched: ['new', 'ill', 'asked'] });
  await turns();
  assert.deepEqual(asked, ['ill']);
});
