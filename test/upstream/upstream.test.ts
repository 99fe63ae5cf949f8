import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDialer } from '../../src/upstream/dial.ts';
import { issueCertificate } from '../support/certificate.ts';
import { createFastClock } from '../support/fast-clock.ts';
import { leakless } from '../support/leak-check.ts';
import { ANN, mailOf, startRoom } from '../support/relay-room.ts';
import { waitFor } from '../support/wait-for.ts';

const BEN = 'ben@example.com';
const EVA = 'eva@example.com';

test(
  'warm-up opens what each account keeps warm, in parallel; messages reuse it',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { users: [ANN, BEN, EVA], account: { min_connections: 2 } });
    assert.equal(room.provider.smtp.connections, 6);
    for (let i = 0; i < 10; i++) assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.smtp.connections, 6);
    assert.equal(room.provider.token.count(), 3);
  }),
);

test(
  'connecting, busy and idle together never exceed the limit, and those who wait are served in order',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      account: { max_connections: 2, min_connections: 0 },
      provider: { rules: { deliveryMs: 20 } },
    });
    const order: number[] = [];
    const heard = await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const result = await room.send({ body: `Subject: ${i}\r\n\r\nx\r\n` });
        order.push(i);
        return result.final?.code;
      }),
    );
    assert.deepEqual(heard, Array(12).fill(250));
    assert.ok(room.provider.smtp.maxOpenOf(ANN) <= 2);
    const arrived = room.provider.messages.map((m) => Number(/Subject: (\d+)/.exec(m.body.toString())?.[1]));
    // Two connections at once: nobody is overtaken by more than the one beside him.
    for (const [at, n] of arrived.entries()) assert.ok(Math.abs(n - at) <= 2, arrived.join(' '));
  }),
);

test(
  'whoever waits longer than acquireTimeoutMs hears 451 4.3.2, and the next one is served',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      account: { max_connections: 1 },
      upstreams: { acquireTimeoutMs: 150 },
    });
    let goOn = (): void => {};
    const until = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    room.provider.smtp.script('end-of-data', {}, { until, normal: true });
    const first = room.send();
    await waitFor(() => room.upstreams.status(ANN)?.counts.busy === 1);
    const second = await room.send();
    assert.deepEqual([second.final?.code, second.final?.enhanced], [451, '4.3.2']);
    goOn();
    assert.equal((await first).final?.code, 250);
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.messages.length, 2);
  }),
);

test(
  "one account's trouble never delays another's mail",
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { users: [ANN, BEN] });
    room.provider.smtp.script('MAIL', { user: ANN, times: Number.POSITIVE_INFINITY }, { after: 'hang' });
    const stuck = room.send({ from: ANN });
    await waitFor(() => room.upstreams.status(ANN)?.counts.busy === 1);
    for (let i = 0; i < 5; i++) assert.equal((await room.send({ from: BEN })).final?.code, 250);
    await room.provider.smtp.down(true);
    assert.equal((await stuck).final?.code, 451);
  }),
);

test(
  'a connection is replaced after its number of messages',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { messages_per_connection: 3 } });
    for (let i = 0; i < 7; i++) assert.equal((await room.send()).final?.code, 250);
    const perConnection = new Map<number, number>();
    for (const m of room.provider.messages)
      perConnection.set(m.connectionId, (perConnection.get(m.connectionId) ?? 0) + 1);
    assert.deepEqual([...perConnection.values()].sort(), [1, 3, 3]);
  }),
);

test(
  'a connection is recycled before the provider closes it, and the next message finds a warm one',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      account: { idle_timeout_ms: 20_000 },
      clock: createFastClock(10),
    });
    // The maintenance round replaces what will run out; nobody sends meanwhile.
    await waitFor(() => room.provider.smtp.connections > 1, { timeoutMs: 15_000 });
    await waitFor(() => room.upstreams.status(ANN)?.counts.idle === 1);
    const before = room.provider.smtp.connections;
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.smtp.connections, before);
  }),
);

test(
  '535 renews the token once on a fresh connection; a second one is a state of the account',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { warm: false });
    const bad = { reply: '535 5.7.8 Username and Password not accepted' };
    room.provider.smtp.script('AUTH', {}, bad);
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.token.count(ANN), 2);

    const rejected = await startRoom(defer, { warm: false });
    rejected.provider.smtp.script('AUTH', { times: Number.POSITIVE_INFINITY }, bad);
    const heard = await rejected.send();
    assert.deepEqual([heard.mail.code, heard.mail.enhanced], [451, '4.7.0']);
    assert.equal(rejected.provider.token.count(ANN), 2);
    assert.equal(rejected.upstreams.status(ANN)?.state.status, 'needs_consent');
    // Paused: the next message asks neither the token endpoint nor the upstream.
    const attempts = rejected.provider.smtp.connections;
    assert.equal((await rejected.send()).mail.code, 451);
    assert.equal(rejected.provider.smtp.connections, attempts);
    assert.equal(rejected.provider.token.count(ANN), 2);
  }),
);

test(
  '535 5.7.139 is never retried and names the cure',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { warm: false, provider: { flavour: 'microsoft' } });
    room.provider.smtp.script(
      'AUTH',
      { times: Number.POSITIVE_INFINITY },
      {
        reply:
          '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. [X]',
      },
    );
    const heard = await room.send();
    assert.equal(heard.mail.code, 451);
    assert.match(heard.mail.text, /5\.7\.139/);
    assert.equal(room.provider.token.count(ANN), 1);
    assert.equal(room.provider.smtp.connections, 1);
    const state = room.upstreams.status(ANN)?.state;
    assert.equal(state?.status, 'misconfigured');
    assert.equal(state?.cause, 'smtp-auth-off-tenant');
  }),
);

test(
  '454 stops new logins while live connections go on being used',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { max_connections: 3 } });
    room.provider.smtp.script(
      'AUTH',
      { times: Number.POSITIVE_INFINITY },
      { reply: '454 4.7.0 Too many login attempts, please try again later.' },
    );
    const codes = (await Promise.all(Array.from({ length: 6 }, () => room.send()))).map((h) => h.final?.code);
    assert.ok(codes.includes(250));
    await waitFor(() => room.upstreams.status(ANN)?.state.status === 'throttled');
    const connections = room.provider.smtp.connections;
    for (let i = 0; i < 3; i++) assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.smtp.connections, connections);
  }),
);

test(
  'the breaker opens when several accounts find the upstream failing, and one probe closes it',
  leakless(async (_t, defer) => {
    const users = [ANN, BEN, EVA];
    const room = await startRoom(defer, { users, warm: false, clock: createFastClock(10) });
    await room.provider.smtp.down();
    const breaker = (): string | undefined => room.upstreams.breakers()[0]?.state;
    for (let i = 0; i < 5; i++) {
      const heard = await room.send({ from: ANN });
      assert.deepEqual([heard.mail.code, heard.mail.enhanced], [451, '4.4.1']);
    }
    assert.equal(breaker(), 'closed', 'one account alone says nothing about the provider');
    assert.equal(room.upstreams.status(ANN)?.state.status, 'unreachable');
    for (let i = 0; i < 12 && breaker() === 'closed'; i++)
      await room.send({ from: users[i % users.length] ?? ANN });
    assert.equal(breaker(), 'open');
    const refused = await room.send({ from: EVA });
    assert.deepEqual([refused.mail.code, refused.mail.enhanced], [451, '4.3.2']);
    await room.provider.smtp.up();
    await waitFor(() => breaker() === 'half_open');
    assert.equal((await room.send({ from: BEN })).final?.code, 250);
    assert.equal(breaker(), 'closed');
    for (const from of users) assert.equal((await room.send({ from })).final?.code, 250);
  }),
);

for (const [what, options] of [
  [
    'of another name',
    () => ({ provider: { certificate: issueCertificate({ names: ['elsewhere.example'] }) } }),
  ],
  [
    'that has run out',
    () => ({ provider: { certificate: issueCertificate({ notAfter: new Date(Date.now() - 86_400_000) }) } }),
  ],
  ['signed by nobody known', () => ({ ca: issueCertificate().certPem })],
] as const) {
  test(
    `a certificate ${what} is refused, and nothing is sent`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, { warm: false, ...options() });
      const heard = await room.send();
      assert.deepEqual([heard.mail.code, heard.mail.enhanced], [451, '4.4.1']);
      assert.equal(room.provider.smtp.logins(), 0);
    }),
  );
}

test(
  'without STARTTLS there is no login in clear text',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      warm: false,
      provider: { rules: { withhold: ['STARTTLS' as never] } },
    });
    room.provider.smtp.script(
      'STARTTLS',
      { times: Number.POSITIVE_INFINITY },
      { reply: '502 5.5.1 not here' },
    );
    const heard = await room.send();
    assert.equal(heard.mail.code, 451);
    assert.equal(room.provider.smtp.logins(), 0);
    for (const session of room.provider.smtp.sessions)
      assert.doesNotMatch(session.transcript.join('\n'), /AUTH XOAUTH2/);
  }),
);

test(
  'implicit TLS, and a token of 2,500 octets, which Gmail refuses in one line',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { warm: false });
    room.provider.token.tokenOctets = 2_500;
    assert.equal((await room.send()).final?.code, 250);
    const other = await startRoom(defer, { warm: false, provider: { flavour: 'microsoft' } });
    assert.equal((await other.send()).final?.code, 250);
  }),
);

test(
  'replies that come octet by octet are read the same',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    (room.provider.smtp.timing as { splitReplies: boolean }).splitReplies = true;
    assert.equal((await room.send({ to: ['a@x.net', 'b@x.net'] })).final?.code, 250);
  }),
);

test(
  'a reply too many closes that connection and never reaches another message',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { max_connections: 1 } });
    const twice = { raw: '250 2.0.0 OK first\r\n550 5.7.1 for somebody else\r\n' };
    // On the first message of a connection either may be the verdict: nobody hears a 250 that may be none.
    room.provider.smtp.script('end-of-data', {}, twice);
    assert.match((await room.send()).final?.text ?? '', /^delivery status unknown/);
    assert.equal((await room.send()).final?.code, 250);
    room.provider.smtp.script('end-of-data', {}, twice);
    assert.equal((await room.send()).final?.text, 'OK first');
    assert.equal((await room.send()).final?.code, 250);
    const ids = new Set(room.provider.submissions.map((s) => s.connectionId));
    assert.equal(ids.size, 3);
  }),
);

for (const [what, raw] of [
  ['garbage', '\x00\x01garbage\r\n'],
  ['HTML', '<html>502 Bad Gateway</html>\r\n'],
  ['an endless line', 'x'.repeat(40_000)],
] as const) {
  test(
    `${what} in place of a reply: 451, the process lives, the next message goes`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer);
      room.provider.smtp.script('MAIL', {}, { raw });
      assert.equal((await room.send()).final?.code, 451);
      room.provider.smtp.script('greeting', {}, { raw, after: 'close' });
      assert.equal((await room.send()).mail.code, 451);
      assert.equal((await room.send()).final?.code, 250);
    }),
  );
}

test(
  'messages per minute: a short wait inside maxHoldMs, else 451 4.7.1 with the seconds; nothing sent, nothing counted',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { messages_per_minute: 3 }, relay: { maxHoldMs: 50 } });
    const { transaction } = await room.mail();
    transaction?.abort();
    for (let i = 0; i < 3; i++) assert.equal((await room.send()).final?.code, 250);
    const heard = await room.send();
    assert.deepEqual([heard.mail.code, heard.mail.enhanced], [451, '4.7.1']);
    assert.match(heard.mail.text, /in \d+ s/);
  }),
);

test(
  'recipients above the account limit hear 452 4.5.3',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { max_recipients: 2 } });
    const heard = await room.send({ to: ['a@x.net', 'b@x.net', 'c@x.net'] });
    assert.deepEqual(
      heard.rcpts.map((r) => r.code),
      [250, 250, 452],
    );
    assert.equal(heard.final?.code, 250);
  }),
);

test(
  'a large body streams with flat memory while the upstream is slow to take it',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { provider: { record: false } });
    const piece = mailOf(256 * 1024);
    const { transaction } = await room.mail();
    assert.ok(transaction);
    await transaction.rcpt([{ address: 'bob@example.net', parameters: [] }]);
    const writer = transaction.body();
    for (let i = 0; i < 120; i++) await writer.write(piece);
    assert.equal((await writer.end()).code, 250);
    assert.equal(room.provider.messages[0]?.bytes, 120 * piece.length);
  }),
);

test(
  'logins of one account keep their distance; accounts do not wait for each other',
  leakless(async (_t, defer) => {
    const dial = createDialer();
    const at: number[] = [];
    const room = await startRoom(defer, {
      users: [ANN, BEN],
      account: { login_interval_ms: 200, min_connections: 3, max_connections: 3 },
      open: {
        dial: (...target) => {
          at.push(performance.now());
          return dial(...target);
        },
      },
    });
    assert.equal(room.provider.smtp.logins(ANN), 3);
    assert.equal(at.length, 6);
    // Less than 200: where a timer fires late the next one does not wait for it.
    for (const i of [2, 3, 4, 5]) assert.ok((at[i] ?? 0) - (at[i - 2] ?? 0) >= 180, at.join(' '));
    // One after the other they would take five times their distance.
    assert.ok((at[5] ?? 0) - (at[0] ?? 0) < 5 * 200, at.join(' '));
  }),
);

test(
  'upstream connections leave from local_address, name the server and resume TLS sessions',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      account: { local_address: '127.0.0.2', messages_per_connection: 1 },
    });
    for (let i = 0; i < 3; i++) assert.equal((await room.send()).final?.code, 250);
    const { sessions } = room.provider.smtp;
    for (const session of sessions) {
      assert.equal(session.remoteAddress, '127.0.0.2');
      assert.equal(session.authForm, 'two-step');
    }
    // A resumed handshake names no server again.
    assert.equal(sessions[0]?.servername, 'localhost');
    assert.ok(sessions.slice(1).some((s) => s.tlsResumed));
  }),
);

test(
  'a server that cuts whoever resumes a TLS session is not asked to again',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { messages_per_connection: 1, min_connections: 0 } });
    assert.equal((await room.send()).final?.code, 250);
    room.provider.smtp.rules.cutsResumed = true;
    const codes: unknown[] = [];
    for (let i = 0; i < 4; i++) codes.push((await room.send()).final?.code);
    // Two may have begun before the first has failed.
    assert.deepEqual(codes.slice(2), [250, 250]);
  }),
);

test(
  'a parked account closes its connections as they fall idle, finishes what is under way, and warms up again',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { min_connections: 2, max_connections: 2 } });
    const { transaction } = await room.mail();
    assert.ok(transaction);
    await transaction.rcpt([{ address: 'a@x.net', parameters: [] }]);
    await transaction.rcpt([{ address: 'b@x.net', parameters: [] }]);
    room.relay.drain(ANN);
    room.upstreams.lookAfter(ANN);
    await waitFor(() => room.provider.smtp.open === 1);
    const writer = transaction.body();
    await writer.write(Buffer.from('x\r\n'));
    assert.equal((await writer.end()).code, 250);
    await waitFor(() => room.provider.smtp.open === 0);
    room.relay.resume(ANN);
    room.upstreams.lookAfter(ANN);
    await waitFor(() => room.upstreams.status(ANN)?.counts.idle === 2);
    assert.equal((await room.send()).final?.code, 250);
  }),
);

test(
  'a token endpoint that answers 404: every message hears of the token, nobody that connections are busy',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      warm: false,
      account: { login_interval_ms: 10_000 },
      upstreams: { acquireTimeoutMs: 100 },
    });
    room.provider.token.queue({ status: 404, body: 'not here' }, { times: 50 });
    const heard: string[] = [];
    for (let i = 0; i < 4; i++) heard.push((await room.mail()).reply.text);
    const all = await Promise.all(Array.from({ length: 8 }, () => room.mail()));
    heard.push(...all.map(({ reply }) => reply.text));
    for (const text of heard) assert.match(text, /token/, text);
    assert.ok(all.every(({ reply }) => reply.code === 451));
  }),
);

test(
  'a provider that stays silent again when the envelope is said again: RCPT is answered within its 5 minutes',
  leakless(async (_t, defer) => {
    const clock = createFastClock(100);
    const room = await startRoom(defer, {
      clock,
      account: { min_connections: 2 },
      open: { connectTimeoutMs: 300_000 },
      upstreams: { acquireTimeoutMs: 30_000 },
    });
    room.provider.smtp.script('MAIL', { times: 2 }, { after: 'hang' });
    const { transaction } = await room.mail();
    await transaction?.rcpt([{ address: 'one@example.net', parameters: [] }]);
    const since = clock.monotonic();
    const replies = await transaction?.rcpt([{ address: 'two@example.net', parameters: [] }]);
    assert.deepEqual(
      replies?.map((r) => r.code),
      [451],
    );
    assert.ok(clock.monotonic() - since < 300_000, `${Math.round((clock.monotonic() - since) / 1000)} s`);
    transaction?.abort();
  }),
);
