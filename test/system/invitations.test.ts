/** A link to sign in, over restarts and other accounts files: it is for one mailbox, and ends with its account. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type AccountEntry, startProvider } from '../support/provider.ts';
import { startRedis } from '../support/redis.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@example.com';
const BEN = 'ben@example.com';

async function house(defer: Defer, place: 'a directory' | 'Redis' = 'a directory') {
  const provider = await startProvider({ flavour: 'microsoft', users: [ANN, BEN] });
  defer(() => provider.close());
  const stateDir = mkdtempSync(join(tmpdir(), 'invitations-'));
  defer(() => rmSync(stateDir, { recursive: true, force: true }));
  const redis = place === 'Redis' ? await startRedis() : undefined;
  if (redis !== undefined) defer(() => redis.kill());
  const args = redis === undefined ? ['--state-dir', stateDir] : ['--store', redis.url];
  let relay: RelayProcess | undefined;
  defer(() => relay?.stop());
  const run = async (accounts: readonly AccountEntry[]): Promise<RelayProcess> => {
    await relay?.stop();
    relay = await startRelay({ accounts, caFile: provider.caFile, args, until: 'listening' });
    return relay;
  };
  const headers = { connection: 'close' };
  return {
    ann: provider.entry(ANN),
    ben: provider.entry(BEN),
    run,
    isForgotten: () => redis?.command('hexists', 'xoauth2-relay:states', `invite:${ANN}`).trim() !== '1',
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

for (const place of ['a directory', 'Redis'] as const)
  for (const left of ['another one', 'none'] as const)
    for (const how of ['at the next start', 'by a reload'] as const)
      test(
        `${place}: a link is over when its account is taken out while the relay stands, with ${left} left, and put back ${how}`,
        leakless(async (_t, defer) => {
          const { ann, ben, run, invite, invited, isForgotten } = await house(defer, place);
          const others = left === 'none' ? [] : [ben];
          const is = (status: number, key: string): Promise<unknown> =>
            waitFor(async () => (await invited(relay, key)) === status, { what: String(status) });
          let relay = await run([ann, ben]);
          const key = await invite(relay);
          relay = await run([ann, ben]);
          await is(200, key);
          relay = await run(others);
          await is(410, key);
          await waitFor(isForgotten, { what: 'word of its end in Redis' });
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
