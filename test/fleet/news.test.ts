import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createNews } from '../../src/fleet/news.ts';
import type { SharedState, SharedStates } from '../../src/fleet/shared-states.ts';
import { createTestClock } from '../support/clock.ts';

interface Pause {
  readonly pause: { readonly scope: string };
  readonly until: number;
}

function stage() {
  const clock = createTestClock();
  const told: string[] = [];
  const done: string[] = [];
  const drained: string[] = [];
  let hear: (subject: string, state: SharedState | undefined) => void = () => {};
  let beAsked: (action: string) => void = () => {};
  let know: (subjects: ReadonlySet<string>, epoch: string) => void = () => {};
  const states: SharedStates = {
    set: ({ subject, leftMs }) => void told.push(`set ${subject} ${leftMs}`),
    clear: (subject) => void told.push(`clear ${subject}`),
    ask: (action) => void told.push(`ask ${action}`),
    onState: (listener) => {
      hear = listener;
    },
    onAsked: (listener) => {
      beAsked = listener;
    },
    onKnown: (listener) => {
      know = listener;
    },
  };
  let pauses: readonly Pause[] | undefined = [];
  const news = createNews<Pause>({
    states,
    clock,
    pausesOf: () => pauses,
    takePause(id, pause) {
      const { until, wrong } = pause as { until: number; wrong?: boolean };
      if (wrong) throw new Error('no pause');
      done.push(`take ${id} ${until - clock.now()}`);
      pauses = [{ pause: { scope: 'sending' }, until }];
    },
    endPause(id, scope) {
      done.push(`end ${id} ${scope}`);
      pauses = [];
    },
    setDrained: (id, isDrained) => void done.push(`drained ${id} ${isDrained}`),
    drained: () => drained,
    refreshedElsewhere: (id) => void done.push(`again ${id}`),
    endpointHeard: (tokenUrl, leftMs) => void done.push(`rest ${tokenUrl} ${leftMs}`),
  });
  return {
    clock,
    told,
    done,
    drained,
    news,
    hear: (subject: string, state?: Omit<SharedState, 'subject'>) =>
      hear(subject, state === undefined ? undefined : { subject, ...state }),
    beAsked: (action: string) => beAsked(action),
    know: (epoch: string, ...subjects: string[]) => know(new Set(subjects), epoch),
    pause: (leftMs: number | undefined) => {
      pauses = leftMs === undefined ? [] : [{ pause: { scope: 'sending' }, until: clock.now() + leftMs }];
    },
  };
}

test('a pause is told once, again when it grows, and its end', () => {
  const { told, news, pause } = stage();
  pause(60_000);
  news.accountChanged('a:b@x');
  news.accountChanged('a:b@x');
  pause(300_000);
  news.accountChanged('a:b@x');
  pause(undefined);
  news.accountChanged('a:b@x');
  news.accountChanged('a:b@x');
  assert.deepEqual(told, [
    'set pause:sending:a:b@x 60000',
    'set pause:sending:a:b@x 300000',
    'clear pause:sending:a:b@x',
  ]);
});

test('what was heard is done here and not told back; its end here is told', () => {
  const { told, done, news, hear, pause } = stage();
  hear('pause:sending:a@x', { value: {}, leftMs: 5_000 });
  news.accountChanged('a@x');
  assert.deepEqual(done, ['take a@x 5000']);
  assert.deepEqual(told, []);
  pause(undefined);
  news.accountChanged('a@x');
  assert.deepEqual(told, ['clear pause:sending:a@x']);
  hear('pause:sending:a@x');
  assert.deepEqual(done.at(-1), 'end a@x sending');
});

test('what was told is told again when it is lost', () => {
  const { told, drained, news, pause } = stage();
  pause(60_000);
  news.accountChanged('a@x');
  drained.push('b@x');
  news.drained('b@x', true);
  news.tellAgain(['a@x']);
  assert.deepEqual(told, [
    'set pause:sending:a@x 60000',
    'set drained:b@x undefined',
    'set pause:sending:a@x 60000',
    'set drained:b@x undefined',
  ]);
});

test('what cannot be understood is left alone', () => {
  const { done, hear, beAsked } = stage();
  hear('pause:sending:a@x', { value: { wrong: true }, leftMs: 5_000 });
  hear('pause:sending:a@x', { value: 'text', leftMs: 5_000 });
  hear('pause:sending:a@x', { value: {}, leftMs: undefined });
  hear('weather:sun', { value: {}, leftMs: undefined });
  beAsked('dance:a@x');
  assert.deepEqual(done, []);
});

test('drained, resumed and refreshed go both ways', () => {
  const { told, done, news, hear, beAsked } = stage();
  news.drained('a@x', true);
  news.drained('a@x', false);
  news.refreshed('a@x');
  hear('drained:b@x', { value: true, leftMs: undefined });
  hear('drained:b@x');
  beAsked('refresh:b@x');
  assert.deepEqual(told, ['set drained:a@x undefined', 'clear drained:a@x', 'ask refresh:a@x']);
  assert.deepEqual(done, ['drained b@x true', 'drained b@x false', 'again b@x']);
});

test('a token endpoint that fails is told and heard, and its cure', () => {
  const { told, done, news, hear } = stage();
  news.endpointRests('https://t.example:444/token', 10_000);
  news.endpointRests('https://t.example:444/token', undefined);
  const subject = 'token-endpoint:https://t.example:444/token';
  assert.deepEqual(told, [`set ${subject} 10000`, `clear ${subject}`]);
  hear(subject, { value: true, leftMs: 9_000 });
  hear(subject);
  assert.deepEqual(done, [
    'rest https://t.example:444/token 9000',
    'rest https://t.example:444/token undefined',
  ]);
});

test('what was resumed while this relay did not hear of it is resumed; not where Redis has lost what stood', () => {
  const { drained, done, know } = stage();
  know('1');
  drained.push('a@x', 'b@x');
  know('2');
  assert.deepEqual(done, [], 'another epoch: Redis has lost it');
  know('2', 'drained:b@x');
  assert.deepEqual(done, ['drained a@x false']);
});
