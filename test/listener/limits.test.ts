import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createHeldBudget } from '../../src/listener/held-budget.ts';
import { type Reply, reply } from '../../src/protocol/reply.ts';
import { createTestClock } from '../support/clock.ts';
import { leakless } from '../support/leak-check.ts';
import { waitFor } from '../support/wait-for.ts';
import { account, bodyOf, stage } from './stage.ts';

test(
  'sessions are limited in all and per address, and places become free again',
  leakless(async (_t, defer) => {
    const s = await stage(defer, {
      settings: {
        proxyProtocol: true,
        allow: ['10.0.0.0/8'],
        limits: { maxSessions: 3, maxSessionsPerAddress: 2 },
      },
    });
    const from = async (address: string) => {
      const client = await s.connect();
      await client.raw(`PROXY TCP4 ${address} 10.0.0.99 1 2\r\n`);
      return client;
    };
    const first = await from('10.0.0.1');
    await first.expect(undefined, 220);
    await (await from('10.0.0.1')).expect(undefined, 220);
    await (await from('10.0.0.1')).expect(undefined, '421 4.7.0');
    await waitFor(() => s.listener.counts().sessions === 2);
    await (await from('10.0.0.2')).expect(undefined, 220);
    // No place is left, not even to wait for a header.
    await (await from('10.0.0.3')).closed();
    await waitFor(() => s.listener.counts().sessions === 3);
    await first.expect('QUIT', 221);
    await waitFor(() => s.listener.counts().sessions === 2);
    await (await from('10.0.0.1')).expect(undefined, 220);
    const { limitHits } = s.listener.counts();
    assert.equal(limitHits.sessions, 1);
    assert.equal(limitHits.sessions_per_address, 1);
  }),
);

test(
  'recipients, message size and command length are limited with the right codes',
  leakless(async (_t, defer) => {
    const s = await stage(defer, {
      settings: { limits: { maxRecipients: 2, maxMessageBytes: 1000, maxCommandOctets: 100 } },
    });
    const client = await s.greeted();
    assert.match((await client.send('EHLO client.test')).text, /SIZE 1000\n/);
    await client.expect('MAIL FROM:<a@x.test> SIZE=1001', '552 5.3.4');
    await client.expect('MAIL FROM:<a@x.test> SIZE=1000', 250);
    await client.expect('RCPT TO:<b@y.test>', 250);
    await client.expect('RCPT TO:<c@y.test>', 250);
    await client.expect('RCPT TO:<d@y.test>', '452 4.5.3');
    await client.expect(`NOOP ${'x'.repeat(95)}`, 250);
    await client.expect(`NOOP ${'x'.repeat(96)}`, '500 5.5.6');
    await client.expect(`NOOP ${'x'.repeat(300_000)}`, '500 5.5.6');
    await client.expect('DATA', 354);
    assert.equal((await client.body('x'.repeat(5000))).text, '552 5.3.4 Message exceeds 1000 octets');
    assert.equal(s.relay.seen[0]?.aborted, 'body');
    await client.expect('MAIL FROM:<a@x.test>', 250);
    await client.expect('RCPT TO:<b@y.test>', 250);
    await client.expect('DATA', 354);
    await client.raw(`${'x'.repeat(998)}\r\n.\r\n`);
    await client.expect(undefined, 250);
    const { limitHits } = s.listener.counts();
    assert.deepEqual([limitHits.recipients, limitHits.message_bytes, limitHits.command_octets], [1, 2, 2]);
  }),
);

test(
  "an account's own size limit counts before and after AUTH",
  leakless(async (_t, defer) => {
    const large = account('a@x.test');
    const small = account('small@x.test', { limits: { ...large.limits, maxBytes: 500 } });
    const s = await stage(defer, { accounts: [small, large] });
    const client = await s.greeted();
    assert.match((await client.send('EHLO c')).text, /SIZE 35000000\n/);
    await client.expect('MAIL FROM:<small@x.test> SIZE=501', '552 5.3.4');
    await client.expect('MAIL FROM:<small@x.test>', 250);
    await client.expect('RCPT TO:<b@y.test>', 250);
    await client.expect('DATA', 354);
    assert.match((await client.body('x'.repeat(501))).text, /^552 5\.3\.4/);
  }),
);

test(
  'an idle client is told and dropped, one that waits for us is not',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { settings: { limits: { idleTimeoutMs: 100 } } });
    const idle = await s.greeted();
    await idle.expect(undefined, '421 4.4.2');
    await idle.closed();
    const inBody = await s.inBody();
    await inBody.raw('half');
    await inBody.expect(undefined, '421 4.4.2');
    await inBody.closed();
    assert.equal(s.relay.seen[0]?.aborted, 'body');
    let release = (_: Reply): void => {};
    s.relay.on.end = () =>
      new Promise((resolve) => {
        release = resolve;
      });
    const waiting = await s.inBody();
    await waiting.raw('text\r\n.\r\n');
    await waitFor(() => bodyOf(s.relay.seen[1]) === 'text\r\n');
    const bystander = await s.greeted();
    // Two idle periods later, by the bystander's clock.
    await bystander.expect(undefined, 421);
    await (await s.greeted()).expect(undefined, 421);
    release(reply(250, '2.0.0', 'at last'));
    await waiting.expect(undefined, '250 2.0.0 at last');
    assert.equal(s.listener.counts().limitHits.idle, 4);
  }),
);

test(
  'a transaction that trickles is ended by the clock',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const s = await stage(defer, { deps: { clock }, settings: { limits: { transactionTimeoutMs: 60_000 } } });
    const client = await s.inBody();
    const other = await s.greeted();
    await client.raw('half');
    await waitFor(() => bodyOf(s.relay.seen[0]) === 'half');
    clock.advance(30_000);
    await other.expect('NOOP', 250);
    assert.equal(s.relay.seen[0]?.aborted, undefined);
    clock.advance(40_000);
    await client.expect(undefined, '421 4.4.2');
    await client.closed();
    assert.equal(s.relay.seen[0]?.aborted, 'body');
    await other.expect('NOOP', 250);
    assert.equal(s.listener.counts().limitHits.transaction_time, 1);
  }),
);

test(
  'bodies wait for memory before 354, not in the middle',
  leakless(async (_t, defer) => {
    const budget = createHeldBudget(8192);
    const s = await stage(defer, { deps: { budget } });
    const first = await s.inBody();
    await s.inBody();
    assert.equal(s.listener.counts().heldBytes, 8192);
    const third = await s.greeted();
    await third.expect('MAIL FROM:<a@x.test>', 250);
    await third.expect('RCPT TO:<b@y.test>', 250);
    await third.raw('DATA\r\n');
    await waitFor(() => s.listener.counts().limitHits.held_bytes === 1);
    await first.body('x');
    await third.expect(undefined, 354);
    // A declared size reserves little more than that.
    await first.expect('MAIL FROM:<a@x.test> SIZE=10', 250);
    await first.expect('RCPT TO:<b@y.test>', 250);
    await third.raw('x\r\n.\r\n');
    await third.expect(undefined, 250);
    await first.expect('DATA', 354);
    assert.equal(s.listener.counts().heldBytes, 4096 + 1024);
  }),
);

test(
  'memory that does not come in time defers the message; a waiting client may leave',
  leakless(async (_t, defer) => {
    const budget = createHeldBudget(4096);
    const s = await stage(defer, { deps: { budget }, settings: { limits: { heldWaitMs: 50 } } });
    await s.inBody();
    const second = await s.greeted();
    await second.expect('MAIL FROM:<a@x.test>', 250);
    await second.expect('RCPT TO:<b@y.test>', 250);
    await second.expect('DATA', '452 4.3.1');
    assert.equal(s.relay.seen[1]?.aborted, 'transaction');
    await second.expect('MAIL FROM:<a@x.test>', 250);
    await second.expect('RCPT TO:<b@y.test>', 250);
    await second.raw('DATA\r\n');
    second.reset();
    await waitFor(() => s.relay.seen[2]?.aborted);
    assert.equal(budget.held, 4096);
  }),
);

test(
  'an upstream that takes no more stops the client, and memory stays flat',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    let release = (): void => {};
    let blocked = 0;
    s.relay.on.write = () => {
      blocked += 1;
      return new Promise((resolve) => {
        release = resolve;
      });
    };
    const client = await s.inBody();
    const all = Buffer.alloc(20_000_000, 'x'.repeat(76).concat('\r\n'));
    let isSent = false;
    client.socket.write(all, () => {
      isSent = true;
    });
    await waitFor(() => blocked === 1);
    await (await s.greeted()).expect('NOOP', 250);
    assert.equal(isSent, false);
    assert.equal(blocked, 1);
    s.relay.on.write = () => undefined;
    release();
    await waitFor(() => isSent);
    await client.raw('\r\n.\r\n');
    await client.expect(undefined, 250);
    assert.equal(
      Buffer.concat([all, Buffer.from('\r\n')]).equals(Buffer.concat(s.relay.seen[0]?.pieces ?? [])),
      true,
    );
  }),
);

test(
  'a client that leaves while the end of its message waits for the upstream delivers nothing',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    const releases: (() => void)[] = [];
    s.relay.on.write = () => new Promise((resolve) => releases.push(resolve));
    const client = await s.inBody();
    // A stuffed dot makes two pieces, and the end is in the same chunk.
    await client.raw('one\r\n..two\r\n.\r\n');
    await waitFor(() => releases.length === 1);
    client.reset();
    await waitFor(() => s.relay.seen[0]?.aborted);
    releases[0]?.();
    await (await s.greeted()).expect('NOOP', 250);
    assert.equal(bodyOf(s.relay.seen[0]), 'one\r\n');
    assert.equal(s.relay.taken().length, 0);
    assert.equal(s.listener.counts().heldBytes, 0);
  }),
);
