/**
 * Where a socket is piped to: what of a Writable a pipe asks for, without what that costs for each chunk, which is
 * more than reading the command in it. In: chunks. Out: the same, one at a time.
 */
import { EventEmitter } from 'node:events';

/**
 * More than one read of a socket (64 KiB), so that a chunk being dealt with does not stop and restart
 * reading; the bound of what waits here for a slow upstream.
 */
const HIGH_WATER_MARK = 128 * 1024;
/** What a chunk costs that waits, beside its octets: a client may send one octet at a time. */
const CHUNK_COST = 256;

export abstract class ChunkSink extends EventEmitter {
  /** Octets that have come and are not dealt with. */
  writableLength = 0;
  /** Nothing more is read from the socket: too much has come. */
  writableNeedDrain = false;
  readonly #waiting: Buffer[] = [];
  /** Octets it takes to keep what has come and is not dealt with. */
  #kept = 0;
  #current: Buffer | undefined;
  #isRunning = false;
  #hasEnded = false;
  readonly #taken = (): void => {
    this.#count(this.#current, -1);
    this.#current = undefined;
    if (!this.#isRunning) this.#run();
  };

  /** `next` must be called once, when the chunk is dealt with; only then comes another. */
  protected abstract take(chunk: Buffer, next: () => void): void;
  /** Everything has come and been dealt with. */
  protected abstract ended(): void;

  /** False: no more before `drain`. */
  write(chunk: Buffer): boolean {
    this.#count(chunk, 1);
    this.#waiting.push(chunk);
    if (!this.#isRunning && this.#current === undefined) this.#run();
    if (this.#kept >= HIGH_WATER_MARK) this.writableNeedDrain = true;
    return !this.writableNeedDrain;
  }

  end(): void {
    this.#hasEnded = true;
    if (!this.#isRunning && this.#current === undefined) this.#run();
  }

  #count(chunk: Buffer | undefined, by: 1 | -1): void {
    if (chunk === undefined) return;
    this.writableLength += by * chunk.length;
    this.#kept += by * (chunk.length + CHUNK_COST);
  }

  /** Chunks dealt with at once are taken in a loop, so that many small ones do not grow the stack. */
  #run(): void {
    this.#isRunning = true;
    while (this.#current === undefined) {
      const chunk = this.#waiting.shift();
      if (chunk === undefined) break;
      this.#current = chunk;
      this.take(chunk, this.#taken);
    }
    this.#isRunning = false;
    if (this.#current !== undefined) return;
    if (this.writableNeedDrain) {
      this.writableNeedDrain = false;
      this.emit('drain');
    }
    if (this.#hasEnded && this.#current === undefined && this.#waiting.length === 0) this.ended();
  }
}
