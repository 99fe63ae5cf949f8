/** A message of which nobody knows whether Graph sent it, and which no retry will clear: a person hears of it, once. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { smtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@example.com';
const BEA = 'bea@example.com';
const BOB = 'bob@example.net';

interface Heard {
  readonly event: string;
  readonly text: string;
  readonly accounts: readonly { readonly id: string }[];
  readonly messages: readonly { readonly key: string; readonly message_id: string }[];
}

/** What a webhook is told. */
async function webhook(defer: Defer): Promise<{ readonly env: Record<string, string>; heard: Heard[] }> {
  const heard: Heard[] = [];
  const server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on('data', (piece: Buffer) => pieces.push(piece));
    request.on('end', () => {
      heard.push(JSON.parse(Buffer.concat(pieces).toString()) as Heard);
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  defer(() => new Promise((resolve) => server.close(resolve)));
  const { port } = server.address() as AddressInfo;
  return { env: { XOAUTH2_RELAY_ALERT_WEBHOOK: `http://127.0.0.1:${port}/alerts` }, heard };
}

async function send(relay: RelayProcess, from: string, id: string): Promise<string> {
  const client = await smtpClient(relay.smtpPort);
  try {
    await client.expect(undefined, 220);
    await client.expect('EHLO client.test', 250);
    await client.expect(`MAIL FROM:<${from}>`, 250);
    await client.expect(`RCPT TO:<${BOB}>`, 250);
    await client.expect('DATA', 354);
    const header = `Message-ID: <${id}@client.test>\r\nFrom: ${from}\r\nTo: ${BOB}\r\nSubject: ${id}\r\n`;
    return (await client.body(`${header}\r\nbody\r\n`)).text;
  } finally {
    client.end();
  }
}

test(
  'one call without a clear answer, and a draft whose account is off Graph: alert, count and log name each once',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ flavour: 'microsoft', users: [ANN, BEA], graph: {} });
    defer(() => provider.close());
    const state = mkdtempSync(join(tmpdir(), 'graph-alert-'));
    defer(() => rmSync(state, { recursive: true }));
    const { env, heard } = await webhook(defer);
    const ann = provider.entry(ANN, { transport: 'graph', graph_permissions: 'send' });
    const start = async (): Promise<RelayProcess> => {
      const relay = await startRelay({
        accounts: [ann, provider.entry(BEA, { transport: 'graph' })],
        caFile: provider.caFile,
        args: ['--state-dir', state],
        env,
      });
      defer(() => relay.stop());
      return relay;
    };
    const first = await start();
    provider.graph.fault('send_mail', { carriedOut: true, answer: { status: 504 } });
    assert.match(await send(first, ANN, 'one'), /^451.4\.4\.2 delivery status unknown/);
    await waitFor(() => heard.length === 1, { what: 'the alert' });
    assert.equal(heard[0]?.event, 'unclear');
    assert.deepEqual(heard[0]?.accounts, [{ id: ANN, email: ANN }]);
    assert.match(heard[0]?.text ?? '', /nobody knows whether.*ann@example\.com.*504.*unclear list/);
    assert.match(await send(first, ANN, 'one'), /^451/);
    const { messages } = await first.admin<{ messages: { key: string }[] }>('/admin/unclear');
    assert.deepEqual(
      messages.map(({ key }) => key),
      heard[0]?.messages.map(({ key }) => key),
    );
    const metrics = await (await fetch(`${first.adminUrl}/metrics`)).text();
    assert.match(metrics, /^xoauth2_relay_unclear_messages_total 1$/m);
    await first.stop();
    const next = await start();
    assert.match(await send(next, ANN, 'one'), /^451/);

    provider.graph.fault('send', { carriedOut: true, answer: 'reset' });
    provider.graph.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
    assert.match(await send(next, BEA, 'two'), /^451.4\.4\.2 delivery status unknown/);
    assert.equal((await next.reload([ann, provider.entry(BEA)])).event, 'reloaded');
    assert.match(await send(next, BEA, 'two'), /^451.*does not deliver by Graph now/);
    await waitFor(() => heard.length === 2, { what: 'the second alert' });
    // The retry of the first, after a restart, and what a retry was to clear brought none.
    assert.deepEqual(
      heard.map((alert) => alert.messages.map((m) => m.message_id)),
      [['<one@client.test>'], ['<two@client.test>']],
    );
  }),
);
