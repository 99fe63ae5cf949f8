import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { ChunkSink } from '../../src/listener/chunk-sink.ts';

/** Takes chunks one by one, at once or when it is told to go on. */
class Taker extends ChunkSink {
  readonly taken: string[] = [];
  isEnded = false;
  isAtOnce = true;
  #next = (): void => {};

  goOn(): void {
    const next = this.#next;
    this.#next = () => {};
    next();
  }

  protected override take(chunk: Buffer, next: () => void): void {
    this.taken.push(chunk.toString());
    if (this.isAtOnce) next();
    else this.#next = next;
  }

  protected override ended(): void {
    this.isEnded = true;
  }
}

test('one at a time, in order, and the end after the last', async () => {
  const taker = new Taker();
  taker.isAtOnce = false;
  const source = new PassThrough();
  source.pipe(taker as unknown as NodeJS.WritableStream);
  for (const chunk of ['a', 'bc', 'd']) source.write(chunk);
  source.end();
  for (let i = 0; i < 3; i++) {
    await new Promise(setImmediate);
    assert.equal(taker.taken.length, i + 1);
    assert.ok(!taker.isEnded);
    taker.goOn();
  }
  await new Promise(setImmediate);
  assert.deepEqual(taker.taken, ['a', 'bc', 'd']);
  assert.ok(taker.isEnded);
  assert.equal(taker.writableLength, 0);
});

test('a source that is dealt with at once is never paused', () => {
  const taker = new Taker();
  for (let i = 0; i < 1_000; i++) assert.ok(taker.write(Buffer.alloc(65_536)));
});

for (const [octets, most] of [
  [65_536, 2],
  [1, 512],
] as const)
  test(`chunks of ${octets}: at most ${most} wait, and their source goes on when they are dealt with`, async () => {
    const taker = new Taker();
    taker.isAtOnce = false;
    const source = new PassThrough({ highWaterMark: 1 });
    let given = 0;
    source.pipe(taker as unknown as NodeJS.WritableStream);
    for (let i = 0; i < most * 3; i++) {
      source.write(Buffer.alloc(octets));
      await new Promise(setImmediate);
      if (source.readableFlowing && source.readableLength === 0) given++;
    }
    assert.ok(given >= most - 2 && given <= most + 1, `${given} taken off the source`);
    assert.ok(taker.writableNeedDrain);
    taker.isAtOnce = true;
    taker.goOn();
    for (let i = 0; i < most * 3; i++) await new Promise(setImmediate);
    assert.equal(taker.taken.length, most * 3);
    assert.ok(!taker.writableNeedDrain);
  });

test('however many wait, the stack does not grow', () => {
  const taker = new Taker();
  taker.isAtOnce = false;
  for (let i = 0; i < 20_000; i++) taker.write(Buffer.from('x'));
  taker.isAtOnce = true;
  taker.goOn();
  assert.equal(taker.taken.length, 20_000);
});
