// needs: redis-server
/** With Redis, mail at MAIL that waits for an account with as many messages under way as it may have. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { greeted, transact } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRedis } from '../support/redis.ts';
import { startRelay } from '../support/relay-process.ts';
import type { ClientReply, SmtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@example.com';
const TEAM = 'team@example.com';
const ALERTS = 'alerts@example.com';

const EQUALS = [
  [ANN, { senders: [TEAM] }],
  [TEAM, { senders: [ANN] }],
] as const;

/** What follows MAIL. */
async function finish(session: SmtpClient): Promise<void> {
  await session.expect('RCPT TO:<bob@example.net>', 250);
  await session.expect('DATA', 354);
  assert.equal((await session.body('Subject: x\r\n\r\nx\r\n')).code, 250);
}

async function stage(defer: Defer, accountsOf: readonly (readonly [string, Record<string, unknown>])[]) {
  const provider = await startProvider({
    flavour: 'microsoft',
    users: [...accountsOf.map(([user]) => user), ALERTS],
  });
  defer(() => provider.close());
  const redis = await startRedis();
  defer(() => redis.kill());
  const entry = (user: string, more: Record<string, unknown>) =>
    provider.entry(user, { login_interval_ms: 0, max_connections: 1, ...more });
  const others = entry(ALERTS, { max_connections: 3, senders: ['*'], rewrite_sender: true });
  const relay = await startRelay({
    accounts: [...accountsOf.map(([user, more]) => entry(user, more)), others],
    caFile: provider.caFile,
    env: {
      XOAUTH2_RELAY_STORE: redis.url,
      XOAUTH2_RELAY_STATE_KEY: 'fleet-test-passphrase-0123456789',
    },
  });
  defer(() => relay.stop());
  await relay.event('shared_limits');
  const client = async (): Promise<SmtpClient> => {
    const one = await greeted(relay.smtpPort);
    defer(() => one.socket.destroy());
    return one;
  };
  return {
    provider,
    relay,
    entry,
    others,
    client,
    /** A message of `ANN` to whose end this account's provider says nothing before it is let go. */
    async hold(user: string) {
      let letGo = (): void => {};
      const until = new Promise<void>((resolve) => {
        letGo = resolve;
      });
      const script = provider.smtp.script('end-of-data', { user }, { until, normal: true });
      const verdict = transact(await client(), { from: ANN });
      verdict.catch(() => {});
      await waitFor(() => script.hits === 1, { what: `a message of ${user} is under way` });
      return { letGo, verdict };
    },
    /** MAIL, which waits for this account; the reply, and the session. */
    async wait(
      user: string,
    ): Promise<{ readonly heard: Promise<ClientReply>; readonly session: SmtpClient }> {
      const session = await client();
      const heard = session.send(`MAIL FROM:<${ANN}>`);
      heard.catch(() => {});
      const queue = `xoauth2-relay:queue:${user} outlook`;
      await waitFor(() => redis.command('zcard', queue) === '1', { what: `mail waits for ${user}` });
      return { heard, session };
    },
  };
}

test(
  'a reload that allows more messages at once lets the mail go that waits',
  leakless(async (_t, defer) => {
    const { relay, entry, others, hold, wait } = await stage(defer, [[ANN, {}]]);
    const busy = await hold(ANN);
    const first = await wait(ANN);
    const second = await wait(ANN);
    await relay.reload([entry(ANN, { max_connections: 3 }), others]);
    assert.equal((await first.heard).code, 250);
    assert.equal((await second.heard).code, 250);
    busy.letGo();
    assert.equal((await busy.verdict).code, 250);
  }),
);

test(
  'mail for which several accounts are busy waits for the one that is free first, and for no other',
  leakless(async (_t, defer) => {
    const { provider, hold, wait } = await stage(defer, EQUALS);
    const slow = await hold(ANN);
    const other = await hold(TEAM);
    const { heard, session } = await wait(ANN);
    other.letGo();
    assert.equal((await other.verdict).code, 250);
    assert.equal((await heard).code, 250);
    await finish(session);
    assert.deepEqual(
      provider.messages.map(({ user }) => user),
      [TEAM, TEAM],
    );
    slow.letGo();
    assert.equal((await slow.verdict).code, 250);
  }),
);

test(
  'an account that is drained while mail waits for several is left to none of it',
  leakless(async (_t, defer) => {
    const { provider, relay, hold, wait } = await stage(defer, EQUALS);
    const slow = await hold(ANN);
    const other = await hold(TEAM);
    const { heard, session } = await wait(ANN);
    const drained = await fetch(`${relay.adminUrl}/admin/accounts/${encodeURIComponent(TEAM)}/drain`, {
      method: 'POST',
      headers: { connection: 'close' },
    });
    assert.equal(drained.status, 200);
    other.letGo();
    assert.equal((await other.verdict).code, 250);
    slow.letGo();
    assert.equal((await slow.verdict).code, 250);
    assert.equal((await heard).code, 250);
    await finish(session);
    assert.deepEqual(
      provider.messages.map(({ user }) => user),
      [TEAM, ANN, ANN],
    );
  }),
);
