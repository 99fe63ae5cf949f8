import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseReply } from '../../src/protocol/reply-parser.ts';
import { judge, type Stage, type Verdict } from '../../src/protocol/verdict.ts';
import { createAccountHealth } from '../../src/upstream/account-health.ts';
import { createTestClock } from '../support/clock.ts';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

function said(stage: Stage, wire: string): Verdict {
  const reply = parseReply(wire);
  assert.ok(reply);
  return judge({ kind: 'reply', stage, reply, account: 'a' });
}

const BUSY = said('end', '432 4.3.2 Concurrent connections limit exceeded.');

function start(max = 8) {
  const clock = createTestClock();
  return { clock, health: createAccountHealth(() => max, clock) };
}

test('a rejected login is probed after 1, 5, 15 and then every 60 minutes, by one login each', () => {
  const { health, clock } = start();
  const rejected = said('auth', '535 5.7.3 Authentication unsuccessful');
  for (const minutes of [1, 5, 15, 60, 60]) {
    health.suffered(rejected);
    assert.equal(health.state.status, 'needs_consent');
    assert.equal(health.state.until, clock.now() + minutes * MINUTE);
    clock.advance(minutes * MINUTE - 1);
    assert.equal(health.mayLogIn(), false);
    assert.match(health.gate('logins')?.answer.text ?? '', /tried again in 1 s$/);
    clock.advance(1);
    assert.equal(health.mayLogIn(), true);
    assert.equal(health.gate('logins'), undefined, 'the probe goes ahead');
    assert.ok(health.gate('logins'), 'and nobody beside it');
  }
  assert.equal(health.succeeded('logins'), true);
  assert.equal(health.state.status, 'ready');
  health.suffered(rejected);
  clock.advance(MINUTE);
  assert.equal(health.mayLogIn(), true, 'the steps begin anew');
});

test('logins that are refused together take one step, and none that an operator asked for takes one', () => {
  const { health, clock } = start();
  const rejected = said('auth', '535 5.7.3 Authentication unsuccessful');
  for (let i = 0; i < 3; i++) health.suffered(rejected);
  assert.equal(health.state.until, clock.now() + MINUTE);
  for (let i = 0; i < 3; i++) {
    health.retryNow();
    assert.equal(health.gate('logins'), undefined);
    health.suffered(rejected);
    assert.equal(health.state.until, clock.now() + MINUTE);
  }
  clock.advance(MINUTE);
  assert.equal(health.gate('logins'), undefined);
  health.suffered(rejected);
  assert.equal(health.state.until, clock.now() + 5 * MINUTE);
});

test('a gate that refuses repeats the answer and asks for nothing a second time', () => {
  const { health } = start();
  health.suffered(said('auth', '454 4.7.0 Too many login attempts, please try again later.'));
  const standing = health.gate('logins');
  assert.equal(standing?.answer.code, 451);
  assert.match(standing?.answer.text ?? '', /tried again in 300 s/);
  assert.deepEqual(
    [standing?.renewToken, standing?.breaker, standing?.pause, standing?.slowDown],
    [false, 'none', undefined, false],
  );
  assert.equal(health.gate('sending'), undefined, 'live connections go on being used');
});

test('a daily limit pauses sending for an hour, whatever the wall clock does; a message that goes through ends it', () => {
  const { health, clock } = start();
  assert.equal(health.suffered(said('end', '550 5.4.5 Daily user sending limit exceeded.')), true);
  assert.equal(health.state.status, 'throttled');
  assert.equal(health.state.until, clock.now() + 60 * MINUTE);
  clock.step(2 * 60 * MINUTE);
  assert.equal(health.gate('sending')?.answer.code, 452);
  clock.step(-4 * 60 * MINUTE);
  clock.advance(60 * MINUTE);
  assert.equal(health.gate('sending'), undefined);
  health.succeeded('sending');
  assert.equal(health.gate('sending'), undefined);
});

test('complaints within 5 s are one, and all retries of one message are one', () => {
  const { health, clock } = start();
  assert.equal(health.concurrency, 8);
  const message = {};
  health.suffered(BUSY, message);
  for (let i = 0; i < 4; i++) health.suffered(BUSY, {});
  assert.equal(health.concurrency, 4);
  assert.equal(health.state.until, clock.now() + 5 * SECOND);
  clock.advance(6 * SECOND);
  health.suffered(BUSY, message);
  assert.equal(health.concurrency, 4, 'the same message again');
  health.suffered(BUSY, {});
  assert.equal(health.concurrency, 2, 'another one');
  assert.equal(health.state.until, clock.now() + 10 * SECOND);
});

test('after the slow time every round of successes adds one, and a minute without a complaint ends it', () => {
  const { health, clock } = start();
  health.suffered(BUSY, {});
  health.succeeded('sending');
  assert.equal(health.concurrency, 4, 'not during the slow time');
  clock.advance(5 * SECOND);
  for (let i = 0; i < 4; i++) health.succeeded('sending');
  assert.equal(health.concurrency, 5);
  for (let i = 0; i < 30; i++) health.succeeded('sending');
  assert.equal(health.concurrency, 8);
  assert.equal(health.state.status, 'ready');
  health.suffered(BUSY, {});
  clock.advance(10 * SECOND + MINUTE);
  assert.equal(health.concurrency, 8);
});

test('with one at a time there is nothing to halve', () => {
  const { health } = start(1);
  health.suffered(BUSY, {});
  assert.equal(health.concurrency, 1);
  assert.equal(health.state.status, 'ready');
});

test('the operator changed something: what is paused is tried at once, by one', () => {
  const { health } = start();
  assert.equal(health.retryNow(), false);
  health.suffered(said('auth', '535 5.7.139 SmtpClientAuthentication is disabled for the Tenant.'));
  assert.ok(health.gate('logins'));
  assert.equal(health.retryNow(), true);
  assert.equal(health.gate('logins'), undefined);
  assert.ok(health.gate('logins'));
  health.succeeded('logins');
  assert.equal(health.state.status, 'ready');
});

test('the first login after a restart takes no step of the pause', () => {
  const { health, clock } = start();
  const rejected = said('auth', '535 5.7.3 Authentication unsuccessful');
  health.suffered(rejected);
  clock.advance(MINUTE);
  const kept = health.kept();
  health.restore(kept);
  for (const minutes of [1, 5]) {
    assert.equal(health.gate('logins'), undefined);
    health.suffered(rejected);
    assert.equal(health.state.until, clock.now() + minutes * MINUTE);
    clock.advance(minutes * MINUTE);
  }
});

test('pauses survive a restart, for as long as they had left and never longer than they were', () => {
  const { health, clock } = start();
  health.suffered(said('end', '550 5.4.5 Daily user sending limit exceeded.'));
  clock.advance(20 * MINUTE);
  const kept = JSON.parse(JSON.stringify(health.kept()));
  const after = start();
  after.clock.step(clock.now() - after.clock.now());
  after.health.restore(kept);
  assert.equal(after.health.state.until, after.clock.now() + 40 * MINUTE);
  after.clock.step(-24 * 60 * MINUTE);
  after.health.restore(kept);
  assert.equal(after.health.state.until, after.clock.now() + 60 * MINUTE);
});

test('an unreachable upstream shows until a login or a message succeeds', () => {
  const { health } = start();
  const lost = judge({
    kind: 'lost',
    stage: 'connect',
    cause: 'tcp',
    reused: false,
    finalByteSent: false,
    detail: 'refused',
  });
  assert.equal(health.suffered(lost), true);
  assert.equal(health.suffered(lost), false, 'announced once');
  assert.equal(health.state.status, 'unreachable');
  assert.equal(health.mayLogIn(), true);
  assert.equal(health.succeeded('logins'), true);
  assert.equal(health.state.status, 'ready');
});
