import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge } from '../../src/protocol/verdict.ts';
import type { KeptPause } from '../../src/upstream/account-health.ts';
import { createTestClock } from '../support/clock.ts';
import { leakless } from '../support/leak-check.ts';
import { ANN, startRoom } from '../support/relay-room.ts';
import { waitFor } from '../support/wait-for.ts';

test(
  'an account that does not send has no upstream of its own, and its state is known all the same',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { warm: false, account: { max_connections: 2 } });
    assert.deepEqual(room.ways.status(ANN), {
      way: 'smtp',
      counts: { size: 0, idle: 0, busy: 0, max: 2 },
      state: { status: 'ready' },
    });
    assert.deepEqual(await room.upstreams.retryNow(), []);
    assert.equal(room.ways.live(ANN), 0);
    assert.deepEqual(room.upstreams.pausesOf(ANN), []);
    assert.equal(room.upstreams.pausesOf('nobody@example.com'), undefined);
    assert.equal(room.upstreams.peek(ANN), undefined);
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.upstreams.peek(ANN)?.live, 1);
  }),
);

test(
  'an account that has not sent for an hour and has no connection is let go; trouble is remembered',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    const users = [ANN, 'ben@example.com'];
    const room = await startRoom(defer, { users, clock, warm: false, account: { min_connections: 0 } });
    assert.equal((await room.send()).final?.code, 250);
    room.upstreams.restorePauses({ 'ben@example.com': [aPause(clock.now() + 86_400_000)] });
    await waitFor(() => {
      clock.advance(10_000);
      return room.upstreams.peek(ANN)?.live === 0;
    });
    clock.advance(3_000_000);
    assert.notEqual(room.upstreams.peek(ANN), undefined);
    await waitFor(() => {
      clock.advance(100_000);
      return room.upstreams.peek(ANN) === undefined;
    });
    assert.equal(room.upstreams.status('ben@example.com')?.state.status, 'throttled');
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.upstreams.peek(ANN)?.live, 1);
  }),
);

test(
  'a connection of an idle account that ends is not replaced; of one that sends it is',
  leakless(async (_t, defer) => {
    const clock = createTestClock();
    let isIdle = true;
    const room = await startRoom(defer, { clock, isIdle: () => isIdle });
    const size = async (): Promise<number | undefined> => {
      clock.advance(5_000);
      await new Promise((resolve) => setImmediate(resolve));
      return room.upstreams.status(ANN)?.counts.size;
    };
    assert.equal(await size(), 1);
    room.provider.smtp.disturb('eof');
    await waitFor(() => room.upstreams.status(ANN)?.counts.size === 0);
    assert.equal(await size(), 0);
    isIdle = false;
    assert.equal(await size(), 1);
    await waitFor(() => room.provider.smtp.connections === 2);
  }),
);

test(
  'twenty connections that open at once are no leak to Node',
  leakless(async (_t, defer) => {
    const warnings: Error[] = [];
    const hear = (warning: Error): number => warnings.push(warning);
    process.on('warning', hear);
    defer(() => process.off('warning', hear));
    const room = await startRoom(defer, { account: { max_connections: 20, min_connections: 20 } });
    await waitFor(() => room.upstreams.status(ANN)?.counts.size === 20);
    assert.deepEqual(
      warnings.filter(({ name }) => name === 'MaxListenersExceededWarning'),
      [],
    );
  }),
);

const aPause = (until: number): KeptPause => {
  const verdict = judge({
    kind: 'reply',
    stage: 'mail',
    reply: { code: 451, enhanced: '4.7.0', text: 'later' },
    account: 'ben@example.com',
  });
  return { pause: { scope: 'sending', stepsMinutes: [1_440], status: 'throttled' }, verdict, step: 0, until };
};
