import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createKeptState } from '../src/kept-state.ts';
import { createLimiter } from '../src/relay/limits.ts';
import { createTestClock } from './support/clock.ts';
import { waitFor } from './support/wait-for.ts';
import { createTestLog } from './tokens/support.ts';

const LIMITS = { atOnce: 3, perMinute: undefined, perDay: 2, recipientsPerDay: undefined };

function stage(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'kept-state-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'state.json');
  const clock = createTestClock();
  const run = () => {
    const log = createTestLog();
    const limiter = createLimiter(clock);
    return { log, limiter, kept: createKeptState(path, { limits: limiter }, { log, clock }) };
  };
  const send = ({ limiter }: ReturnType<typeof run>): boolean => {
    const result = limiter.reserve('a', () => LIMITS, 0);
    assert.ok(!(result instanceof Promise));
    if (result.granted) result.place.end({ unsent: false, recipients: 1 });
    return result.granted;
  };
  return { path, clock, run, send };
}

test('a stop keeps what was sent, readable by its owner only', async (t) => {
  const { path, run, send } = stage(t);
  const first = run();
  await first.kept.restore();
  assert.ok(send(first) && send(first));
  await first.kept.close();
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const second = run();
  await second.kept.restore();
  assert.ok(!send(second));
  await second.kept.close();
});

test('a crash forgets at most what was sent since the last save', async (t) => {
  const { path, clock, run, send } = stage(t);
  const first = run();
  await first.kept.restore();
  assert.ok(send(first));
  clock.advance(10_000);
  await waitFor(() => statSync(path, { throwIfNoEntry: false }) !== undefined, { what: 'the file' });
  const second = run();
  await second.kept.restore();
  assert.ok(send(second));
  assert.ok(!send(second));
  await Promise.all([first.kept.close(), second.kept.close()]);
});

test('what is saved at once outlives a crash', async (t) => {
  const { path, run, send } = stage(t);
  const first = run();
  await first.kept.restore();
  assert.ok(send(first));
  await Promise.all([first.kept.save(), first.kept.save()]);
  assert.ok(send(first));
  await first.kept.save();
  assert.ok(readFileSync(path, 'utf8').length > 2);
  const second = run();
  await second.kept.restore();
  assert.ok(!send(second));
  await Promise.all([first.kept.close(), second.kept.close()]);
});

for (const text of [
  '',
  '[1',
  'null',
  '{"a":1}',
  '{"limits":{"a":1}}',
  '{"limits":{"a":{"at":1,"sent":["x"],"day":{}}}}',
  '{"limits":{"a":{"at":1,"sent":[],"day":{"z":1}}}}',
])
  test(`a file that holds no counts is said once and forgotten: ${text}`, async (t) => {
    const { path, run, send } = stage(t);
    writeFileSync(path, text);
    const first = run();
    await first.kept.restore();
    assert.equal(first.log.lines.filter((l) => l.fields.event === 'state_unreadable').length, 1);
    assert.ok(send(first));
    await first.kept.close();
    assert.match(readFileSync(path, 'utf8'), /"a"/);
  });

test('a directory that takes no file costs the counts, said once', async (t) => {
  const { path, clock, run, send } = stage(t);
  mkdirSync(path);
  const first = run();
  await first.kept.restore();
  assert.ok(send(first));
  const failures = (): number => first.log.lines.filter((l) => l.fields.event === 'state_not_kept').length;
  clock.advance(10_000);
  await waitFor(() => failures() === 1, { what: 'the warning' });
  assert.ok(send(first));
  await first.kept.close();
  assert.equal(failures(), 1);
});

test('a message that waits for its minute when the state is saved costs nothing of it', async (t) => {
  const { clock, run } = stage(t);
  const perMinute = { ...LIMITS, perMinute: 1, perDay: 9 };
  const first = run();
  await first.kept.restore();
  for (let i = 0; i < 2; i++) assert.ok('granted' in first.limiter.reserve('a', () => perMinute, 90_000));
  await first.kept.close();
  const second = run();
  await second.kept.restore();
  assert.deepEqual(
    second.log.lines.map((l) => l.fields.event),
    [],
  );
  const refused = second.limiter.reserve('a', () => perMinute, 0);
  assert.ok('granted' in refused && !refused.granted && refused.limit === 'minute');
  clock.advance(61_000);
  const granted = second.limiter.reserve('a', () => perMinute, 0);
  assert.ok('granted' in granted && granted.granted, 'nobody waits any more for the place that was to come');
  await second.kept.close();
});

test('a part that is unreadable costs no other', async (t) => {
  const { path } = stage(t);
  writeFileSync(path, JSON.stringify({ first: 1, second: 2, third: 3 }));
  const log = createTestLog();
  const restored: unknown[] = [];
  const part = (restore: (kept: unknown) => void) => ({ snapshot: () => 0, restore });
  const kept = createKeptState(
    path,
    {
      first: part((value) => restored.push(value)),
      second: part(() => {
        throw new Error('not this');
      }),
      third: part((value) => restored.push(value)),
    },
    { log, clock: createTestClock() },
  );
  await kept.restore();
  assert.deepEqual(restored, [1, 3]);
  assert.deepEqual(
    log.lines.map((l) => [l.fields.event, l.fields.parts]),
    [['state_unreadable', ['second']]],
  );
  await kept.close();
});
