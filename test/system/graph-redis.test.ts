// needs: redis-server
/** Several relays share through a real Redis what is known of messages sent by Graph. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { silentLog } from '../../src/log.ts';
import { createRedisConnection } from '../../src/redis.ts';
import type { Claim, Ledger } from '../../src/upstream/graph/ledger.ts';
import { createRedisLedger } from '../../src/upstream/graph/ledger-redis.ts';
import { leakless } from '../support/leak-check.ts';
import { startRedis } from '../support/redis.ts';
import { waitFor } from '../support/wait-for.ts';

const KEY = 'k'.repeat(32);

test(
  'one relay at a time works on a message, the next knows what the first noted; without Redis nobody does',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const ledgers = [1, 2].map(() =>
      createRedisLedger(createRedisConnection(new Secret(redis.url), { log: silentLog }), 'test'),
    );
    for (const ledger of ledgers) {
      await ledger.open();
      defer(() => ledger.close());
    }
    const [first, second] = ledgers;
    assert.ok(first && second);
    const claim = await first.claim(KEY);
    assert.ok(claim !== 'busy');
    assert.equal(claim.known, undefined);
    assert.equal(await second.claim(KEY), 'busy');
    await claim.note({ state: 'draft', at: 1, draft: 'id', leftoversSince: 2 });
    await claim.release();
    const next = await second.claim(KEY);
    assert.ok(next !== 'busy');
    assert.deepEqual(next.known, { state: 'draft', at: 1, draft: 'id', leftoversSince: 2 });
    assert.equal(await second.ownerOf('id'), KEY);
    assert.equal(await second.ownerOf('other'), undefined);
    const now = Date.now();
    await next.note({ state: 'draft', at: now, draft: 'id' });
    assert.deepEqual(await first.list(), [{ key: KEY, entry: { state: 'draft', at: now, draft: 'id' } }]);
    await assert.rejects(
      claim.note({ state: 'sent', at: 3 }),
      /another relay/,
      'a claim that was lost notes nothing',
    );
    assert.equal(await first.hasOpen(), true);
    const subject = { account: 'ann', family: 'f', each: ['bob', 'cal'], sender: 's' };
    const opens = await Promise.all(['s', 't'].map((sender) => first.hasOpen(sender)));
    assert.deepEqual(opens, [true, true], 'of whomever, where the sender was not noted');
    await next.forget();
    const unheard = { state: 'sent', at: now, subject } as const;
    await next.note(unheard);
    assert.deepEqual(await first.list(), []);
    assert.equal(await first.hasOpen(), true, 'a retry to some of the recipients may come');
    assert.deepEqual([await first.hasOpen('s'), await first.hasOpen('t')], [true, false]);
    assert.deepEqual(await first.relatives('f'), [{ key: KEY, entry: unheard }]);
    assert.deepEqual(await first.relatives('g'), []);
    await next.forget();
    assert.deepEqual(await second.relatives('f'), []);
    await next.note(unheard);
    await next.note({ state: 'sent', at: now });
    assert.deepEqual(await first.list(), []);
    assert.deepEqual([await first.hasOpen(), await first.relatives('f')], [false, []]);
    assert.equal(await first.hasOpen('s'), false);
    await next.note({ state: 'sent', at: now, subject: { account: 'ann', name: 'n' } });
    assert.deepEqual([await first.isShared('n', KEY), await first.isShared('n', 'other')], [false, true]);
    const another = await first.claim('other');
    assert.ok(another !== 'busy');
    await another.note({ state: 'creating', at: now, subject: { account: 'ann', name: 'n' } });
    await another.forget();
    await next.note({ state: 'sent', at: now, subject: { account: 'ann', name: 'n' } });
    assert.equal(await second.isShared('n', KEY), true, 'once shared it stays so');
    assert.equal(await second.isShared('m', KEY), false);
    await next.forget();
    await next.release();
    await redis.kill();
    await assert.rejects(first.claim(KEY));
  }),
);

test(
  'a relay that lost Redis right after its 250 notes nothing over what another has closed since',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const [first, second] = [1, 2].map(() => {
      const ledger = createRedisLedger(
        createRedisConnection(new Secret(redis.url), { log: silentLog }),
        'test',
      );
      defer(() => ledger.close());
      return ledger;
    });
    assert.ok(first && second);
    const take = async (ledger: Ledger, key = KEY): Promise<Claim> => {
      const claim = await ledger.claim(key);
      assert.ok(claim !== 'busy');
      return claim;
    };
    const claim = await take(first);
    const isLast = (of: Claim) => of.notHeardSince({ family: 'f', marks: ['a', 'b'] });
    assert.equal(await claim.close({ family: 'f', marks: ['a', 'b'] }), true);
    assert.deepEqual(await isLast(claim), ['a', 'b']);
    await claim.release();
    const tried = await take(second);
    await tried.note({ state: 'creating', at: 1 });
    await tried.forget();
    await tried.release();
    assert.deepEqual(await isLast(claim), ['a', 'b'], 'nothing was sent');
    const retry = await take(second);
    await retry.note({ state: 'draft', at: 1, draft: 'id' });
    await retry.note({ state: 'sent', at: 1 }, { family: 'f', marks: ['a'] });
    await retry.release();
    assert.deepEqual([await isLast(claim), await isLast(retry)], [['b'], ['a']]);
    const alone = await take(second, KEY.replace(/./, 'x'));
    await alone.close({ family: 'f', marks: ['b'] });
    await alone.close({ family: 'g', marks: ['c'] });
    assert.deepEqual([await isLast(claim), await isLast(retry)], [[], ['a']]);
  }),
);

test(
  'of whom a text was heard last ends in its time for each recipient, whoever else hears it since',
  leakless(async (_t, defer) => {
    const server = await startRedis();
    defer(() => server.kill());
    const ledger = createRedisLedger(
      createRedisConnection(new Secret(server.url), { log: silentLog }),
      'test',
    );
    defer(() => ledger.close());
    await ledger.open();
    const [early, late, other] = await Promise.all(['e', 'l', 'o'].map((key) => ledger.claim(key)));
    assert.ok(early && early !== 'busy' && late && late !== 'busy' && other && other !== 'busy');
    const newest = () => other.notHeardSince({ family: 'f', marks: ['a', 'b'] });
    await early.close({ family: 'f', marks: ['a'] });
    const words = server.command('keys', '*heard*').split('\n');
    assert.ok(words.length > 0 && words.every((key) => Number(server.command('pttl', key)) > 0));
    for (const key of words) server.command('pexpire', key, '300');
    await late.close({ family: 'f', marks: ['b'] });
    await waitFor(async () => String(await newest()) === 'a', { what: 'the end of what the first heard' });
  }),
);

test(
  'what a relay of another version has noted is unclear, not unknown: nothing is sent a second time',
  leakless(async (_t, defer) => {
    const server = await startRedis();
    defer(() => server.kill());
    const redis = createRedisConnection(new Secret(server.url), { log: silentLog });
    const ledger = createRedisLedger(redis, 'test');
    await ledger.open();
    defer(() => ledger.close());
    const subject = { account: 'ann', sender: 's' };
    const noted = [JSON.stringify({ state: 'uploading', at: Date.now(), subject }), 'v2 of a format'];
    for (const text of noted) {
      await redis.ask((r) => r.set(`test:graph:known:${KEY}`, text));
      const claim = await ledger.claim(KEY);
      assert.ok(claim !== 'busy');
      assert.equal(claim.known?.state, 'sending');
      assert.match(claim.known.unclear ?? '', /another version/);
      await claim.release();
    }
  }),
);

test(
  'a claim that Redis carries out when nobody waits for it any more is given back',
  leakless(async (_t, defer) => {
    const redis = await startRedis();
    defer(() => redis.kill());
    const [first, second] = [1, 2].map(() =>
      createRedisLedger(createRedisConnection(new Secret(redis.url), { log: silentLog }), 'test'),
    );
    assert.ok(first && second);
    for (const ledger of [first, second]) {
      await ledger.open();
      defer(() => ledger.close());
    }
    // The script is known from then on.
    const known = await first.claim('another');
    assert.ok(known !== 'busy');
    redis.freeze();
    await assert.rejects(first.claim(KEY), /does not answer/);
    redis.thaw();
    await waitFor(async () => (await second.claim(KEY)) !== 'busy', { what: 'the claim being given back' });
  }),
);
