import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseReply } from '../../src/protocol/reply-parser.ts';
import { judge, type Stage, type Verdict } from '../../src/protocol/verdict.ts';
import { createAccountHealth } from '../../src/upstream/account-health.ts';

const MINUTE = 60_000;
const T0 = 1_800_000_000_000;

function said(stage: Stage, wire: string): Verdict {
  const reply = parseReply(wire);
  assert.ok(reply);
  return judge({ kind: 'reply', stage, reply, reused: true, account: 'a' });
}

test('a rejected login is probed after 1, 5, 15 and then every 60 minutes, by one login each', () => {
  const health = createAccountHealth();
  const rejected = said('auth', '535 5.7.3 Authentication unsuccessful');
  let now = T0;
  for (const minutes of [1, 5, 15, 60, 60]) {
    health.suffered(rejected, now);
    assert.equal(health.state(now).status, 'needs_consent');
    assert.equal(health.mayLogIn(now + minutes * MINUTE - 1), false);
    assert.ok(health.gate('logins', now + minutes * MINUTE - 1));
    now += minutes * MINUTE;
    assert.equal(health.mayLogIn(now), true);
    assert.equal(health.gate('logins', now), undefined, 'the probe goes ahead');
    assert.ok(health.gate('logins', now), 'and nobody beside it');
  }
  assert.equal(health.succeeded('logins', now), true);
  assert.equal(health.state(now).status, 'ready');
  health.suffered(rejected, now);
  assert.equal(health.mayLogIn(now + MINUTE), true, 'the steps begin anew');
});

test('a gate that refuses repeats the answer and asks for nothing a second time', () => {
  const health = createAccountHealth();
  health.suffered(said('auth', '454 4.7.0 Too many login attempts, please try again later.'), T0);
  const standing = health.gate('logins', T0 + 1);
  assert.equal(standing?.answer.code, 451);
  assert.deepEqual(
    [standing?.renewToken, standing?.breaker, standing?.pause, standing?.slowDown],
    [false, 'none', undefined, false],
  );
  assert.equal(health.gate('sending', T0 + 1), undefined, 'live connections go on being used');
});

test('a daily limit pauses sending for an hour; a message that goes through ends it', () => {
  const health = createAccountHealth();
  assert.equal(health.suffered(said('end', '550 5.4.5 Daily user sending limit exceeded.'), T0), true);
  assert.equal(health.state(T0).status, 'throttled');
  assert.equal(health.state(T0).until, T0 + 60 * MINUTE);
  assert.equal(health.gate('sending', T0 + 59 * MINUTE)?.answer.code, 452);
  assert.equal(health.gate('sending', T0 + 60 * MINUTE), undefined);
  health.succeeded('sending', T0 + 60 * MINUTE);
  assert.equal(health.gate('sending', T0 + 60 * MINUTE + 1), undefined);
});

test('complaints halve what goes on at once, for 30 s to 5 min, and it comes back', () => {
  const health = createAccountHealth();
  const busy = said('end', '432 4.3.2 Concurrent connections limit exceeded.');
  assert.equal(health.concurrency(8, T0), 8);
  health.suffered(busy, T0);
  assert.equal(health.concurrency(8, T0), 4);
  health.suffered(busy, T0 + 1);
  health.suffered(busy, T0 + 2);
  health.suffered(busy, T0 + 3);
  assert.equal(health.concurrency(8, T0 + 4), 1);
  assert.equal(health.concurrency(8, T0 + 3 + 5 * MINUTE - 1), 1);
  assert.equal(health.concurrency(8, T0 + 3 + 5 * MINUTE), 8);
});

test('an unreachable upstream shows until a login or a message succeeds', () => {
  const health = createAccountHealth();
  const lost = judge({
    kind: 'lost',
    stage: 'connect',
    cause: 'tcp',
    reused: false,
    finalByteSent: false,
    detail: 'refused',
  });
  assert.equal(health.suffered(lost, T0), true);
  assert.equal(health.suffered(lost, T0), false, 'announced once');
  assert.equal(health.state(T0).status, 'unreachable');
  assert.equal(health.mayLogIn(T0), true);
  assert.equal(health.succeeded('logins', T0), true);
  assert.equal(health.state(T0).status, 'ready');
});
