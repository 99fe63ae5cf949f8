// needs: redis-server
/** Several relays on one mailbox, and one relay after another on it: the running program against a strict provider. */

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
import { type SmtpClient, smtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';

const USER = 'sender@example.com';
const LATENCY_MS = 20;

/** As Redis knows it. */
const MAILBOX = `${USER} outlook`;

async function strictProvider(defer: Defer): Promise<Provider> {
  const provider = await startProvider({
    flavour: 'microsoft',
    users: [USER],
    latencyMs: LATENCY_MS,
    rules: { maxConcurrentSubmissions: 3, messagesPerMinute: 30 },
  });
  defer(() => provider.close());
  return provider;
}

async function redisFor(defer: Defer): Promise<Redis> {
  const redis = await startRedis();
  defer(() => redis.kill());
  return redis;
}

/** The process has another wall clock. */
const skewed = (ms: number): string =>
  `--import=data:text/javascript,const%20now=Date.now;Date.now=()=>now()+(${ms})`;

async function fleet(
  defer: Defer,
  count: number,
  provider: Provider,
  redis: Redis,
  entry: Record<string, unknown>,
  args: readonly string[] = [],
  /** By relay: its wall clock against ours, ms. */
  skews: readonly number[] = [],
): Promise<readonly RelayProcess[]> {
  const relays = await Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const relay = await startRelay({
        accounts: [provider.entry(USER, entry)],
        caFile: provider.caFile,
        args: ['--state-dir', mkdtempSync(join(tmpdir(), 'fleet-')), ...args],
        env: {
          XOAUTH2_RELAY_STORE: redis.url,
          XOAUTH2_RELAY_STATE_KEY: 'fleet-test-passphrase-0123456789',
          ...(skews[i] === undefined ? {} : { NODE_OPTIONS: skewed(skews[i]) }),
        },
      });
      defer(() => relay.stop());
      return relay;
    }),
  );
  for (const relay of relays) await relay.line((l) => l.event === 'shared_limits', { timeoutMs: 20_000 });
  return relays;
}

interface Sent {
  readonly acknowledged: number;
  readonly deferred: readonly string[];
  readonly ms: number;
}

/** `count` messages over `sessions` sessions, spread over the relays. */
async function send(ports: readonly number[], sessions: number, count: number): Promise<Sent> {
  const startedAt = performance.now();
  let left = count;
  let acknowledged = 0;
  const deferred: string[] = [];
  await Promise.all(
    Array.from({ length: sessions }, async (_, i) => {
      const client: SmtpClient = await smtpClient(ports[i % ports.length] ?? 0);
      await client.reply();
      await client.expect('EHLO load.test', 250);
      while (left-- > 0) {
        await client.raw(`MAIL FROM:<${USER}>\r\n`);
        // A place that a killed relay held is free within 15 s.
        const mail = await client.reply(25_000);
        if (mail.code !== 250) {
          deferred.push(mail.text);
          continue;
        }
        await client.expect('RCPT TO:<to@example.net>', 250);
        await client.expect('DATA', 354);
        const answer = await client.body(`Subject: n\r\n\r\n${left}\r\n`);
        if (answer.code === 250) acknowledged++;
        else deferred.push(answer.text);
      }
      client.end();
    }),
  );
  return { acknowledged, deferred, ms: performance.now() - startedAt };
}

const complaints = (provider: Provider): readonly string[] =>
  provider.submissions.filter((s) => s.outcome !== 'accepted').map((s) => s.reply ?? 'cut');

test(
  'three relays on one mailbox: never more than three messages at once, at the rate of one relay',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    provider.smtp.rules.messagesPerMinute = undefined;
    const entry = { messages_per_minute: 0 };
    const redis = await redisFor(defer);
    const three = await fleet(defer, 3, provider, redis, entry);
    await send(
      three.map((r) => r.smtpPort),
      3,
      9,
    );
    const together = await send(
      three.map((r) => r.smtpPort),
      24,
      120,
    );
    for (const relay of three) await relay.stop();
    const [one] = await fleet(defer, 1, provider, await redisFor(defer), entry);
    assert.ok(one);
    await send([one.smtpPort], 3, 9);
    const alone = await send([one.smtpPort], 24, 120);
    assert.deepEqual(complaints(provider), []);
    assert.deepEqual([...together.deferred, ...alone.deferred], []);
    assert.equal(together.acknowledged, 120);
    console.log(
      `120 messages, 3 at once: three relays ${Math.round(together.ms)} ms, one ${Math.round(alone.ms)} ms, ratio of rates ${(alone.ms / together.ms).toFixed(2)}`,
    );
  }),
);

test(
  'three relays started at the same moment send 20 messages a minute in all, the rest waits',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    const redis = await redisFor(defer);
    const relays = await fleet(defer, 3, provider, redis, { messages_per_minute: 20 }, [
      '--max-hold-ms',
      // Longer than three at once take on a busy machine, shorter than the minute.
      '10000',
    ]);
    const sent = await send(
      relays.map((r) => r.smtpPort),
      24,
      60,
    );
    assert.equal(sent.acknowledged, 20);
    assert.equal(provider.messages.length, 20);
    for (const text of sent.deferred) assert.match(text, /^451 4\.[37]\./);
    assert.deepEqual(complaints(provider), []);
  }),
);

test(
  'a relay killed under load: nothing above the limit, its places are free within 15 s',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    provider.smtp.rules.messagesPerMinute = undefined;
    const redis = await redisFor(defer);
    const relays = await fleet(defer, 2, provider, redis, { messages_per_minute: 0 });
    const [first, second] = relays;
    assert.ok(first && second);
    provider.smtp.script('end-of-data', { times: 3 }, { delayMs: 1_000, normal: true });
    const stuck = send([first.smtpPort], 3, 3).catch(() => undefined);
    await waitFor(() => redis.command('zcard', `xoauth2-relay:lease:${MAILBOX}`) === '3', {
      what: 'three leases',
    });
    first.signal('SIGKILL');
    await stuck;
    const [, endsAt] = redis
      .command('zrange', `xoauth2-relay:lease:${MAILBOX}`, '-1', '-1', 'withscores')
      .split('\n');
    const [seconds, microseconds] = redis.command('time').split('\n').map(Number);
    const leftMs = Number(endsAt) - ((seconds ?? 0) * 1_000 + (microseconds ?? 0) / 1_000);
    assert.ok(leftMs > 0 && leftMs <= 15_000, `the last of its places is free in ${leftMs} ms`);
    const sent = await send([second.smtpPort], 6, 12);
    assert.equal(sent.acknowledged, 12);
  }),
);

test(
  'all relays and Redis killed under load: whoever starts then, with what Redis had saved, finds nothing stuck',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    provider.smtp.rules.messagesPerMinute = undefined;
    const redis = await redisFor(defer);
    const relays = await fleet(defer, 2, provider, redis, { messages_per_minute: 0 });
    provider.smtp.script('end-of-data', { times: 3 }, { delayMs: 1_000, normal: true });
    const ports = relays.map((relay) => relay.smtpPort);
    const stuck = send(ports, 3, 3).catch(() => undefined);
    await waitFor(() => redis.command('zcard', `xoauth2-relay:lease:${MAILBOX}`) === '3', {
      what: 'three leases',
    });
    redis.command('save');
    for (const relay of relays) relay.signal('SIGKILL');
    await redis.kill();
    await stuck;
    await redis.start();
    assert.equal(redis.command('zcard', `xoauth2-relay:lease:${MAILBOX}`), '3', 'of holders that are gone');
    const next = await fleet(defer, 2, provider, redis, { messages_per_minute: 0 });
    const sent = await send(
      next.map((relay) => relay.smtpPort),
      6,
      12,
    );
    assert.deepEqual([sent.acknowledged, sent.deferred], [12, []]);
    // Whoever was killed heard no verdict, or never ended his body: no complaint of the provider.
    assert.deepEqual(
      provider.submissions.filter((s) => s.outcome === 'refused').map((s) => s.reply),
      [],
    );
  }),
);

test(
  'the day outlives a restart, with a state directory and with Redis',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    const redis = await redisFor(defer);
    const directory = mkdtempSync(join(tmpdir(), 'fleet-day-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    const entry = provider.entry(USER, { messages_per_day: 3 });
    for (const env of [
      {},
      { XOAUTH2_RELAY_STORE: redis.url, XOAUTH2_RELAY_STATE_KEY: 'fleet-test-passphrase-0123456789' },
    ]) {
      const relay = (): Promise<RelayProcess> =>
        startRelay({
          accounts: [entry],
          caFile: provider.caFile,
          args: ['--state-dir', directory],
          env: env as Record<string, string>,
        });
      const before = await relay();
      defer(() => before.stop());
      const sent = await send([before.smtpPort], 1, 2);
      assert.equal(sent.acknowledged, 2);
      assert.equal((await before.stop()).code, 0);
      const after = await relay();
      defer(() => after.stop());
      const more = await send([after.smtpPort], 1, 2);
      assert.equal(more.acknowledged, 1);
      assert.match(more.deferred[0] ?? '', /^451 4\.7\.1 .*daily limit/);
      await after.stop();
    }
  }),
);

test(
  'what one relay learned of an account spares the others the attempt; so do the cure and what an operator does',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    const redis = await redisFor(defer);
    const [first, second] = await fleet(defer, 2, provider, redis, {});
    assert.ok(first && second);
    const status = async (relay: RelayProcess): Promise<string> => {
      const { accounts } = await relay.admin<{ accounts: { status: string; drained: boolean }[] }>(
        '/admin/accounts',
      );
      return accounts[0]?.drained ? 'drained' : (accounts[0]?.status ?? 'none');
    };
    const becomes = (relay: RelayProcess, what: string): Promise<unknown> =>
      waitFor(async () => (await status(relay)) === what, { what: `a relay being ${what}` });
    provider.smtp.script(
      'end-of-data',
      { times: 1 },
      { reply: '550 5.4.5 Daily user sending limit exceeded.' },
    );
    const before = provider.submissions.length;
    await send([first.smtpPort], 1, 1);
    await becomes(second, 'throttled');
    const spared = await send([second.smtpPort], 1, 1);
    assert.match(spared.deferred[0] ?? '', /^45/);
    assert.equal(provider.submissions.length, before + 1);

    const act = (relay: RelayProcess, path: string): Promise<unknown> =>
      fetch(`${relay.adminUrl}/admin/accounts/${USER}/${path}`, { method: 'POST' });
    await act(second, 'drain');
    await becomes(first, 'drained');
    const third = (await fleet(defer, 1, provider, redis, {}))[0];
    assert.ok(third);
    await becomes(third, 'drained');
    await act(first, 'resume');
    await becomes(second, 'throttled');
    await becomes(third, 'throttled');
  }),
);

test(
  'an account refreshed at one relay has the new token at all; a failing token endpoint is asked by one of them',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    const redis = await redisFor(defer);
    const [first, second] = await fleet(defer, 2, provider, redis, {});
    assert.ok(first && second);
    const expiry = async (relay: RelayProcess): Promise<unknown> =>
      (await relay.admin<{ accounts: { token: { expires_at: string } }[] }>('/admin/accounts')).accounts[0]
        ?.token.expires_at;
    const refresh = (relay: RelayProcess): Promise<Response> =>
      fetch(`${relay.adminUrl}/admin/accounts/${USER}/refresh`, { method: 'POST' });
    const before = await expiry(second);
    assert.equal((await refresh(first)).status, 200);
    const renewed = await expiry(first);
    assert.notEqual(renewed, before);
    await waitFor(async () => (await expiry(second)) === renewed, { what: 'the token at the other relay' });
    assert.equal(provider.token.count(), 2);

    provider.token.always({ status: 503, body: 'no' });
    for (let i = 0; i < 5; i += 1) await refresh(first);
    await second.admin('/admin/tokens');
    interface Breakers {
      readonly breakers: readonly { kind: string; state: string }[];
    }
    const stateAt = async (relay: RelayProcess): Promise<string | undefined> =>
      (await relay.admin<Breakers>('/admin/tokens')).breakers.find((b) => b.kind === 'token_endpoint')?.state;
    await waitFor(async () => (await stateAt(first)) === 'open', { what: 'the breaker opening' });
    await waitFor(async () => (await stateAt(second)) === 'open', { what: 'the other hearing of it' });
    const asked = provider.token.count();
    assert.notEqual((await refresh(second)).status, 200);
    assert.equal(provider.token.count(), asked);
    provider.token.always(undefined);
    await waitFor(async () => (await refresh(first)).status === 200, {
      timeoutMs: 20_000,
      what: 'the endpoint asked again',
    });
    await waitFor(async () => (await stateAt(second)) === 'closed', {
      what: 'the other hearing of the cure',
    });
  }),
);

test(
  'clocks off by a minute either way: the minute, the places at once and the end of a pause are the same for all',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    const redis = await redisFor(defer);
    const args = ['--max-hold-ms', '10000'];
    const skews = [0, 60_000, -60_000];
    const relays = await fleet(defer, 3, provider, redis, { messages_per_minute: 20 }, args, skews);
    const sent = await send(
      relays.map((r) => r.smtpPort),
      24,
      40,
    );
    assert.deepEqual([sent.acknowledged, provider.messages.length], [20, 20]);
    assert.deepEqual(complaints(provider), []);

    const [first, ...others] = relays;
    assert.ok(first);
    // What was learned stands for as long by each one's own clock.
    redis.command('del', `xoauth2-relay:pace:${MAILBOX}`);
    provider.smtp.script(
      'end-of-data',
      { times: 1 },
      { reply: '550 5.4.5 Daily user sending limit exceeded.' },
    );
    await send([first.smtpPort], 1, 1);
    const leftAt = async (i: number): Promise<number | undefined> => {
      const { accounts } = (await relays[i]?.admin<{ accounts: { status: string; until: string | null }[] }>(
        '/admin/accounts',
      )) ?? { accounts: [] };
      const [account] = accounts;
      if (account?.status !== 'throttled' || account.until === null) return undefined;
      return Date.parse(account.until) - (Date.now() + (skews[i] ?? 0));
    };
    await waitFor(async () => (await leftAt(0)) !== undefined, { what: 'the pause' });
    for (const i of others.keys()) {
      await waitFor(async () => (await leftAt(i + 1)) !== undefined, { what: 'the others hearing of it' });
      const apart = ((await leftAt(i + 1)) ?? 0) - ((await leftAt(0)) ?? 0);
      assert.ok(Math.abs(apart) < 5_000, `${apart} ms apart`);
    }
  }),
);

test(
  'the relays are seen as one: /admin/fleet lists them, metrics count them',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    const redis = await redisFor(defer);
    const [first, second] = await fleet(defer, 2, provider, redis, {});
    assert.ok(first && second);
    await send([first.smtpPort], 1, 2);
    interface Seen {
      readonly shared: boolean;
      readonly apart: boolean;
      readonly share: number;
      readonly relays: readonly { self: boolean; pid: number; relayed: number; silent_ms: number }[];
    }
    const seen = await waitFor(
      async () => {
        const view = await second.admin<Seen>('/admin/fleet');
        return view.relays.length === 2 && view.relays.some((r) => r.relayed === 2) ? view : undefined;
      },
      { what: 'both relays and the messages' },
    );
    assert.deepEqual([seen.shared, seen.apart, seen.share], [true, false, 0.5]);
    assert.deepEqual(
      new Map(seen.relays.map((r) => [r.pid, r.self])),
      new Map([
        [first.pid, false],
        [second.pid, true],
      ]),
    );
    const metrics = await (await fetch(`${second.adminUrl}/metrics`)).text();
    assert.match(metrics, /^xoauth2_relay_fleet_relays 2$/m);
    assert.match(metrics, /^xoauth2_relay_shared_limits_apart 0$/m);
    redis.freeze();
    await waitFor(async () => (await second.admin<Seen>('/admin/fleet')).apart, { what: 'apart' });
    redis.thaw();
    await waitFor(async () => !(await second.admin<Seen>('/admin/fleet')).apart, {
      what: 'together again',
      timeoutMs: 20_000,
    });
  }),
);

test(
  'a message to several recipients takes one place, however often the provider is asked',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    const redis = await redisFor(defer);
    const [relay] = await fleet(defer, 1, provider, redis, { max_connections: 1 });
    assert.ok(relay);
    const client = await greeted(relay.smtpPort);
    for (let message = 0; message < 3; message++) {
      await client.expect(`MAIL FROM:<${USER}>`, 250);
      for (const name of ['a', 'b', 'c', 'd']) await client.expect(`RCPT TO:<${name}@example.net>`, 250);
      await client.expect('DATA', 354);
      assert.equal((await client.body('Subject: n\r\n\r\nx\r\n')).code, 250);
    }
    client.end();
    assert.deepEqual(
      provider.messages.map((m) => m.recipients.length),
      [4, 4, 4],
    );
    await waitFor(() => redis.command('zcard', `xoauth2-relay:lease:${MAILBOX}`) === '0', {
      what: 'given back',
    });
  }),
);

test(
  'Redis loses its data: grants, pauses and drained accounts are written again by who knows them',
  leakless(async (_t, defer) => {
    const provider = await strictProvider(defer);
    const redis = await redisFor(defer);
    const relays = await fleet(defer, 2, provider, redis, {});
    const [first, second] = relays;
    assert.ok(first && second);
    await fetch(`${first.adminUrl}/admin/accounts/${USER}/refresh`, { method: 'POST' });
    await fetch(`${first.adminUrl}/admin/accounts/${USER}/drain`, { method: 'POST' });
    const keys = (): readonly string[] =>
      redis
        .command('keys', '*grant*')
        .split('\n')
        .filter((k) => k !== '');
    await waitFor(() => keys().length > 0, { what: 'the rotated grant in Redis' });
    redis.command('flushall');
    await waitFor(() => keys().length > 0, { what: 'the grant in Redis again' });
    await waitFor(() => redis.command('hkeys', 'xoauth2-relay:states') === `drained:${USER}`, {
      what: 'the drained account in Redis again',
    });
  }),
);
