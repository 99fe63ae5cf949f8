/** Several accounts for one sender, of a running relay: which takes over, what leaves then, and what the operator sees. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { greeted } from '../support/dialogue.ts';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';

const ANN = 'ann@example.com';
const TEAM = 'team@example.com';
const ALERTS = 'alerts@example.com';
const CLOSED = 'closed@example.com';

test(
  'an account that takes nothing now is passed over for a less exact one, down to *; deny keeps a mailbox to itself',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ flavour: 'microsoft', users: [ANN, TEAM, ALERTS, CLOSED] });
    defer(() => provider.close());
    const relay = await startRelay({
      accounts: [
        provider.entry(ALERTS, {
          senders: ['*'],
          deny: [CLOSED],
          rewrite_sender: true,
          rewrite_from: 'foreign',
          preference: 1,
        }),
        provider.entry(TEAM, { senders: ['*@example.com'], deny: [CLOSED] }),
        provider.entry(ANN),
        provider.entry(CLOSED),
      ],
      caFile: provider.caFile,
    });
    defer(() => relay.stop());
    const client = await greeted(relay.smtpPort);
    defer(() => client.socket.destroy());
    async function send(from: string): Promise<string> {
      const mail = await client.send(`MAIL FROM:<${from}>`);
      if (mail.code !== 250) return mail.text;
      await client.expect('RCPT TO:<bob@example.net>', 250);
      await client.expect('DATA', 354);
      assert.equal((await client.body(`From: ${from}\r\nTo: bob@example.net\r\n\r\nx\r\n`)).code, 250);
      const taken = provider.messages.at(-1);
      const header = /^From: .*$/m.exec(taken?.body.toString() ?? '')?.[0].trim();
      return `${taken?.user} as ${taken?.sender}, ${header}`;
    }
    const drain = (id: string) => fetch(`${relay.adminUrl}/admin/accounts/${id}/drain`, { method: 'POST' });

    assert.equal(await send(ANN), `${ANN} as ${ANN}, From: ${ANN}`);
    await drain(ANN);
    assert.equal(await send(ANN), `${TEAM} as ${ANN}, From: ${ANN}`);
    await drain(TEAM);
    // For this account the sender is foreign: it leaves as any other would.
    assert.equal(await send(ANN), `${ALERTS} as ${ALERTS}, From: "${ANN}" <${ALERTS}>`);
    await drain(CLOSED);
    assert.match(await send(CLOSED), /^451 /);
    await drain(ALERTS);
    assert.match(await send(ANN), /^451 /);

    const { group } = await relay.admin<{ group: unknown }>(`/admin/accounts/${ANN}`);
    assert.deepEqual(group, [
      { id: TEAM, preference: 10, status: 'ready', drained: true },
      { id: ALERTS, preference: 1, status: 'ready', drained: true },
    ]);
    assert.deepEqual((await relay.admin<{ group: unknown }>(`/admin/accounts/${CLOSED}`)).group, []);
    const { transactions } = await relay.admin<{
      transactions: { account: string; chosen_by: string | null }[];
    }>('/admin/transactions');
    assert.deepEqual(transactions.map((row) => `${row.account} ${row.chosen_by}`).sort(), [
      `${ALERTS} passed_over`,
      `${ANN} exactness`,
      // What none could take.
      `${ANN} null`,
      `${CLOSED} null`,
      `${TEAM} passed_over`,
    ]);
    const metrics = await (await fetch(`${relay.adminUrl}/metrics`)).text();
    assert.match(
      metrics,
      /accounts_chosen_total\{[^}]*account="ann@example\.com"[^}]*chosen_by="exactness"[^}]*\} 1/,
    );
    assert.match(
      metrics,
      /accounts_passed_over_total\{[^}]*account="ann@example\.com"[^}]*result="none"[^}]*\} 1/,
    );
  }),
);

test(
  'what one account refuses for good waits for another that can take it and cannot now',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ flavour: 'microsoft', users: [ANN, TEAM], graph: {} });
    defer(() => provider.close());
    const relay = await startRelay({
      accounts: [
        provider.entry(ANN, { transport: 'graph', senders: [ALERTS, '<>'], preference: 1 }),
        provider.entry(TEAM, { senders: [ALERTS, '<>'] }),
      ],
      caFile: provider.caFile,
    });
    defer(() => relay.stop());
    const client = await greeted(relay.smtpPort);
    defer(() => client.socket.destroy());
    await fetch(`${relay.adminUrl}/admin/accounts/${TEAM}/drain`, { method: 'POST' });
    // Graph takes no null sender, and no demand for a report of its own.
    await client.expect('MAIL FROM:<>', '451 4.3.2');
    await client.expect(`MAIL FROM:<${ALERTS}> RET=HDRS`, '451 4.3.2');
    await fetch(`${relay.adminUrl}/admin/accounts/${TEAM}/resume`, { method: 'POST' });
    await client.expect('MAIL FROM:<>', 250);
    await client.expect('RSET', 250);
    await fetch(`${relay.adminUrl}/admin/accounts/${ANN}/drain`, { method: 'POST' });
    await client.expect('MAIL FROM:<>', 250);
  }),
);
