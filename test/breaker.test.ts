import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { createBreaker } from '../src/breaker.ts';

type Result = 'fine' | 'fault';

const start = (changes: string[] = []) =>
  createBreaker<Result>(
    'https://t/token',
    (r) => r === 'fault',
    (state) => changes.push(state),
    {
      volume: 4,
      restMs: 1000,
    },
  );

test('faults open it, one probe after the rest decides', async (t) => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'] });
  t.after(() => mock.timers.reset());
  const changes: string[] = [];
  const breaker = start(changes);
  let calls = 0;
  const fault = async (): Promise<Result> => {
    calls += 1;
    return 'fault';
  };
  for (let i = 0; i < 4; i += 1) assert.equal(await breaker.run(fault), 'fault');
  assert.equal(breaker.state().state, 'open');
  assert.equal(breaker.probeAt(), Date.now() + 1000);
  assert.equal(await breaker.run(fault), undefined);
  assert.equal(calls, 4);
  mock.timers.tick(1000);
  assert.equal(breaker.state().state, 'half_open');
  const probes = await Promise.all([breaker.run(fault), breaker.run(fault), breaker.run(fault)]);
  assert.deepEqual(probes, ['fault', undefined, undefined]);
  assert.equal(breaker.state().state, 'open');
  mock.timers.tick(1000);
  assert.equal(await breaker.run(async () => 'fine'), 'fine');
  assert.equal(breaker.state().state, 'closed');
  assert.deepEqual(changes, ['open', 'open', 'closed']);
  breaker.close();
});

test("results that are nobody's fault and rejections never open it", async () => {
  const breaker = start();
  for (let i = 0; i < 50; i += 1) {
    assert.equal(await breaker.run(async () => 'fine'), 'fine');
    await assert.rejects(
      breaker.run(async () => {
        throw new Error('ours');
      }),
      /ours/,
    );
  }
  assert.equal(breaker.state().state, 'closed');
  assert.equal(breaker.state().faults, 0);
  breaker.close();
});
