import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createBreaker } from '../src/breaker.ts';
import { createTestClock } from './support/clock.ts';

type Result = 'fine' | 'fault';

const start = (changes: string[] = [], clock = createTestClock()) => ({
  clock,
  breaker: createBreaker<Result>(
    'https://t/token',
    (r) => r === 'fault',
    (state) => changes.push(state),
    { volume: 4, restMs: 1000, maxRestMs: 3000, clock },
  ),
});

/** What was seen outside calls is counted in a turn of its own. */
const counted = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const fault = async (): Promise<Result> => 'fault';
const fine = async (): Promise<Result> => 'fine';

test('faults open it, one probe after the rest decides; a failed probe doubles the rest', async () => {
  const changes: string[] = [];
  const { breaker, clock } = start(changes);
  let calls = 0;
  const counted = async (): Promise<Result> => {
    calls += 1;
    return 'fault';
  };
  for (let i = 0; i < 4; i += 1) assert.equal(await breaker.run(counted), 'fault');
  assert.equal(breaker.state().state, 'open');
  assert.equal(breaker.probeAt(), clock.now() + 1000);
  assert.equal(await breaker.run(counted), undefined);
  assert.equal(calls, 4);
  clock.advance(1000);
  assert.equal(breaker.state().state, 'half_open');
  const probes = await Promise.all([breaker.run(fault), breaker.run(fault), breaker.run(fault)]);
  assert.deepEqual(probes, ['fault', undefined, undefined]);
  assert.equal(breaker.state().state, 'open');
  assert.equal(breaker.probeAt(), clock.now() + 2000);
  clock.advance(1999);
  assert.equal(await breaker.run(fine), undefined);
  clock.advance(1);
  assert.equal(await breaker.run(fault), 'fault');
  assert.equal(breaker.probeAt(), clock.now() + 3000);
  clock.advance(3000);
  assert.equal(await breaker.run(fine), 'fine');
  assert.equal(breaker.state().state, 'closed');
  assert.deepEqual(changes, ['open', 'open', 'open', 'closed']);
});

test("results that are nobody's fault and rejections never open it", async () => {
  const { breaker } = start();
  for (let i = 0; i < 50; i += 1) {
    assert.equal(await breaker.run(fine), 'fine');
    await assert.rejects(
      breaker.run(async () => {
        throw new Error('ours');
      }),
      /ours/,
    );
  }
  assert.equal(breaker.state().state, 'closed');
  assert.equal(breaker.state().faults, 0);
});

test('what is well dilutes trouble, and trouble is forgotten with the window', async () => {
  const { breaker, clock } = start();
  for (let i = 0; i < 10; i += 1) breaker.saw(false);
  for (let i = 0; i < 9; i += 1) breaker.saw(true);
  await counted();
  assert.equal(breaker.state().state, 'closed');
  clock.advance(70_000);
  assert.equal(breaker.state().faults, 0);
  for (let i = 0; i < 3; i += 1) breaker.saw(true);
  await counted();
  assert.equal(breaker.state().state, 'closed', 'below the volume');
  assert.equal(breaker.state().openedAt, undefined);
  breaker.saw(true);
  await counted();
  assert.equal(breaker.state().state, 'open');
  assert.equal(breaker.state().openedAt, clock.now());
});

test('the wall clock may step while it rests', async () => {
  const { breaker, clock } = start();
  for (let i = 0; i < 4; i += 1) await breaker.run(fault);
  for (const step of [3_600_000, -7_200_000]) {
    clock.step(step);
    assert.equal(await breaker.run(fine), undefined);
  }
  clock.advance(1000);
  assert.equal(await breaker.run(fine), 'fine');
});

test('what another process found spares the attempt, a little longer than it; so does its cure', async () => {
  const changes: string[] = [];
  const { breaker, clock } = start(changes);
  breaker.heard(1000);
  assert.equal(breaker.state().state, 'open');
  clock.advance(1000);
  // The finder probes now.
  assert.equal(await breaker.run(fine), undefined);
  breaker.heard(undefined);
  assert.equal(await breaker.run(fine), 'fine');
  breaker.heard(1000);
  clock.advance(60_000);
  // Nothing was heard of the finder any more.
  assert.equal(await breaker.run(fault), 'fault');
  assert.equal(breaker.state().state, 'open');
  assert.deepEqual(changes, ['open']);
});
