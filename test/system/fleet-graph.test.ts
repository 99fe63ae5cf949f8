// needs: redis-server
/** Several relays that send by Graph for one mailbox: its limits hold over all of them, as by SMTP. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { greeted } from '../support/dialogue.ts';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRedis } from '../support/redis.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@example.com';
const BOB = 'bob@example.com';
const RELAYS = 3;
const SESSIONS = 18;
const MESSAGES = 60;

for (const [what, entry] of [
  ['as they are by default', {}],
  ['where the accounts file allows more at once than Graph', { max_connections: 12 }],
] as const)
  test(
    `messages at once and a minute by Graph hold over three relays, ${what}`,
    leakless(async (_t, defer) => {
      const provider = await startProvider({ flavour: 'microsoft', users: [ANN], graph: {} });
      defer(() => provider.close());
      provider.graph.rules.latencyMs = 30;
      const redis = await startRedis();
      defer(() => redis.kill());
      const relays: RelayProcess[] = [];
      for (let i = 0; i < RELAYS; i++) {
        const relay = await startRelay({
          accounts: [provider.entry(ANN, { transport: 'graph', messages_per_minute: 40, ...entry })],
          caFile: provider.caFile,
          args: ['--max-hold-ms', '10000'],
          env: {
            XOAUTH2_RELAY_STORE: redis.url,
            XOAUTH2_RELAY_STATE_KEY: 'fleet-test-passphrase-0123456789',
          },
        });
        defer(() => relay.stop());
        relays.push(relay);
      }
      for (const relay of relays) await relay.event('shared_limits');

      let left = MESSAGES;
      const taken: string[] = [];
      const deferred: string[] = [];
      await Promise.all(
        Array.from({ length: SESSIONS }, async (_, i) => {
          const client = await greeted(relays[i % RELAYS]?.smtpPort ?? 0);
          while (left > 0) {
            const id = `m${left--}`;
            await client.raw(`MAIL FROM:<${ANN}>\r\n`);
            const mail = await client.reply(25_000);
            if (mail.code !== 250) {
              deferred.push(mail.text);
              continue;
            }
            await client.expect('RCPT TO:<bob@example.net>', 250);
            await client.expect('DATA', 354);
            const header = `Message-ID: <${id}@client.test>\r\nFrom: ${ANN}\r\nTo: bob@example.net\r\n`;
            const answer = await client.body(`${header}Subject: ${id}\r\n\r\nx\r\n`);
            if (answer.code === 250) taken.push(id);
            else deferred.push(answer.text);
          }
          client.end();
        }),
      );
      assert.deepEqual(
        provider.graph.requests.filter((r) => r.status === 429).map((r) => r.call),
        [],
        'nothing was throttled',
      );
      assert.equal(provider.graph.delivered.length, 40);
      assert.equal(taken.length, 40);
      for (const text of deferred) assert.match(text, /^451 4\.7\.1 .*rate limit|^451 4\.[37]\.\d/);
    }),
  );

test(
  'what Graph said to one relay spares the others the attempt: a time to wait, a limit that is spent',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ flavour: 'microsoft', users: [ANN, BOB], graph: {} });
    defer(() => provider.close());
    const redis = await startRedis();
    defer(() => redis.kill());
    const start = async (): Promise<RelayProcess> => {
      const relay = await startRelay({
        accounts: [ANN, BOB].map((user) => provider.entry(user, { transport: 'graph' })),
        caFile: provider.caFile,
        env: {
          XOAUTH2_RELAY_STORE: redis.url,
          XOAUTH2_RELAY_STATE_KEY: 'fleet-test-passphrase-0123456789',
        },
      });
      defer(() => relay.stop());
      return relay;
    };
    const [first, second] = [await start(), await start()];
    for (const relay of [first, second]) await relay.event('shared_limits');

    async function send(relay: RelayProcess, from: string): Promise<string> {
      const client = await greeted(relay.smtpPort);
      await client.raw(`MAIL FROM:<${from}>\r\n`);
      const mail = await client.reply(25_000);
      if (mail.code !== 250) return mail.text;
      await client.expect('RCPT TO:<carol@example.net>', 250);
      await client.expect('DATA', 354);
      const answer = await client.body(`From: ${from}\r\nTo: carol@example.net\r\n\r\nx\r\n`);
      client.end();
      return answer.text;
    }
    const statusAt = async (relay: RelayProcess, email: string): Promise<string | undefined> => {
      const { accounts } = await relay.admin<{ accounts: { email: string; status: string }[] }>(
        '/admin/accounts',
      );
      return accounts.find((account) => account.email === email)?.status;
    };
    for (const [user, code, more] of [
      [ANN, 'ApplicationThrottled', { retryAfter: '600' }],
      [BOB, 'ErrorExceededMessageLimit', {}],
    ] as const) {
      provider.graph.rules.chaos = () => ({ answer: { status: 429, code, ...more } });
      assert.match(await send(first, user), /^45/);
      await waitFor(async () => (await statusAt(second, user)) === 'throttled', { what: `${code} heard` });
      const asked = provider.graph.requests.length;
      assert.match(await send(second, user), /^45/);
      assert.equal(provider.graph.requests.length, asked, 'Graph was not asked');
      provider.graph.rules.chaos = undefined;
    }
    const third = await start();
    for (const user of [ANN, BOB])
      await waitFor(async () => (await statusAt(third, user)) === 'throttled', {
        what: `${user} known to who comes later`,
      });
  }),
);
