// needs: redis-server
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Defer, leakless } from '../support/leak-check.ts';
import { waitFor } from '../support/wait-for.ts';
import { limits, pair, redisFor, relay, settled, threeRelays } from './stage.ts';

test(
  'messages at once hold over three relays, and a place given back goes to whoever waits',
  leakless(async (_t, defer) => {
    const { redis, relays } = await threeRelays(defer);
    let at = 0;
    let most = 0;
    const startedAt = performance.now();
    await Promise.all(
      Array.from({ length: 120 }, async (_, i) => {
        const result = await relays[i % 3]?.limits.reserve('a', limits(), 20_000);
        assert.ok(result?.granted);
        most = Math.max(most, ++at);
        await delay(20);
        at--;
        result.place.end({ unsent: false, recipients: 1 });
      }),
    );
    assert.equal(most, 3);
    // One to get it; one more where it was given back and another relay was called.
    const asked = Number(/cmdstat_evalsha:calls=(\d+)/.exec(redis.command('info', 'commandstats'))?.[1]);
    assert.ok(asked / 120 < 2.5, `${(asked / 120).toFixed(1)} scripts a message`);
    const alone = (120 / 3) * 20;
    console.log(
      `120 messages of 20 ms, 3 at once, three relays: ${Math.round(performance.now() - startedAt)} ms (ideal ${alone})`,
    );
  }),
);

test(
  "who gives up waiting for a place stands in nobody's way",
  leakless(async (_t, defer) => {
    const { a, b } = await pair(defer);
    const one = limits({ atOnce: 1 });
    const first = await b.limits.reserve('a', one, 0);
    assert.ok(first.granted);
    const given = await a.limits.reserve('a', one, 100);
    assert.ok(!given.granted && given.limit === 'busy');
    first.place.end({ unsent: false, recipients: 1 });
    const next = await b.limits.reserve('a', one, 500);
    assert.ok(next.granted);
    next.place.end({ unsent: false, recipients: 1 });
  }),
);

test(
  'who is withdrawn waits no more, and holds up nobody who waits behind; limits are as they are when it is asked',
  leakless(async (_t, defer) => {
    const { a, b } = await pair(defer);
    let atOnce = 1;
    const now = () => limits({ atOnce })();
    const held = await b.limits.reserve('a', now, 0);
    assert.ok(held.granted);
    const withdrawing = [new AbortController(), new AbortController()];
    const withdrawn = withdrawing.map(({ signal }) => a.limits.reserve('a', now, 20_000, signal));
    const stays = a.limits.reserve('a', now, 20_000);
    await delay(50);
    for (const one of withdrawing) one.abort();
    for (const result of await Promise.all(withdrawn)) assert.ok(!result.granted && result.limit === 'busy');
    atOnce = 2;
    const second = await stays;
    assert.ok(second.granted);
    for (const { place } of [held, second]) place.end({ unsent: false, recipients: 1 });
  }),
);

test(
  'a sliding minute holds over relays; what is not sent gives its place back',
  leakless(async (_t, defer) => {
    const { a, b } = await pair(defer);
    const five = limits({ perMinute: 5 });
    for (let i = 0; i < 5; i++) {
      const r = await (i % 2 === 0 ? a : b).limits.reserve('a', five, 0);
      assert.ok(r.granted && r.place.waitMs === 0);
      r.place.end({ unsent: i === 4, recipients: 1 });
    }
    await delay(50);
    const fifth = await a.limits.reserve('a', five, 0);
    assert.ok(fifth.granted, 'the unsent one left its place');
    fifth.place.end({ unsent: false, recipients: 1 });
    const sixth = await b.limits.reserve('a', five, 1000);
    assert.ok(!sixth.granted && sixth.limit === 'minute' && sixth.retryAfterMs > 50_000);
    const later = await b.limits.reserve('a', five, 70_000);
    assert.ok(
      later.granted && later.place.waitMs > 50_000,
      'a place ahead is reserved where the wait is allowed',
    );
    later.place.end({ unsent: true, recipients: 0 });
  }),
);

test(
  'messages and recipients of a day hold over relays and outlive them',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const a = await relay(defer, redis);
    await settled([a]);
    const day = limits({ perDay: 2, recipientsPerDay: 10 });
    for (const recipients of [1, 9]) {
      const r = await a.limits.reserve('a', day, 0);
      assert.ok(r.granted);
      r.place.end({ unsent: false, recipients });
    }
    const other = limits({ recipientsPerDay: 10 });
    await waitFor(() => redis.command('hvals', 'xoauth2-relay:day:a').split('\n').sort().join() === '10,2', {
      what: 'both counted',
    });
    a.die();
    const b = await relay(defer, redis);
    await settled([b]);
    const refused = await b.limits.reserve('a', day, 0);
    assert.ok(!refused.granted && refused.limit === 'day');
    const full = await b.limits.reserve('a', other, 0);
    assert.ok(!full.granted && full.limit === 'day', 'ten recipients were taken');
  }),
);

test(
  'what is kept for a relay that is not heard is no full day: it is open again in a moment',
  leakless(async (_t, defer) => {
    const { a, b } = await pair(defer);
    const one = limits({ perDay: 1 });
    b.die();
    await waitFor(
      async () => {
        const kept = await a.limits.reserve('a', one, 0);
        if (kept.granted) kept.place.end({ unsent: true, recipients: 0 });
        return !kept.granted && kept.limit === 'minute' && kept.retryAfterMs <= 1_000;
      },
      { what: 'the missing relay is reckoned with' },
    );
    await waitFor(async () => (await a.limits.reserve('a', one, 0)).granted, {
      what: 'it counts as gone',
      timeoutMs: 20_000,
    });
    const full = await a.limits.reserve('a', one, 0);
    assert.ok(!full.granted && full.limit === 'day' && full.retryAfterMs > 60_000);
  }),
);

test(
  'what a killed relay held is free within 15 s',
  leakless(async (_t, defer) => {
    const { a, b } = await pair(defer);
    for (let i = 0; i < 3; i++) assert.ok((await a.limits.reserve('a', limits(), 0)).granted);
    const refused = await b.limits.reserve('a', limits(), 0);
    assert.ok(!refused.granted && refused.limit === 'busy');
    a.die();
    const got = await b.limits.reserve('a', limits(), 15_000);
    assert.ok(got.granted);
    got.place.end({ unsent: false, recipients: 1 });
  }),
);

test(
  'never more than the limit, at once and a minute, while Redis is frozen, killed or flushed and comes back',
  leakless(async (_t, defer) => {
    await Promise.all((['frozen', 'killed', 'flushed'] as const).map((trouble) => outage(trouble, defer)));
  }),
);

async function outage(trouble: 'frozen' | 'killed' | 'flushed', defer: Defer): Promise<void> {
  const { redis, relays } = await threeRelays(defer);
  const three = limits({ perMinute: 20 });
  const times: number[] = [];
  let at = 0;
  let most = 0;
  let longest = 0;
  let isOver = false;
  const senders = Array.from({ length: 9 }, async (_, i) => {
    while (!isOver) {
      const askedAt = performance.now();
      const result = await relays[i % 3]?.limits.reserve('a', three, 2_000);
      longest = Math.max(longest, performance.now() - askedAt);
      if (result === undefined || !result.granted) {
        await delay(100);
        continue;
      }
      if (result.place.waitMs > 0) await delay(result.place.waitMs);
      times.push(performance.now());
      most = Math.max(most, ++at);
      await delay(30);
      at--;
      result.place.end({ unsent: false, recipients: 1 });
    }
  });
  await delay(500);
  if (trouble === 'frozen') redis.freeze();
  if (trouble === 'killed') await redis.kill();
  if (trouble === 'flushed') redis.command('flushall');
  await delay(20_000);
  if (trouble === 'frozen') redis.thaw();
  if (trouble === 'killed') await redis.start();
  await delay(50_000);
  isOver = true;
  await Promise.all(senders);
  for (const from of times) {
    const inMinute = times.filter((t) => t >= from && t < from + 59_900).length;
    assert.ok(inMinute <= 20, `${inMinute} messages in a minute`);
  }
  assert.ok(most <= 3, `${most} at once`);
  // What it may wait for a place, one answer of Redis, and what a busy machine adds.
  assert.ok(longest < 2_000 + 1_500 + 1_500, `a message waited ${longest} ms`);
  assert.ok(times.length > 20, `${times.length} sent in all`);
  console.log(`${trouble}: ${times.length} messages, longest wait ${Math.round(longest)} ms`);
}

test(
  'Redis is lost just after one relay sent nearly all of a minute: the others, who were told otherwise a second before, send no more than is left',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const [a, b, c] = await Promise.all([relay(defer, redis), relay(defer, redis), relay(defer, redis)]);
    const relays = [a, b, c];
    await settled(relays);
    const most = limits({ atOnce: 30, perMinute: 28 });
    let sent = 0;
    async function send(by: typeof a): Promise<void> {
      const result = await by.limits.reserve('a', most, 0);
      if (!result.granted || result.place.waitMs > 0) return;
      const claimed = await result.place.claim?.(0);
      if (claimed?.granted !== false) sent++;
      result.place.end({ unsent: claimed?.granted === false, recipients: 1 });
    }
    for (const by of relays) await send(by);
    for (let i = 0; i < 25; i++) await send(b);
    assert.equal(sent, 28);
    await redis.kill();
    // For the first 12 s none begins more at once than it had under way: nothing here.
    for (let i = 0; i < 60; i++) {
      await Promise.all(relays.map(send));
      await delay(250);
    }
    assert.equal(sent, 28);
  }),
);

test(
  'a message counts in the minute until a minute after its end, however long it took',
  leakless(async (_t, defer) => {
    const { redis, a, b } = await pair(defer);
    const one = limits({ perMinute: 1 });
    const long = await a.limits.reserve('a', one, 0);
    assert.ok(long.granted);
    assert.equal(long.place.claim?.(0), undefined);
    const pace = 'xoauth2-relay:pace:a';
    const [id = ''] = redis.command('zrange', pace, '0', '-1').split('\n');
    // It began 58 s ago, by the clock of Redis.
    redis.command('zadd', pace, String(Date.now() - 58_000), id);
    await waitFor(() => Number(redis.command('zscore', pace, id)) > Date.now() - 6_000, {
      what: 'what is under way told again',
    });
    const beside = await b.limits.reserve('a', one, 0);
    assert.ok(!beside.granted && beside.limit === 'minute');
    long.place.end({ unsent: false, recipients: 1 });
    await waitFor(() => Number(redis.command('zscore', pace, id)) > Date.now() - 1_000, {
      what: 'its end told',
    });
    const after = await b.limits.reserve('a', one, 0);
    assert.ok(!after.granted && after.retryAfterMs > 58_000, 'by its end, not by its beginning');
  }),
);

test(
  'three relays started at once without Redis keep the limit by what they were told to expect',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    await redis.kill();
    const a = await relay(defer, redis, 'defer');
    const r = await a.limits.reserve('a', limits(), 100);
    assert.ok(!r.granted && r.limit === 'away');
  }),
);

test(
  'logins keep their distance over relays',
  leakless(async (_t, defer) => {
    const { redis, a, b } = await pair(defer);
    const waits = [await a.limits.login('a', 2000, 10_000), await b.limits.login('a', 2000, 10_000)];
    assert.equal(waits[0], 0);
    assert.ok((waits[1] ?? 0) > 1800 && (waits[1] ?? 0) <= 2000);
    assert.equal(await a.limits.login('a', 2000, 1000), undefined);
    for (const key of redis.command('keys', '*').split('\n'))
      assert.ok(Number(redis.command('pttl', key)) > 0, `${key} ends by itself`);
  }),
);

test(
  'a client that dawdles after MAIL keeps no place from others, and gets another when it goes on',
  leakless(async (_t, defer) => {
    const { redis, a, b } = await pair(defer);
    const slow = await Promise.all([1, 2, 3].map(() => a.limits.reserve('a', limits(), 1_000)));
    const places = slow.map((r) => (r.granted ? r.place : assert.fail('three at once')));
    const quick = await b.limits.reserve('a', limits({ atOnce: 3 }), 15_000);
    assert.ok(quick.granted, 'after some seconds the place is lent on');
    assert.equal(quick.place.claim?.(0), undefined, 'and is sure once it is used');
    assert.equal(quick.place.claim?.(0), undefined, 'also when asked again, for the next recipient');
    assert.equal((await places[0]?.claim?.(1_000))?.granted, true);
    assert.equal(places[0]?.claim?.(0), undefined);
    assert.equal((await places[1]?.claim?.(1_000))?.granted, true);
    assert.equal((await places[2]?.claim?.(300))?.granted, false, 'three are under way');
    for (const place of places) place.end({ unsent: false, recipients: 1 });
    quick.place.end({ unsent: false, recipients: 1 });
    await waitFor(() => redis.command('zcard', 'xoauth2-relay:lease:a') === '0', { what: 'all given back' });
  }),
);

test(
  'a message that begins long after its place counts in the minute in which it begins, also for the other relays',
  leakless(async (_t, defer) => {
    const { redis, a, b } = await pair(defer);
    const two = limits({ perMinute: 2 });
    const [slow, other] = [await a.limits.reserve('a', two, 0), await a.limits.reserve('a', two, 0)];
    assert.ok(slow.granted && other.granted);
    // 59.5 s ago, by the clock of Redis.
    const pace = 'xoauth2-relay:pace:a';
    const ids = redis.command('zrange', pace, '0', '-1').split('\n');
    const longAgo = String(Date.now() - 59_500);
    for (const id of ids) redis.command('zadd', pace, longAgo, id);
    await delay(150);
    assert.equal((await slow.place.claim?.(5_000))?.granted, true);
    assert.equal(slow.place.claim?.(0), undefined);
    const scores = redis.command('zrange', pace, '0', '-1', 'WITHSCORES').split('\n').map(Number);
    assert.ok(Math.max(...scores.filter((n) => n > 1e12)) > Date.now() - 10_000, 'it counts now');
    await delay(1_000);
    const first = await b.limits.reserve('a', two, 0);
    const second = await b.limits.reserve('a', two, 0);
    assert.ok(first.granted && !second.granted, 'one is left of this minute');
  }),
);

test(
  'the room of a mailbox is what all relays together have left of it',
  leakless(async (_t, defer) => {
    const redis = await redisFor(defer);
    const [a, b] = [await relay(defer, redis), await relay(defer, redis)];
    await waitFor(() => !a.limits.isApart && !b.limits.isApart, { what: 'both sharing' });
    const minute = limits({ perMinute: 10, atOnce: 20 });
    assert.equal(b.limits.room?.('box', minute()), 1);
    for (let i = 0; i < 6; i++) await a.limits.reserve('box', minute, 0);
    await b.limits.reserve('box', minute, 0);
    assert.ok(
      Math.abs((b.limits.room?.('box', minute()) ?? 0) - 0.3) < 1e-9,
      `${b.limits.room?.('box', minute())}`,
    );
  }),
);
