import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createNews } from '../../src/fleet/news.ts';
import type { SharedState, SharedStates } from '../../src/fleet/shared-states.ts';
import { createTestClock } from '../support/clock.ts';

interface Pause {
  readonly pause: { readonly scope: string };
  readonly way?: string;
  readonly until: number;
}

function stage() {
  const clock = createTestClock();
  const told: string[] = [];
  const done: string[] = [];
  let hear: (subject: string, state: SharedState | undefined) => void = () => {};
  let beAsked: (action: string) => void = () => {};
  const states: SharedStates = {
    set: ({ subject, leftMs }) => void told.push(`set ${subject} ${leftMs}`),
    clear: (subject) => void told.push(`clear ${subject}`),
    ask: (action) => void told.push(`ask ${action}`),
    told: () => Promise.resolve(),
    kept: { snapshot: () => [], restore() {} },
    onState: (listener) => {
      hear = listener;
    },
    onAsked: (listener) => {
      beAsked = listener;
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
    endPause(id, scope, way) {
      done.push(`end ${id} ${scope}${way === undefined ? '' : ` ${way}`}`);
      pauses = [];
    },
    setDrained: (id, isDrained) => void done.push(`drained ${id} ${isDrained}`),
    inviteHeard: (id, invite) => {
      if (invite !== undefined && !('digest' in invite)) throw new Error('no invitation');
      done.push(`invite ${id} ${invite === undefined ? 'over' : invite.until - clock.now()}`);
    },
    graphRestHeard: (id, ms) => void done.push(`graph rests ${id} ${ms}`),
    refreshedElsewhere: (id) => void done.push(`again ${id}`),
    endpointHeard: (tokenUrl, leftMs) => void done.push(`rest ${tokenUrl} ${leftMs}`),
  });
  return {
    clock,
    told,
    done,
    news,
    hear: (subject: string, state?: Omit<SharedState, 'subject'>) =>
      hear(subject, state === undefined ? undefined : { subject, ...state }),
    beAsked: (action: string) => beAsked(action),
    pause: (leftMs: number | undefined, way?: 'graph') => {
      const pause = { scope: 'sending' };
      const of = way === undefined ? {} : { way };
      pauses = leftMs === undefined ? [] : [{ pause, ...of, until: clock.now() + leftMs }];
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

test('what cannot be understood is left alone', () => {
  const { done, hear, beAsked } = stage();
  hear('pause:sending:a@x', { value: { wrong: true }, leftMs: 5_000 });
  hear('pause:sending:a@x', { value: 'text', leftMs: 5_000 });
  hear('pause:sending:a@x', { value: {}, leftMs: undefined });
  hear('weather:sun', { value: {}, leftMs: undefined });
  beAsked('dance:a@x');
  assert.deepEqual(done, []);
});

test('by Graph a pause is another one than by SMTP, and how long Graph asked to wait is heard', () => {
  const { told, done, news, hear, pause } = stage();
  pause(60_000, 'graph');
  news.accountChanged('a@x');
  news.graphRests('a@x', 30_000);
  assert.deepEqual(told, ['set pause:graph-sending:a@x 60000', 'set graph-rest:a@x 30000']);
  hear('pause:graph-sending:a@x');
  hear('graph-rest:b@x', { value: true, leftMs: 9_000 });
  hear('graph-rest:b@x');
  assert.deepEqual(done, ['end a@x sending graph', 'graph rests b@x 9000']);
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

test('an invitation goes both ways, with what is left of its day by the own clock', () => {
  const { clock, told, done, news, hear } = stage();
  news.invited('a:b@x', { until: clock.now() + 5_000 });
  news.invited('a:b@x', undefined);
  assert.deepEqual(told, ['set invite:a:b@x 5000', 'clear invite:a:b@x']);
  hear('invite:a:b@x', { value: { digest: 'd', until: 1 }, leftMs: 4_000 });
  hear('invite:a:b@x');
  hear('invite:a:b@x', { value: {}, leftMs: 4_000 });
  assert.deepEqual(done, ['invite a:b@x 4000', 'invite a:b@x over']);
});
