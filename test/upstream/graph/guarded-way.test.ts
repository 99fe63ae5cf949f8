import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGuardedWay } from '../../../src/upstream/graph/guarded-way.ts';
import type { Trace, Way } from '../../../src/upstream/way.ts';

test('whether a message may begin is asked by the way behind the guard, whatever went by Graph', async () => {
  for (const went of [false, true]) {
    const heard: unknown[] = [];
    const way = {
      ready: async () => undefined,
      begin: (...args: unknown[]) => void heard.push(...args),
    } as unknown as Way;
    const guarded = createGuardedWay(way, { hasAny: async () => went, settle: async () => undefined });
    await guarded.ready();
    const [trace, mayBegin] = [{} as Trace, () => undefined];
    guarded.begin(trace, mayBegin);
    assert.deepEqual(heard, [trace, mayBegin]);
  }
});
