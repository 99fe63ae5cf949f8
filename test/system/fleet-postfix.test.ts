// needs: redis-server, postfix
/** Two relays as two next hops of a Postfix, as docs/fleet.md describes it: each is restarted in turn while mail flows. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { greeted } from '../support/dialogue.ts';
import { leakless } from '../support/leak-check.ts';
import { startPostfix } from '../support/postfix.ts';
import { startProvider } from '../support/provider.ts';
import { parseSettings, readRecipe } from '../support/recipe.ts';
import { startRedis } from '../support/redis.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { waitFor } from '../support/wait-for.ts';
import { closedPort } from '../tokens/support.ts';

const USER = 'sender@example.com';
const CLIENTS = 3;

test(
  'two relays as next hops of a Postfix, each restarted in turn: nothing deferred, nothing lost, nothing twice',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [USER], latencyMs: 5 });
    defer(() => provider.close());
    const redis = await startRedis();
    defer(() => redis.kill());
    // Hosts of their own: Postfix takes two ports of one address for the same.
    const hosts = { a: '127.0.0.1', b: '127.0.0.2' };
    const port = await closedPort();
    const relay = async (host: string): Promise<RelayProcess> => {
      const started = await startRelay({
        accounts: [provider.entry(USER, { login_interval_ms: 0 })],
        caFile: provider.caFile,
        args: ['--host', host, '--port', String(port)],
        env: { XOAUTH2_RELAY_STORE: redis.url, XOAUTH2_RELAY_STATE_KEY: 'fleet-test-passphrase-0123456789' },
      });
      defer(() => started.stop());
      return started;
    };
    const running = { a: await relay(hosts.a), b: await relay(hosts.b) };
    const { relayhost = '' } = parseSettings(readRecipe('fleet.md').block('relayhost'));
    const postfix = await startPostfix({
      relayPort: port,
      settings: {
        relayhost: relayhost
          .replace('relay-a.internal]:2525', `${hosts.a}]:${port}`)
          .replace('relay-b.internal]:2525', `${hosts.b}]:${port}`),
      },
    });
    defer(() => postfix.stop());

    const handedIn: string[] = [];
    let isOver = false;
    let serial = 0;
    const clients = Array.from({ length: CLIENTS }, async () => {
      const client = await greeted(postfix.port);
      while (!isOver) {
        const id = `hop-${++serial}-`;
        await client.expect(`MAIL FROM:<${USER}>`, 250);
        await client.expect('RCPT TO:<to@example.net>', 250);
        await client.expect('DATA', 354);
        assert.equal((await client.body(`Subject: ${id}\r\n\r\nx\r\n`)).code, 250);
        handedIn.push(id);
        // Not faster than the relays: a queue would hide what the restart does.
        await waitFor(() => provider.messages.length > handedIn.length - 20, { what: 'mail passing' });
      }
      client.end();
    });
    const done = Promise.allSettled(clients);
    const passed = (count: number): Promise<unknown> => {
      const from = provider.messages.length;
      return waitFor(() => provider.messages.length >= from + count, { what: 'mail flowing' });
    };
    try {
      for (const name of ['a', 'b'] as const) {
        await passed(20);
        running[name].signal('SIGTERM');
        await passed(20);
        assert.equal((await running[name].exited).code, 0);
        await passed(20);
        running[name] = await relay(hosts[name]);
      }
      await passed(20);
    } finally {
      isOver = true;
      await done;
    }
    await Promise.all(clients);
    await waitFor(async () => (await postfix.queue()).length === 0, { what: `an empty queue` });

    const deferred = postfix.log().match(/^.*status=(?:deferred|bounced).*$/gm) ?? [];
    assert.deepEqual(deferred, []);
    const delivered = provider.messages.map((m) => /hop-\d+-/.exec(m.body.toString('latin1'))?.[0]);
    assert.deepEqual([...delivered].sort(), [...handedIn].sort(), 'each exactly once');
    for (const host of Object.values(hosts))
      assert.ok(postfix.log().includes(`relay=${host}[${host}]:${port},`), host);
    console.log(`${handedIn.length} messages`);
  }),
);
