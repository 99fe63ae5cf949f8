// needs: redis-server
/** Relays that start while Redis is away, or after it was replaced by an older one: what they kept beside it counts. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { greeted } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { type Redis, startRedis } from '../support/redis.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@example.com';
const BOB = 'bob@example.com';

async function stage(defer: Defer) {
  const provider: Provider = await startProvider({ users: [ANN, BOB] });
  defer(() => provider.close());
  const redis: Redis = await startRedis();
  defer(() => redis.kill());
  const directory = (): string => {
    const path = mkdtempSync(join(tmpdir(), 'fleet-restart-'));
    defer(() => rmSync(path, { recursive: true, force: true }));
    return path;
  };
  const relay = async (stateDir: string, isShared = true): Promise<RelayProcess> => {
    const started = await startRelay({
      accounts: [ANN, BOB].map((user) => provider.entry(user, { messages_per_day: 4 })),
      caFile: provider.caFile,
      args: ['--state-dir', stateDir, '--without-store', 'ask'],
      env: {
        XOAUTH2_RELAY_STATE_KEY: 'fleet-test-passphrase-0123456789',
        ...(isShared ? { XOAUTH2_RELAY_STORE: redis.url } : {}),
      },
    });
    defer(() => started.stop());
    return started;
  };
  return { provider, redis, directory, relay };
}

/** What each of `count` messages heard. */
async function send(relay: RelayProcess, from: string, count: number): Promise<readonly string[]> {
  const client = await greeted(relay.smtpPort);
  const replies: string[] = [];
  for (let i = 0; i < count; i++) {
    await client.raw(`MAIL FROM:<${from}>\r\n`);
    const mail = await client.reply(25_000);
    if (mail.code !== 250) {
      replies.push(mail.text);
      continue;
    }
    await client.expect('RCPT TO:<to@example.net>', 250);
    await client.expect('DATA', 354);
    replies.push((await client.body('Subject: n\r\n\r\nx\r\n')).text);
  }
  client.end();
  return replies.map((text) => text.slice(0, 3));
}

const act = async (relay: RelayProcess, path: string): Promise<Record<string, unknown>> => {
  const answer = await fetch(`${relay.adminUrl}/admin/accounts/${path}`, { method: 'POST' });
  assert.equal(answer.status, 200, path);
  return (await answer.json()) as Record<string, unknown>;
};

async function isDrained(relay: RelayProcess, id: string): Promise<boolean | undefined> {
  const { accounts } = await relay.admin<{ accounts: { id: string; drained: boolean }[] }>('/admin/accounts');
  return accounts.find((account) => account.id === id)?.drained;
}

test(
  'a restart while Redis is away forgets neither the day nor who is drained; Redis hears of both when it is back, empty',
  leakless(async (_t, defer) => {
    const { redis, relay, directory } = await stage(defer);
    const home = directory();
    const before = await relay(home);
    await before.event('shared_limits');
    assert.deepEqual(await send(before, ANN, 2), ['250', '250']);
    await act(before, `${BOB}/drain`);
    assert.equal((await before.stop()).code, 0);
    await redis.kill();

    const after = await relay(home);
    assert.equal(await isDrained(after, BOB), true);
    assert.equal((await send(after, BOB, 1))[0], '451');
    assert.deepEqual(await send(after, ANN, 3), ['250', '250', '451']);
    await redis.start();
    await after.event('shared_limits');
    assert.deepEqual(await send(after, ANN, 1), ['451']);

    const other = await relay(directory());
    await other.event('shared_limits');
    await waitFor(() => isDrained(other, BOB), { what: 'the drained account at another relay' });
    assert.deepEqual(await send(other, ANN, 1), ['451']);
  }),
);

test(
  'what was resumed while a relay was down is resumed there; an invitation made at one relay is good at another, and ends there',
  leakless(async (_t, defer) => {
    const { relay, directory } = await stage(defer);
    const home = directory();
    const before = await relay(home);
    const other = await relay(directory());
    await other.event('shared_limits');
    await act(before, `${BOB}/drain`);
    await waitFor(() => isDrained(other, BOB), { what: 'drained at the other' });
    const { key } = (await act(before, `${ANN}/invite`)) as { key: string };
    const invited = async (at: RelayProcess, by: string): Promise<number> =>
      (await fetch(`${at.adminUrl}/sign-in/invited`, { headers: { 'x-invite-key': by } })).status;
    await waitFor(async () => (await invited(other, key)) === 200, { what: 'the invitation at the other' });
    await before.stop();
    const again = (await act(other, `${ANN}/invite`)) as { key: string };
    await act(other, `${BOB}/resume`);
    const after = await relay(home);
    await after.event('shared_limits');
    await waitFor(async () => (await isDrained(after, BOB)) === false, { what: 'resumed at the first' });
    await waitFor(async () => (await invited(after, again.key)) === 200, { what: 'the later invitation' });
    assert.equal(await invited(after, key), 410, 'which ended the earlier one');
  }),
);

test(
  'an account drained at a relay without Redis stays so over a restart with a state directory',
  leakless(async (_t, defer) => {
    const { relay, directory } = await stage(defer);
    const home = directory();
    const before = await relay(home, false);
    await act(before, `${BOB}/drain`);
    await before.stop();
    const after = await relay(home, false);
    assert.deepEqual([await isDrained(after, ANN), await isDrained(after, BOB)], [false, true]);
    await act(after, `${BOB}/resume`);
    await after.stop();
    const last = await relay(home, false);
    assert.equal(await isDrained(last, BOB), false);
  }),
);
