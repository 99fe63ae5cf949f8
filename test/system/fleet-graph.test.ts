// needs: redis-server
/** Several relays that send by Graph for one mailbox: its limits hold over all of them, as by SMTP. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRedis } from '../support/redis.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { smtpClient } from '../support/smtp-client.ts';

const ANN = 'ann@example.com';
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
          const client = await smtpClient(relays[i % RELAYS]?.smtpPort ?? 0);
          await client.expect(undefined, 220);
          await client.expect('EHLO load.test', 250);
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
