/** An operator's decision and a crash right behind the answer to it. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';

const ANN = 'ann@example.com';

test(
  'who is drained or resumed stays so, killed in the moment of the answer',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [ANN] });
    defer(() => provider.close());
    const stateDir = mkdtempSync(join(tmpdir(), 'drained-'));
    defer(() => rmSync(stateDir, { recursive: true, force: true }));
    const start = async (): Promise<RelayProcess> => {
      const relay = await startRelay({
        accounts: [provider.entry(ANN)],
        caFile: provider.caFile,
        args: ['--state-dir', stateDir],
        env: { XOAUTH2_RELAY_STATE_KEY: 'drained-test-passphrase-0123456789' },
      });
      defer(() => relay.stop());
      return relay;
    };
    const isDrained = async (relay: RelayProcess): Promise<boolean | undefined> =>
      (await relay.admin<{ drained: boolean }>(`/admin/accounts/${ANN}`)).drained;

    let relay = await start();
    for (const [action, drained] of [
      ['drain', true],
      ['resume', false],
    ] as const) {
      const answer = await fetch(`${relay.adminUrl}/admin/accounts/${ANN}/${action}`, { method: 'POST' });
      assert.equal(answer.status, 200);
      relay.signal('SIGKILL');
      await relay.exited;
      relay = await start();
      assert.equal(await isDrained(relay), drained, action);
    }
  }),
);
