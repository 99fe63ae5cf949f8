/** Devices of one model say the same, Message-ID and `From:` included: each client's message leaves by an account it may use. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { greeted, transact } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';

const ANN = 'ann@example.com';
const BEA = 'bea@example.com';
const PRINTER = 'printer@local';
const alarm = (id: string): string =>
  `${id}From: ${PRINTER}\r\nTo: help@example.net\r\nSubject: paper jam\r\n\r\nsee the display\r\n`;
const NAMED = alarm('Message-ID: <alarm@printer>\r\n');
const UNNAMED = alarm('');

/** Both accounts by Graph, `more` in their entries. `listeners`: the accounts of each, where it names some. */
async function startHouse(
  defer: Defer,
  listeners: readonly (readonly string[] | undefined)[],
  more: Readonly<Record<string, unknown>>,
) {
  const directory = mkdtempSync(join(tmpdir(), 'graph-confined-'));
  defer(() => rmSync(directory, { recursive: true }));
  const provider = await startProvider({ flavour: 'microsoft', users: [ANN, BEA], graph: {} });
  defer(() => provider.close());
  const entryOf = (user: string) => provider.entry(user, { transport: 'graph', ...more });
  const config = join(directory, 'config.json');
  const opened = listeners.map((accounts) => ({ host: '127.0.0.1', port: 0, accounts }));
  writeFileSync(config, JSON.stringify({ listeners: opened }));
  const relay = await startRelay({
    accounts: [entryOf(ANN), entryOf(BEA)],
    caFile: provider.caFile,
    args: ['--config', config],
  });
  defer(() => relay.stop());
  return { graph: provider.graph, relay, entryOf };
}

/** What keeps ann's clients to her account, and bea's to hers. */
const CONFINED: Readonly<Record<string, { password?: string; logsIn: boolean; ownListeners?: boolean }>> = {
  'by a password each': { password: 'sesame', logsIn: true },
  'by logins without a password': { logsIn: true },
  'by a listener each': { logsIn: false, ownListeners: true },
};

for (const [how, { password, logsIn, ownListeners = false }] of Object.entries(CONFINED))
  test(
    `two devices, confined to an account each ${how}: nothing is sent from the other's mailbox, nor taken for sent`,
    leakless(async (_t, defer) => {
      const { graph, relay } = await startHouse(
        defer,
        [ANN, BEA].map((user) => (ownListeners ? [user] : undefined)),
        {
          senders: ['*'],
          rewrite_sender: true,
          rewrite_from: 'always',
          ...(password === undefined ? {} : { password }),
        },
      );
      const opened = (await relay.event('listening')).listeners as { port: number }[];

      async function say(user: string, body: string, goes: 'quits' | 'breaks' = 'quits'): Promise<number> {
        const client = await greeted(opened[user === ANN ? 0 : 1]?.port ?? 0);
        defer(() => client.socket.destroy());
        const secret = Buffer.from(`\0${user}\0${password ?? 'any'}`).toString('base64');
        if (logsIn) await client.expect(`AUTH PLAIN ${secret}`, 235);
        const { code } = await transact(client, { from: PRINTER, to: ['help@example.net'], body });
        if (goes === 'quits') await client.expect('QUIT', 221);
        else {
          client.reset();
          await client.closed();
        }
        return code;
      }
      const mailboxes = (): string[] => graph.delivered.map(({ mailbox }) => mailbox);

      graph.fault('send', { answer: { status: 504 } });
      graph.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
      assert.equal(await say(ANN, NAMED), 451);
      assert.equal(await say(BEA, NAMED), 250);
      assert.deepEqual(mailboxes(), [BEA]);
      assert.equal(await say(ANN, NAMED), 250);
      assert.deepEqual(mailboxes(), [BEA, ANN]);
      assert.equal(await say(BEA, NAMED), 250);
      assert.deepEqual(mailboxes(), [BEA, ANN], 'her retry is one');

      assert.equal(await say(ANN, UNNAMED, 'breaks'), 250);
      assert.equal(await say(BEA, UNNAMED), 250);
      assert.deepEqual(mailboxes(), [BEA, ANN, ANN, BEA]);
      assert.equal(await say(ANN, UNNAMED), 250);
      assert.deepEqual(mailboxes(), [BEA, ANN, ANN, BEA], 'her retry is one');
    }),
  );

async function sayNamed(
  defer: Defer,
  port: number,
  login?: { readonly user: string; readonly password: string },
): Promise<number> {
  const client = await greeted(port);
  defer(() => client.socket.destroy());
  if (login !== undefined) {
    const secret = Buffer.from(`\0${login.user}\0${login.password}`).toString('base64');
    await client.expect(`AUTH PLAIN ${secret}`, 235);
  }
  const { code } = await transact(client, { from: PRINTER, to: ['help@example.net'], body: NAMED });
  await client.expect('QUIT', 221);
  return code;
}

test(
  'a client that has logged in, and the account has another id meanwhile: the retry is known as one',
  leakless(async (_t, defer) => {
    const { graph, relay, entryOf } = await startHouse(defer, [undefined], {
      senders: [PRINTER],
      password: 'sesame',
    });
    const say = (): Promise<number> => sayNamed(defer, relay.smtpPort, { user: ANN, password: 'sesame' });
    graph.fault('send', { carriedOut: true, answer: { status: 504 } });
    graph.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
    assert.equal(await say(), 451);
    await relay.reload([{ ...entryOf(ANN), account_id: 'paper' }, entryOf(BEA)]);
    // Under its new id nobody can look for it: a person decides.
    assert.equal(await say(), 451);
    assert.equal(graph.delivered.length, 1);
  }),
);

/** What becomes of the accounts file while a message of one that it names first is unclear. */
const RELOADED: Readonly<Record<string, readonly string[]>> = {
  'in another order': [BEA, ANN],
  'without the account that began it': [BEA],
};

for (const [how, users] of Object.entries(RELOADED))
  test(
    `a listener for two accounts of one sender, and the accounts file ${how}: the retry is known as one`,
    leakless(async (_t, defer) => {
      const { graph, relay, entryOf } = await startHouse(defer, [[ANN.toUpperCase(), BEA]], {
        senders: [PRINTER],
      });
      const say = (): Promise<number> => sayNamed(defer, relay.smtpPort);
      graph.fault('send', { carriedOut: true, answer: { status: 504 } });
      graph.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
      assert.equal(await say(), 451);
      assert.equal((await relay.reload(users.map(entryOf))).event, 'reloaded');
      assert.equal(await say(), users.includes(ANN) ? 250 : 451);
      assert.deepEqual(
        graph.delivered.map(({ mailbox }) => mailbox),
        [ANN],
      );
    }),
  );
