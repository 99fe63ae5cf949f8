import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestClock, type TestClock } from '../support/clock.ts';
import { leakless } from '../support/leak-check.ts';
import { ANN, type Room, startRoom } from '../support/relay-room.ts';
import { waitFor, within } from '../support/wait-for.ts';

const BEN = 'ben@example.com';

/** The account again as a reload brings it, with other facts. */
function reload(room: Room, changes: object): void {
  const account = room.upstreams.of(ANN)?.account;
  assert.ok(account);
  room.serveOnly([{ ...account, ...changes }]);
}

test(
  '100 reloads that change the account, under load: nobody hears 451, and its limit holds throughout',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      account: { max_connections: 3, min_connections: 2 },
      provider: { rules: { maxConnectionsPerUser: 3 } },
    });
    let reloading = true;
    const heard: (number | undefined)[] = [];
    const senders = Array.from({ length: 5 }, async () => {
      while (reloading) heard.push((await room.send()).final?.code);
    });
    for (let i = 0; i < 100; i++) {
      const before = heard.length;
      reload(room, {
        senders: [ANN, `alias${i}@example.com`],
        heloName: `relay${i % 7}.example.org`,
        localAddress: i % 3 === 0 ? '127.0.0.2' : undefined,
      });
      await waitFor(() => heard.length > before);
    }
    reloading = false;
    await Promise.all(senders);
    assert.deepEqual(
      heard.filter((code) => code !== 250),
      [],
    );
    assert.ok(room.provider.smtp.maxOpenOf(ANN) <= 3, `${room.provider.smtp.maxOpenOf(ANN)} at once`);
    assert.equal(room.provider.messages.length, heard.length);
    assert.ok(room.provider.smtp.sessions.some((s) => s.hello === 'relay5.example.org'));
  }),
);

test(
  'a reload that changes nothing of the way keeps the connections; a lower limit closes those too many',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { max_connections: 4, min_connections: 4 } });
    assert.equal(room.provider.smtp.connections, 4);
    reload(room, { senders: [ANN, 'alias@example.com'] });
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.smtp.connections, 4);
    const { limits } = room.upstreams.of(ANN)?.account ?? assert.fail();
    reload(room, { limits: { ...limits, maxConnections: 2, minConnections: 1 } });
    await waitFor(() => room.provider.smtp.open === 2);
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.smtp.connections, 4);
  }),
);

test(
  'a connection whose turn to log in comes after the limit was lowered is not opened',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const limits = { max_connections: 4, min_connections: 0, login_interval_ms: 1_000 };
    const room = await startRoom(defer, { clock, account: limits });
    assert.equal((await room.send()).final?.code, 250);
    const sent = [1, 2, 3, 4].map(() => room.send());
    await waitFor(() => room.upstreams.status(ANN)?.counts.size === 4);
    for (const { final } of await Promise.all(sent)) assert.equal(final?.code, 250);
    const account = room.upstreams.of(ANN)?.account ?? assert.fail();
    reload(room, { limits: { ...account.limits, maxConnections: 1 } });
    for (const size of [2, 1]) {
      clock.advance(1_000);
      await waitFor(() => room.upstreams.status(ANN)?.counts.size === size);
      assert.equal(room.provider.smtp.logins(ANN), 1);
    }
    clock.advance(1_000);
    await waitFor(() => room.upstreams.status(ANN)?.counts.idle === 1);
    assert.equal(room.provider.smtp.logins(ANN), 2);
  }),
);

test(
  'an endpoint is forgotten with the last account that uses it',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    const entry = room.provider.entry(ANN);
    for (let i = 0; i < 3; i++) await room.reload([{ ...entry, smtp: `starttls://host-${i}.test:587` }]);
    await room.reload([entry]);
    await room.reload([entry]);
    assert.equal(room.upstreams.breakers().length, 1);
  }),
);

test(
  'pauses survive a reload; an account that is removed and comes back is one account',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      account: { max_connections: 1 },
      provider: { rules: { maxConnectionsPerUser: 1 } },
    });
    const { transaction } = await room.mail();
    await transaction?.rcpt([{ address: 'a@x.net', parameters: [] }]);
    const account = room.upstreams.of(ANN)?.account ?? assert.fail();
    room.serveOnly([]);
    assert.equal(room.upstreams.of(ANN), undefined);
    room.serveOnly([{ ...account }]);
    const other = room.send();
    const writer = transaction?.body();
    await writer?.write(Buffer.from('x\r\n'));
    assert.equal((await writer?.end())?.code, 250);
    assert.equal((await other).final?.code, 250);
    room.provider.smtp.script('end-of-data', {}, { reply: '550 5.4.5 Daily user sending limit exceeded.' });
    await room.send();
    reload(room, { senders: [ANN, 'b@example.com'] });
    assert.equal(room.upstreams.status(ANN)?.state.status, 'throttled');
    assert.equal((await room.send()).mail.code, 452);
  }),
);

test(
  'whoever waits behind one whose connection fails is tried next, at once',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      account: { max_connections: 1 },
      upstreams: { acquireTimeoutMs: 20_000 },
    });
    let goOn = (): void => {};
    const until = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    room.provider.smtp.script('end-of-data', {}, { until, accept: true, after: 'close' });
    const first = room.send();
    await waitFor(() => room.upstreams.status(ANN)?.counts.busy === 1);
    const waiting = Array.from({ length: 3 }, () => room.send());
    room.provider.smtp.script('greeting', {}, { reply: '421 4.3.2 Service not active', after: 'close' });
    goOn();
    assert.equal((await first).final?.code, 451);
    const heard = await within(Promise.all(waiting), 5_000, 'those who waited');
    assert.deepEqual(heard.map((h) => h.final?.code).sort(), [250, 250, 451]);
  }),
);

test(
  'a login that fails beside live connections fails nobody: those who wait get one of them',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      account: { max_connections: 3 },
      provider: { rules: { deliveryMs: 20 } },
    });
    room.provider.smtp.script(
      'AUTH',
      { times: Number.POSITIVE_INFINITY },
      { reply: '454 4.7.0 Too many login attempts, please try again later.' },
    );
    const heard = await Promise.all(Array.from({ length: 8 }, () => room.send()));
    assert.deepEqual(new Set(heard.map((h) => h.final?.code)), new Set([250]));
    assert.equal(room.provider.smtp.logins(ANN), 1);
  }),
);

test(
  '12 s after a restart of the provider an account sends nearly as much at once as before',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const room = await startRoom(defer, {
      clock,
      account: { max_connections: 5, min_connections: 1, chunking: false },
      provider: { rules: { deliveryMs: 10 }, record: false },
    });
    const busy = (): number => room.upstreams.status(ANN)?.counts.busy ?? 0;
    let running = true;
    let taken = 0;
    const senders = Array.from({ length: 8 }, async () => {
      while (running) {
        if ((await room.send()).final?.code === 250) taken++;
        else await new Promise((resolve) => setImmediate(resolve));
      }
    });
    await waitFor(() => busy() === 5, { what: 'five at once' });
    // As a server does that is told to stop: 421 to what is under way, then nothing listens for a second.
    room.provider.smtp.script(
      'end-of-data',
      { times: 3 },
      { reply: '421 4.3.0 Temporary System Problem.', after: 'close' },
    );
    await waitFor(() => room.provider.submissions.filter((s) => s.outcome !== 'accepted').length >= 3);
    await room.provider.smtp.down(true);
    await pass(clock, 1_000);
    await room.provider.smtp.up();
    await pass(clock, 10_500);
    const before = taken;
    await waitFor(() => taken > before && busy() >= 4, { what: 'four at once' });
    running = false;
    await Promise.all(senders);
  }),
);

/** Time passes while messages come and go, no faster than real sockets can follow. */
async function pass(clock: TestClock, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 50) {
    clock.advance(50);
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
}

test(
  'healthy traffic dilutes the trouble of single accounts; recipients that are refused for now count nothing',
  leakless(async (_t, defer) => {
    const users = [ANN, BEN, 'cid@example.com', 'dan@example.com'];
    const room = await startRoom(defer, { users });
    room.provider.smtp.script(
      'RCPT',
      { times: Number.POSITIVE_INFINITY, line: /grey/ },
      { reply: '450 4.2.0 Greylisted, try again later' },
    );
    for (let i = 0; i < 40; i++)
      await room.send({ from: users[i % users.length] ?? ANN, to: ['grey@example.net'] });
    assert.equal(room.upstreams.breakers()[0]?.state, 'closed');
    assert.equal(room.upstreams.breakers()[0]?.faults, 0);
    assert.equal((await room.send()).final?.code, 250);
  }),
);
