/** The program itself with an account that sends by Microsoft Graph, killed in the middle of a send. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { issueCertificate } from '../support/certificate.ts';
import { startConnectProxy } from '../support/connect-proxy.ts';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';
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

/** EHLO to the final reply. */
async function sendOne(port: number, sender: string, message: string): Promise<string> {
  const client = await smtpClient(port);
  try {
    await client.reply();
    await client.send('EHLO client.test');
    await client.expect(`MAIL FROM:<${sender}>`, 250);
    await client.expect(`RCPT TO:<${BOB}>`, 250);
    await client.expect('DATA', 354);
    return (await client.body(message)).text;
  } finally {
    client.end();
  }
}

test(
  'graph_permissions send: an unclear message is listed, a person decides, the next retry hears so',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ flavour: 'microsoft', users: [ANN], graph: {} });
    defer(() => provider.close());
    const state = mkdtempSync(join(tmpdir(), 'graph-state-'));
    defer(() => rmSync(state, { recursive: true }));
    const start = async () => {
      const relay = await startRelay({
        accounts: [provider.entry(ANN, { transport: 'graph', graph_permissions: 'send' })],
        caFile: provider.caFile,
        args: ['--state-dir', state],
      });
      defer(() => relay.stop());
      return relay;
    };
    const other = MESSAGE.replace('killed', 'not-sent');
    const first = await start();
    provider.graph.fault('send_mail', { carriedOut: true, answer: { status: 504 } });
    provider.graph.fault('send_mail', { answer: 'reset' });
    assert.match(await sendOne(first.smtpPort, ANN, MESSAGE), /^451.4\.4\.2 delivery status unknown/);
    assert.match(await sendOne(first.smtpPort, ANN, other), /^451.4\.4\.2 delivery status unknown/);
    assert.match(first.output(), /"event":"graph_unclear"/);
    await first.stop();
    const relay = await start();
    const cli = (...args: string[]) => runCli(['unclear', ...args, '--admin-port', String(relay.adminPort)]);
    const listed = await cli('list', '--json');
    assert.equal(listed.code, 1, 'somebody is needed');
    const { messages } = JSON.parse(listed.stdout) as { messages: { key: string; message_id: string }[] };
    const keyOf = (id: string): string => messages.find((m) => m.message_id === id)?.key ?? '';
    assert.match((await cli('list')).stdout, /<killed@client\.test>.*a person.*504/);
    assert.equal((await cli('delivered', keyOf('<killed@client.test>'))).code, 0);
    assert.equal((await cli('again', keyOf('<not-sent@client.test>'))).code, 0);
    const none = await cli('again', 'x'.repeat(32));
    assert.deepEqual([none.code, /no such unclear message/.test(none.stderr)], [1, true]);
    const empty = await cli('list');
    assert.deepEqual([empty.code, empty.stdout], [0, 'none\n']);
    assert.match(await sendOne(relay.smtpPort, ANN, MESSAGE), /^250/);
    assert.match(await sendOne(relay.smtpPort, ANN, other), /^250/);
    assert.deepEqual(
      provider.graph.delivered.map((d) => d.messageId),
      ['<killed@client.test>', '<not-sent@client.test>'],
      'each once',
    );
  }),
);

const TENANT_APP = {
  transport: 'graph',
  grant: 'client_credentials',
  tenant: 'example.com',
  refresh_token: undefined,
};

test(
  'an application sends with its secret and another with its certificate, each as its mailbox',
  leakless(async (_t, defer) => {
    const { certPem, keyPem } = issueCertificate({ key: 'rsa' });
    const provider = await startProvider({ flavour: 'microsoft', users: [ANN], graph: {} });
    defer(() => provider.close());
    const eve = 'eve@example.com';
    provider.add(eve, { clientId: 'certified-app', publicKeyPem: certPem });
    const relay = await startRelay({
      accounts: [
        provider.entry(ANN, TENANT_APP),
        provider.entry(eve, {
          ...TENANT_APP,
          client_secret: undefined,
          certificate: certPem,
          private_key: keyPem,
        }),
      ],
      caFile: provider.caFile,
    });
    defer(() => relay.stop());
    assert.match(await sendOne(relay.smtpPort, ANN, MESSAGE), /^250.*\[graph\]/);
    const fromEve = MESSAGE.replace('killed', 'certified').replace(ANN, eve);
    assert.match(await sendOne(relay.smtpPort, eve, fromEve), /^250.*\[graph\]/);
    assert.deepEqual(
      provider.graph.delivered.map((d) => [d.mailbox, d.messageId]),
      [
        [ANN, '<killed@client.test>'],
        [eve, '<certified@client.test>'],
      ],
    );
    assert.deepEqual(
      provider.graph.requests.map((r) => r.url.split('/').slice(2, 4).join('/')),
      [ANN, ANN, eve, eve].map((user) => `users/${encodeURIComponent(user)}`),
      'an application has no "me"',
    );
    const asked = provider.token.requests.filter((r) => r.status === 200);
    assert.deepEqual(
      asked.map((r) => [r.grant, r.form.get('scope')]),
      Array(2).fill(['client_credentials', 'https://graph.microsoft.com/.default']),
    );
    const [bySecret, byCertificate] = [ANN, eve].map((user) => asked.find((r) => r.user === user)?.form);
    assert.ok(bySecret?.get('client_secret') && !bySecret.get('client_assertion'));
    assert.ok(byCertificate?.get('client_assertion') && !byCertificate.get('client_secret'));
    assert.equal(provider.smtp.connections, 0);
  }),
);

for (const permissions of ['read_write', 'send'])
  test(
    `${permissions} through HTTPS_PROXY: Graph by CONNECT, and a proxy that refuses is told as such`,
    leakless(async (_t, defer) => {
      const provider = await startProvider({ flavour: 'microsoft', users: [ANN], graph: { tls: true } });
      defer(() => provider.close());
      const proxy = await startConnectProxy();
      defer(() => proxy.close());
      const relay = await startRelay({
        accounts: [provider.entry(ANN, { transport: 'graph', graph_permissions: permissions })],
        caFile: provider.caFile,
        env: { HTTPS_PROXY: proxy.url, NO_PROXY: '' },
      });
      defer(() => relay.stop());
      assert.match(await sendOne(relay.smtpPort, ANN, MESSAGE), /^250.*\[graph\]/);
      const graph = new URL(provider.graph.url).host;
      assert.ok(proxy.connects.includes(graph), `CONNECT ${graph} in ${proxy.connects.join(' ')}`);
      assert.equal(provider.graph.delivered.length, 1);
      proxy.refuse = true;
      proxy.cut();
      assert.match(
        await sendOne(relay.smtpPort, ANN, MESSAGE.replace('killed', 'refused')),
        new RegExp(`^451.4\\.4\\.1 .*proxy ${proxy.url} answered HTTP 403`),
        'nothing was sent, so nothing is unclear',
      );
      assert.equal(provider.graph.delivered.length, 1);
    }),
  );

test(
  'told to stop while Graph is silent about drafts that were left over: they wait for the next start',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ flavour: 'microsoft', users: [ANN], graph: {} });
    defer(() => provider.close());
    const relay = await startRelay({
      accounts: [provider.entry(ANN, { transport: 'graph' })],
      caFile: provider.caFile,
    });
    defer(() => relay.stop());
    provider.graph.fault('create', { carriedOut: true, answer: { status: 429, retryAfter: '0' } });
    provider.graph.fault('search', { answer: 'silence' }, 9);
    const client = await smtpClient(relay.smtpPort);
    defer(() => client.end());
    await client.reply();
    for (const line of ['EHLO c', `MAIL FROM:<${ANN}>`, `RCPT TO:<${BOB}>`]) await client.send(line);
    await client.expect('DATA', 354);
    assert.equal((await client.body(MESSAGE)).code, 250);
    await waitFor(() => provider.graph.count('search') > 0, { what: 'the left-over draft being looked for' });
    // It kills what has not ended within ten seconds.
    assert.deepEqual(await relay.stop(), { code: 0, signal: null });
    assert.equal(provider.graph.drafts.length, 1);
  }),
);
