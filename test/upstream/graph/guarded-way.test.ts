import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatReply } from '../../../src/protocol/reply.ts';
import { createGuardedWay } from '../../../src/upstream/graph/guarded-way.ts';
import { createOpenQuestion } from '../../../src/upstream/graph/open-question.ts';
import type { Trace, Way } from '../../../src/upstream/way.ts';
import { createTestClock } from '../../support/clock.ts';

test('whether a message may begin is asked by the way behind the guard, whatever went by Graph', async () => {
  for (const went of [false, true]) {
    const heard: unknown[] = [];
    const way = {
      ready: async () => undefined,
      begin: (...args: unknown[]) => void heard.push(...args),
    } as unknown as Way;
    const guarded = createGuardedWay(way, { mayBeKnown: async () => went, settle: async () => undefined });
    await guarded.ready();
    const [trace, mayBegin] = [{} as Trace, () => undefined];
    guarded.begin(trace, mayBegin);
    assert.deepEqual(heard, [trace, mayBegin]);
  }
});

test('where it cannot be known whether the message was begun by Graph it waits', async () => {
  const way = { ready: async () => undefined } as unknown as Way;
  const guarded = createGuardedWay(way, {
    mayBeKnown: () => Promise.reject(new Error('Redis is away')),
    settle: async () => undefined,
  });
  const refusal = await guarded.ready();
  assert.match(refusal === undefined ? '' : formatReply(refusal), /^451 4\.3\.0 /);
});

test('only mail of a sender of whom something is open by Graph is held; unknown, it is as it was last', async () => {
  const clock = createTestClock();
  let open: readonly string[] | 'unknown' = [];
  let asked = 0;
  const question = createOpenQuestion(async (sender) => {
    asked++;
    if (open === 'unknown') throw new Error('Redis is away');
    return sender === undefined ? open.length > 0 : open.includes(sender);
  }, clock);
  const later = async (now: typeof open): Promise<boolean[]> => {
    open = now;
    clock.advance(1_000);
    return [await question.isOpen(() => 'ann'), await question.isOpen(() => 'bob')];
  };
  assert.deepEqual(await later([]), [false, false]);
  assert.equal(asked, 1, 'where nothing is open nobody is asked for by name');
  assert.deepEqual(await later(['ann']), [true, false]);
  assert.deepEqual(await later('unknown'), [true, false]);
  assert.deepEqual(await later(['bob']), [false, true]);
  assert.deepEqual(await later([]), [false, false]);
  assert.deepEqual(await later('unknown'), [false, false]);
});

test('of a sender whose message was begun here it is known that something may be open, asked for or not', async () => {
  let isAway = false;
  const question = createOpenQuestion(async () => {
    if (isAway) throw new Error('Redis is away');
    return false;
  }, createTestClock());
  const overs = ['ann', 'bob', 'cal'].map((sender) => question.begin(sender));
  isAway = true;
  overs[0]?.(false);
  overs[1]?.(true);
  const open = await Promise.all(['ann', 'bob', 'cal', 'dan'].map((sender) => question.isOpen(() => sender)));
  assert.deepEqual(open, [true, false, true, false]);
  isAway = false;
  assert.equal(await question.isOpen(() => 'ann'), false);
  isAway = true;
  assert.equal(await question.isOpen(() => 'ann'), false);
});
