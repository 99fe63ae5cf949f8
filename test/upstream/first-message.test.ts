import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestClock } from '../support/clock.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { ANN, type Room, type RoomOptions, startRoom } from '../support/relay-room.ts';
import { tokenAnswers } from '../support/token-answers.ts';
import { waitFor } from '../support/wait-for.ts';

/** A cold account, and what the server heard. */
async function coldRoom(defer: Defer, options: RoomOptions = {}) {
  const heard: string[] = [];
  const room: Room = await startRoom(defer, {
    warm: false,
    ...options,
    provider: { observe: (_connection, who, line) => heard.push(`${who}: ${line}`), ...options.provider },
  });
  let answer = (): void => {};
  const until = new Promise<void>((resolve) => {
    answer = resolve;
  });
  defer(() => answer());
  const commands = (): string[] =>
    heard.filter((line) => line.startsWith('C: ')).map((line) => line.slice(3).split(' ')[0] ?? '');
  return { room, heard, commands, until, answer };
}

test(
  'while the first token is fetched the connection is opened as far as EHLO; AUTH waits for the token',
  leakless(async (_t, defer) => {
    const { room, commands, until, answer } = await coldRoom(defer);
    room.provider.token.queue({ normal: true, until });
    const sent = room.send();
    await waitFor(() => commands().includes('EHLO'));
    assert.equal(room.provider.token.issuedTokens().length, 0);
    assert.ok(!commands().includes('AUTH'));
    answer();
    assert.equal((await sent).final?.code, 250);
    assert.equal(room.provider.smtp.connections, 1);
    assert.equal(room.provider.token.count(ANN), 1);
  }),
);

test(
  'a token that does not come closes the connection, says nothing on it and blames nobody for it',
  leakless(async (_t, defer) => {
    const { room, heard, commands, until, answer } = await coldRoom(defer);
    room.provider.token.queue({ ...tokenAnswers.googleRevoked, until });
    const sent = room.send();
    await waitFor(() => commands().includes('EHLO'));
    answer();
    const { mail } = await sent;
    assert.equal(mail.code, 451);
    assert.match(mail.text, /re-authorisation/);
    await waitFor(() => room.provider.smtp.open === 0);
    assert.deepEqual(
      commands().filter((command) => command !== 'EHLO' && command !== 'STARTTLS' && command !== 'QUIT'),
      [],
    );
    assert.deepEqual(
      room.upstreams.breakers().map(({ state, faults }) => [state, faults]),
      [['closed', 0]],
    );
    assert.equal(room.upstreams.status(ANN)?.state.status, 'ready');
    // The account waits for a person: nothing is opened for what is known.
    const lines = heard.length;
    assert.equal((await room.send()).mail.code, 451);
    assert.equal(room.provider.smtp.connections, 1);
    assert.equal(heard.length, lines);
  }),
);

test(
  'a token that is there, or that a standing failure keeps away, has no connection opened before it',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const { room, heard } = await coldRoom(defer, { clock, users: [ANN, 'ben@example.com'] });
    // No time passes on this clock, so nothing is late.
    room.provider.token.queue(tokenAnswers.googleRevoked);
    assert.equal((await room.send()).mail.code, 451);
    assert.equal(room.provider.smtp.connections, 0);
    assert.deepEqual(heard, []);
    await room.tokens.precache(['ben@example.com']);
    assert.equal((await room.send({ from: 'ben@example.com' })).final?.code, 250);
  }),
);

test(
  'the time a token takes is not the time of the server: its limit goes on when the token is there',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const { room, commands, until, answer } = await coldRoom(defer, {
      clock,
      upstreams: { acquireTimeoutMs: 300_000 },
    });
    room.provider.token.queue({ normal: true, until });
    const sent = room.send();
    await waitFor(() => room.provider.token.requests.length === 1);
    clock.advance(10);
    await waitFor(() => commands().includes('EHLO'));
    // Left are the round of maintenance and the message that waits.
    await waitFor(() => clock.pending() === 2);
    // Beyond what connecting, EHLO and AUTH may take together.
    clock.advance(60_000);
    answer();
    assert.equal((await sent).final?.code, 250);
    assert.equal(room.provider.smtp.connections, 1);
  }),
);

test(
  'a login that the token failed is not waited for again',
  leakless(async (_t, defer) => {
    const { room, commands, until, answer } = await coldRoom(defer, {
      account: { login_interval_ms: 60_000 },
      upstreams: { acquireTimeoutMs: 5_000 },
    });
    room.provider.token.queue({ status: 503, body: 'later', until });
    const first = room.send();
    await waitFor(() => commands().includes('EHLO'));
    answer();
    assert.equal((await first).mail.code, 451);
    assert.equal((await room.send()).final?.code, 250);
  }),
);

for (const style of ['unsolicited', 'eof'] as const)
  test(
    `a server that closes while the token is awaited (${style}) is asked again when it is there, and not blamed`,
    leakless(async (_t, defer) => {
      const { room, commands, until, answer } = await coldRoom(defer);
      room.provider.token.queue({ normal: true, until });
      const sent = room.send();
      await waitFor(() => commands().filter((command) => command === 'EHLO').length === 2);
      await waitFor(() => room.provider.smtp.disturb(style) === 1);
      await waitFor(() => room.provider.smtp.open === 0);
      answer();
      assert.equal((await sent).final?.code, 250);
      assert.equal(room.provider.smtp.connections, 2);
      assert.deepEqual(
        room.upstreams.breakers().map(({ state, faults }) => [state, faults]),
        [['closed', 0]],
      );
    }),
  );
