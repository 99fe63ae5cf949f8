/** A link to sign in, over restarts and other accounts files: it is for one mailbox, and ends with its account. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type AccountEntry, startProvider } from '../support/provider.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';

const ANN = 'ann@example.com';
const BEN = 'ben@example.com';

async function house(defer: Defer) {
  const provider = await startProvider({ flavour: 'microsoft', users: [ANN, BEN] });
  defer(() => provider.close());
  const stateDir = mkdtempSync(join(tmpdir(), 'invitations-'));
  defer(() => rmSync(stateDir, { recursive: true, force: true }));
  let relay: RelayProcess | undefined;
  defer(() => relay?.stop());
  const run = async (accounts: readonly AccountEntry[]): Promise<RelayProcess> => {
    await relay?.stop();
    relay = await startRelay({ accounts, caFile: provider.caFile, args: ['--state-dir', stateDir] });
    return relay;
  };
  const headers = { connection: 'close' };
  return {
    ann: provider.entry(ANN),
    ben: provider.entry(BEN),
    run,
    async invite({ adminUrl }: RelayProcess): Promise<string> {
      const answer = await fetch(`${adminUrl}/admin/accounts/${ANN}/invite`, { method: 'POST', headers });
      return ((await answer.json()) as { readonly key: string }).key;
    },
    async invited({ adminUrl }: RelayProcess, key: string): Promise<number> {
      const answer = await fetch(`${adminUrl}/sign-in/invited`, {
        headers: { ...headers, 'x-invite-key': key },
      });
      await answer.text();
      return answer.status;
    },
  };
}

for (const how of ['at the next start', 'by a reload'] as const)
  test(
    `a link is over when its account is taken out while the relay stands, and put back ${how}`,
    leakless(async (_t, defer) => {
      const { ann, ben, run, invite, invited } = await house(defer);
      let relay = await run([ann, ben]);
      const key = await invite(relay);
      relay = await run([ann, ben]);
      assert.equal(await invited(relay, key), 200, 'over a restart it is good');
      relay = await run([ben]);
      assert.equal(await invited(relay, key), 410);
      if (how === 'by a reload') await relay.reload([ann, ben]);
      else relay = await run([ann, ben]);
      assert.equal(await invited(relay, key), 410);
    }),
  );

test(
  'a link is good for the mailbox it was made for, whatever the account becomes',
  leakless(async (_t, defer) => {
    const { ann, ben, run, invite, invited } = await house(defer);
    const relay = await run([ann, ben]);
    const key = await invite(relay);
    await relay.reload([{ ...ann, user: BEN }, ben]);
    assert.equal(await invited(relay, key), 410);
    await relay.reload([{ ...ann, user: ANN.toUpperCase() }, ben]);
    assert.equal(await invited(relay, key), 200);
  }),
);
