/** The program itself with an account that sends by Microsoft Graph, killed in the middle of a send. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { smtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@example.com';
const BOB = 'bob@example.net';
const MESSAGE = `Message-ID: <killed@client.test>\r\nFrom: ${ANN}\r\nTo: ${BOB}\r\nSubject: s\r\n\r\nbody\r\n`;

test(
  'killed after Graph took the message and before it said so: the retry hears 250, it was sent once',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ flavour: 'microsoft', users: [ANN], graph: {} });
    defer(() => provider.close());
    const state = mkdtempSync(join(tmpdir(), 'graph-state-'));
    defer(() => rmSync(state, { recursive: true }));
    const start = async () => {
      const relay = await startRelay({
        accounts: [provider.entry(ANN, { transport: 'graph' })],
        caFile: provider.caFile,
        args: ['--state-dir', state],
      });
      defer(() => relay.stop());
      return relay;
    };
    const handOver = async (port: number) => {
      const client = await smtpClient(port);
      defer(() => client.end());
      await client.reply();
      const ehlo = await client.send('EHLO client.test');
      assert.match(JSON.stringify(ehlo), /SIZE 3000000/);
      await client.expect(`MAIL FROM:<${ANN}>`, 250);
      await client.expect(`RCPT TO:<${BOB}>`, 250);
      await client.expect('DATA', 354);
      return client;
    };
    provider.graph.fault('send', { carriedOut: true, answer: 'silence' });
    const first = await start();
    const cut = await handOver(first.smtpPort);
    const lost = cut.body(MESSAGE).catch(() => undefined);
    await waitFor(() => provider.graph.delivered.length === 1, { what: 'Graph having the message' });
    first.signal('SIGKILL');
    await first.exited;
    await lost;

    const second = await start();
    const client = await handOver(second.smtpPort);
    const reply = await client.body(MESSAGE);
    assert.match(JSON.stringify(reply), /250.*OK <killed@client\.test> \[graph\]/);
    assert.equal(provider.graph.delivered.length, 1);
    assert.equal(provider.graph.count('create'), 1);
    const { accounts } = await second.admin<{ accounts: Record<string, unknown>[] }>('/admin/accounts');
    assert.deepEqual(
      [accounts[0]?.transport, accounts[0]?.way, accounts[0]?.status],
      ['graph', 'graph', 'ready'],
    );
    assert.match(JSON.stringify(accounts[0]?.tokens), /"resource":"graph"/);
    const metrics = await (await fetch(`${second.adminUrl}/metrics`)).text();
    assert.match(metrics, /xoauth2_relay_graph_requests_total\{call="look",outcome="200"\} 1/);
    assert.match(metrics, /xoauth2_relay_messages_by_way_total\{way="graph",outcome="relayed"\} 1/);
    for (const token of provider.token.issuedTokens())
      assert.ok(!(first.output() + second.output() + metrics).includes(token), 'no token is told');
  }),
);
