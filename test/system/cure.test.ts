/** After the cure: what stood in the way is gone, and mail goes at once instead of at the end of a pause. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { greeted, transact } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { startCli } from '../support/run-cli.ts';
import type { ScriptEntry } from '../support/smtp-script.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@example.com';
const OFF =
  '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. [X]';

interface Row {
  readonly status: string;
  readonly until: string | null;
}

/** A relay whose account has met SMTP AUTH switched off. */
async function start(
  defer: Defer,
): Promise<{ provider: Provider; relay: RelayProcess; off: ScriptEntry; status(): Promise<Row> }> {
  const provider = await startProvider({ users: [ANN], flavour: 'microsoft' });
  defer(() => provider.close());
  const off = provider.smtp.script('AUTH', { times: Number.POSITIVE_INFINITY }, { reply: OFF });
  const relay = await startRelay({
    accounts: [provider.entry(ANN)],
    caFile: provider.caFile,
  });
  defer(() => relay.stop());
  const status = async (): Promise<Row> => {
    const { accounts } = await relay.admin<{ accounts: Row[] }>('/admin/accounts');
    return accounts[0] ?? assert.fail();
  };
  await waitFor(async () => (await status()).status === 'misconfigured');
  return { provider, relay, off, status };
}

async function mail(relay: RelayProcess): Promise<{ code: number; text: string }> {
  const client = await greeted(relay.smtpPort);
  const verdict = await transact(client, { from: ANN });
  client.end();
  return { code: verdict.code, text: JSON.stringify(verdict) };
}

test(
  'a reload tries again what is not ready, though its entry is untouched',
  leakless(async (_t, defer) => {
    const { provider, relay, off, status } = await start(defer);
    const refused = await mail(relay);
    assert.equal(refused.code, 451);
    assert.match(refused.text, /tried again in \d+ s/);
    off.remove();
    const attempts = provider.smtp.connections;
    assert.equal((await mail(relay)).code, 451, 'the pause stands');
    assert.equal(provider.smtp.connections, attempts);
    assert.ok((await status()).until);
    relay.signal('SIGHUP');
    assert.equal((await relay.event('reloaded')).untouched, 1);
    await relay.event('retried');
    assert.equal((await status()).status, 'ready');
    assert.equal((await mail(relay)).code, 250);
  }),
);

test(
  'so does one that changes its entry: a new grant ends no pause by itself',
  leakless(async (_t, defer) => {
    const { provider, relay, off, status } = await start(defer);
    off.remove();
    const attempts = provider.smtp.connections;
    assert.deepEqual((await relay.reload([provider.entry(ANN, { max_connections: 2 })])).changed, [ANN]);
    await relay.event('retried');
    assert.equal((await status()).status, 'ready');
    assert.equal((await mail(relay)).code, 250);
    // One login, not one for the warm-up and another for the new try.
    assert.equal(provider.smtp.connections, attempts + 1);
  }),
);

test(
  'check tells the running relay what it proved wrong',
  leakless(async (_t, defer) => {
    const { provider, relay, off, status } = await start(defer);
    off.remove();
    const check = startCli(
      ['check', '--accounts', relay.accountsFile, '--admin-port', String(relay.adminPort)],
      { env: { NODE_EXTRA_CA_CERTS: provider.caFile }, input: '' },
    );
    const { code, stdout } = await check.exited;
    assert.equal(code, 0);
    assert.match(stdout, /the running relay tries again at once: ann@example\.com/);
    assert.equal((await status()).status, 'ready');
    assert.equal((await mail(relay)).code, 250);
  }),
);
