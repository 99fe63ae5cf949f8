/**
 * The program itself against a hostile Graph and a hostile operator: killed while a request of each kind is
 * under way, told to wait for an hour, read slowly, its token refused between draft and send. Every message
 * is delivered once or waits.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { GraphFault } from '../support/graph-server.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { smtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';

const BOB = 'bob@example.net';
const SILENT: GraphFault = { answer: 'silence' };
const DONE_SILENT: GraphFault = { answer: 'silence', carriedOut: true };
const LOST: GraphFault = { answer: 'reset' };
const DONE_LOST: GraphFault = { answer: 'reset', carriedOut: true };

/** By mailbox: the call that hangs while the relay is killed, and what comes before it. */
const HANGS: Readonly<Record<string, Readonly<Record<string, GraphFault>>>> = {
  'create-done': { create: DONE_SILENT },
  'create-not': { create: SILENT },
  'send-done': { send: DONE_SILENT },
  'send-not': { send: SILENT },
  'look-done': { send: DONE_LOST, look: SILENT },
  'look-not': { send: LOST, look: SILENT },
  'one-done': { send_mail: DONE_SILENT },
  'one-not': { send_mail: SILENT },
};
const address = (name: string): string => `${name}@example.com`;
const message = (from: string, id = from, more = ''): string =>
  `Message-ID: <${id}>\r\nFrom: ${from}\r\nTo: ${BOB}\r\nSubject: s\r\n\r\nbody of ${id}\r\n${more}`;

/** The reply to MAIL where it is refused, else the final one. */
async function send(port: number, from: string, text = message(from)): Promise<string> {
  const client = await smtpClient(port);
  try {
    await client.reply();
    await client.send('EHLO client.test');
    const mail = await client.send(`MAIL FROM:<${from}>`);
    if (mail.code !== 250) return mail.text;
    await client.expect(`RCPT TO:<${BOB}>`, 250);
    await client.expect('DATA', 354);
    return (await client.body(text)).text;
  } finally {
    client.end();
  }
}

async function setUp(defer: Defer, names: readonly string[]) {
  const provider = await startProvider({ flavour: 'microsoft', users: names.map(address), graph: {} });
  defer(() => provider.close());
  const state = mkdtempSync(join(tmpdir(), 'graph-attacks-'));
  defer(() => rmSync(state, { recursive: true }));
  const start = async () => {
    const relay = await startRelay({
      accounts: names.map((name) =>
        provider.entry(address(name), {
          transport: 'graph',
          ...(name.startsWith('one') ? { graph_permissions: 'send' } : {}),
        }),
      ),
      caFile: provider.caFile,
      args: ['--state-dir', state],
    });
    defer(() => relay.stop());
    return relay;
  };
  const copies = (id: string): number =>
    provider.graph.delivered.filter((d) => d.messageId === `<${id}>`).length;
  return { graph: provider.graph, start, copies };
}

test(
  'killed while each call hangs: every retry after the restart ends in one copy, in one call in none more',
  leakless(async (t, defer) => {
    const names = Object.keys(HANGS);
    const { graph, start, copies } = await setUp(defer, names);
    const hung = new Set<string>();
    graph.rules.chaos = (call, mailbox) => {
      const name = mailbox.replace('@example.com', '');
      const fault = HANGS[name]?.[call];
      if (fault?.answer === 'silence') hung.add(name);
      return fault;
    };
    const first = await start();
    const cut = names.map((name) => send(first.smtpPort, address(name)).catch(() => 'cut'));
    await waitFor(() => hung.size === names.length, { what: 'a hanging call of each kind' });
    first.signal('SIGKILL');
    await first.exited;
    assert.deepEqual(new Set(await Promise.all(cut)), new Set(['cut']));
    graph.rules.chaos = undefined;
    const relay = await start();
    const replies = await Promise.all(
      names.map(async (name) => {
        let heard = '';
        for (let tries = 0; tries < 3 && !heard.startsWith('250'); tries++)
          heard = await send(relay.smtpPort, address(name));
        return heard;
      }),
    );
    const ended = names.map((name, i) => `${name} ${replies[i]?.slice(0, 3)} ${copies(address(name))}`);
    t.diagnostic(`${ended.join(', ')}; ${graph.drafts.length} drafts left`);
    assert.deepEqual(ended, [
      ...names.slice(0, 6).map((name) => `${name} 250 1`),
      'one-done 451 1',
      'one-not 451 0',
    ]);
    assert.ok(graph.drafts.length <= 1, 'of a draft of which nothing was heard nothing is known');
  }),
);

test(
  'an hour of Retry-After, a slow reader, a token refused before the send, a 503 that was none',
  leakless(async (_t, defer) => {
    const { graph, start, copies } = await setUp(defer, ['far', 'slow', 'revoked', 'accepted']);
    const relay = await start();
    graph.rules.chaos = (call, mailbox) => {
      if (mailbox === address('far') && call === 'create')
        return { answer: { status: 429, code: 'ApplicationThrottled', retryAfter: '3600' } };
      if (mailbox === address('revoked') && call !== 'create')
        return { answer: { status: 401, code: 'InvalidAuthenticationToken' } };
      if (mailbox === address('accepted') && call === 'send')
        return { carriedOut: true, answer: { status: 503, code: 'ErrorServerBusy' } };
      return undefined;
    };
    const sent = (name: string, text?: string): Promise<string> => send(relay.smtpPort, address(name), text);
    const [far, revoked, accepted] = await Promise.all([sent('far'), sent('revoked'), sent('accepted')]);
    assert.match(far, /^451.4\.7\.1/);
    assert.match(revoked, /^451.4\.7\.0/);
    assert.match(accepted, /^250/);
    const asked = graph.requests.length;
    assert.match(await sent('far'), /^451/);
    assert.equal(graph.requests.length, asked, 'nothing is asked before the hour is over');
    // Two messages share a Message-ID: both go, each once.
    assert.match(await sent('accepted', message(address('accepted'), undefined, 'more\r\n')), /^250/);
    assert.equal(copies(address('accepted')), 2);

    graph.rules.chaos = undefined;
    await fetch(`${relay.adminUrl}/admin/accounts/${address('revoked')}/retry`, { method: 'POST' });
    assert.match(await sent('revoked'), /^250/);
    assert.equal(copies(address('revoked')), 1);
    assert.equal(copies(address('far')), 0);

    graph.rules.readsAfterMs = 3_000;
    const large = message(address('slow'), undefined, `${'x'.repeat(76)}\r\n`.repeat(36_000));
    assert.match(await sent('slow', large), /^250/);
    assert.equal(copies(address('slow')), 1);
    assert.deepEqual(graph.drafts, []);
  }),
);
