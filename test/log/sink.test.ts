import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogSink, type LogTarget } from '../../src/log/sink.ts';
import { createLog } from '../../src/log.ts';
import { createTestClock } from '../support/clock.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
const full = Object.assign(new Error('full'), { code: 'ENOSPC' });

/** A destination that takes `room` octets in all. */
function createDestination(room = Number.POSITIVE_INFINITY) {
  const writes: string[] = [];
  const take = (chunk: Buffer): number => {
    const n = Math.min(chunk.length, destination.room);
    destination.room -= n;
    if (n > 0) writes.push(chunk.subarray(0, n).toString());
    return n;
  };
  const destination = {
    room,
    writes,
    text: () => writes.join(''),
    target: {
      write: (chunk, done) => {
        const n = take(chunk);
        done(n === 0 ? full : null, n);
      },
      writeNow: take,
    } satisfies LogTarget,
  };
  return destination;
}

test('the lines of one turn leave in one write, those of the next 5 ms in another', async () => {
  const clock = createTestClock();
  const destination = createDestination();
  const sink = createLogSink(destination.target, { clock });
  sink.write('one\n');
  sink.write('two\n');
  assert.deepEqual(destination.writes, []);
  await turn();
  assert.deepEqual(destination.writes, ['one\ntwo\n']);
  for (const line of ['three\n', 'four\n']) {
    clock.advance(2);
    sink.write(line);
    await turn();
  }
  assert.deepEqual(destination.writes.slice(1), []);
  clock.advance(1);
  assert.deepEqual(destination.writes.slice(1), ['three\nfour\n']);
  clock.advance(5);
  sink.write('five\n');
  await turn();
  assert.deepEqual(destination.writes.slice(2), ['five\n'], 'who was silent does not wait');
});

test('lines that come while a write is under way wait for 5 ms from its begin', () => {
  const clock = createTestClock();
  const chunks: string[] = [];
  let done: Parameters<LogTarget['write']>[1] = () => {};
  const sink = createLogSink(
    {
      write: (chunk, when) => {
        chunks.push(chunk.toString());
        done = when;
      },
      writeNow: () => 0,
    },
    { clock },
  );
  sink.write('one\n');
  void sink.drain(1_000);
  sink.write('two\n');
  done(null, 4);
  assert.deepEqual(chunks, ['one\n']);
  clock.advance(5);
  assert.deepEqual(chunks, ['one\n', 'two\n']);
});

test('a turn that says very much does not wait for its end', () => {
  const destination = createDestination();
  const sink = createLogSink(destination.target);
  for (let i = 0; i < 100; i++) sink.write(`${'x'.repeat(999)}\n`);
  assert.ok(destination.text().length >= 65_000);
});

test('a full destination keeps a bounded number of the newest lines, cuts none, and tells what is missing', async () => {
  const clock = createTestClock();
  const destination = createDestination(15);
  const sink = createLogSink(destination.target, { clock, maxWaiting: 5_000 });
  const recovered: number[] = [];
  sink.onRecovered = (dropped) => recovered.push(dropped);
  const lines = Array.from({ length: 10_000 }, (_, i) => `line ${i}\n`);
  for (const [i, line] of lines.entries()) {
    sink.write(line);
    if (i % 10 > 0) continue;
    await turn();
    clock.advance(1);
  }
  assert.ok(sink.dropped > 9_000, `${sink.dropped}`);
  destination.room = Number.POSITIVE_INFINITY;
  clock.advance(2_000);
  const written = destination.text().split('\n').slice(0, -1);
  assert.equal(written.length + sink.dropped, 10_000);
  assert.ok(
    written.every((line) => lines.includes(`${line}\n`)),
    'no line is cut',
  );
  assert.equal(written.at(-1), 'line 9999');
  assert.deepEqual(recovered, [sink.dropped]);
});

test('a destination that is busy is asked again; drain waits for it, but not for ever', async () => {
  const clock = createTestClock();
  const destination = createDestination(4);
  const sink = createLogSink(destination.target, { clock });
  sink.write('a line of more than four\n');
  const drained = sink.drain(500);
  destination.room = 100;
  clock.advance(1);
  await drained;
  assert.equal(destination.text(), 'a line of more than four\n');

  destination.room = 0;
  sink.write('never\n');
  const given = sink.drain(500);
  clock.advance(500);
  await given;
  assert.doesNotMatch(destination.text(), /never/);
});

test('at the end of the process what waits is handed over, unless a write is under way', async () => {
  const destination = createDestination();
  const sink = createLogSink(destination.target);
  sink.write('last words\n');
  sink.flushNow();
  assert.equal(destination.text(), 'last words\n');

  const pending: LogTarget = { write: () => {}, writeNow: () => assert.fail('overtakes what is under way') };
  const busy = createLogSink(pending);
  busy.write('one\n');
  await turn();
  busy.write('two\n');
  busy.flushNow();
});

test('the log says how many lines are missing as soon as it can', async () => {
  const clock = createTestClock();
  const destination = createDestination(0);
  const sink = createLogSink(destination.target, { clock, maxWaiting: 1_000 });
  const log = createLog('info', sink);
  for (let i = 0; i < 100; i++) {
    log.info({ event: 'transaction', i }, 'relayed');
    await turn();
  }
  assert.ok(log.dropped > 0);
  destination.room = Number.POSITIVE_INFINITY;
  clock.advance(2_000);
  await turn();
  const told = destination
    .text()
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as { event: string; dropped?: number });
  assert.deepEqual(
    told.filter((line) => line.event === 'log_dropped').map((line) => line.dropped),
    [log.dropped],
  );
});
