/**
 * Where log lines wait for their destination. In: lines. Out: one write for all of a turn of the event loop, or of
 * `GATHER_MS` where line follows on line. Owns the lines not yet written, within a bound: mail goes on whatever becomes
 * of the log, so a destination that is full or not read costs the oldest lines, which are counted, and nothing else.
 */
import { type Clock, systemClock } from '../clock.ts';

/** A destination that never blocks the event loop. */
export interface LogTarget {
  /** Writes what it can of `chunk`, then calls `done` once, at once or later, with the octets written. */
  write(chunk: Buffer, done: (error: Error | null, written: number) => void): void;
  /** Writes what can be written without waiting; at the end of the process only. Returns the octets written. */
  writeNow(chunk: Buffer): number;
}

export interface LogSink {
  /** Takes one line with its line end; it leaves at the end of this turn, or `GATHER_MS` after those before it. */
  write(line: string): void;
  /** Lines thrown away since the start. */
  readonly dropped: number;
  /** Lines the destination has not taken yet. */
  readonly waiting: number;
  /** A write is under way that has not come back. */
  readonly isWriting: boolean;
  /** Resolves when nothing waits any more, or after `timeoutMs`. */
  drain(timeoutMs: number): Promise<void>;
  /** Hands over what waits without waiting: for the end of the process. */
  flushNow(): void;
  /** Called when lines were thrown away and the destination takes them again, with their number. */
  onRecovered: (dropped: number) => void;
}

/** About 6,000 messages: a minute of a busy relay, small beside the bodies it holds. */
const MAX_WAITING = 4 * 1_048_576;
/**
 * From one write to the next, ms: a write costs a system call, to a file the waking of a thread, too, and a busy relay
 * has several turns in each millisecond.
 */
const GATHER_MS = 5;
/** More than this leaves at once; also the largest single write. */
const BATCH = 64 * 1_024;
/** A pipe whose reader is busy is free again at once; a full disk takes somebody's hand. */
const RETRY_MIN_MS = 1;
const RETRY_MAX_MS = 1_000;

export function createLogSink(
  target: LogTarget,
  {
    clock = systemClock,
    maxWaiting = MAX_WAITING,
    format,
  }: {
    clock?: Clock;
    maxWaiting?: number;
    /** How a line is written; default as it is. */
    format?: ((line: string) => string) | undefined;
  } = {},
): LogSink {
  let state = 'idle' as 'idle' | 'gathering' | 'writing' | 'paused';
  let lines: string[] = [];
  let first = 0;
  /** Characters in `lines`. */
  let waiting = 0;
  /** What is left of the chunk begun; never thrown away, so that no line is cut. */
  let chunk: Buffer | undefined;
  /** Lines in it. */
  let begun = 0;
  let dropped = 0;
  let reported = 0;
  let pauseMs = RETRY_MIN_MS;
  let begunAt = Number.NEGATIVE_INFINITY;
  let onDrained: (() => void) | undefined;

  function take(): Buffer | undefined {
    if (first === lines.length) return undefined;
    let end = first;
    let size = 0;
    while (end < lines.length && size < BATCH) size += (lines[end++] as string).length;
    const text = first === 0 && end === lines.length ? lines.join('') : lines.slice(first, end).join('');
    waiting -= size;
    begun = end - first;
    if (end === lines.length) {
      lines = [];
      first = 0;
    } else first = end;
    return Buffer.from(text);
  }

  function dropOldest(): void {
    while (waiting > maxWaiting && first < lines.length) {
      waiting -= (lines[first] as string).length;
      lines[first++] = '';
      dropped++;
    }
    if (first > 1_024 && first * 2 > lines.length) {
      lines = lines.slice(first);
      first = 0;
    }
  }

  function flush(): void {
    for (;;) {
      chunk ??= take();
      if (chunk === undefined) {
        state = 'idle';
        onDrained?.();
        return;
      }
      begunAt = clock.monotonic();
      let isDone = false;
      let isLater = false;
      state = 'writing';
      target.write(chunk, (error, written) => {
        isDone = true;
        if (accept(error, written) && isLater) goOn();
      });
      isLater = true;
      if (!isDone || !sink.isWriting) return;
    }
  }

  function gather(): void {
    state = 'gathering';
    const end = (): void => {
      if (state === 'gathering') flush();
    };
    const left = begunAt + GATHER_MS - clock.monotonic();
    if (left > 0) clock.after(left, end);
    else setImmediate(end);
  }

  /** After a write. */
  function goOn(): void {
    if (waiting > 0 && waiting < BATCH) gather();
    else flush();
  }

  /** Whether to go on. */
  function accept(error: Error | null, written: number): boolean {
    if (chunk !== undefined) chunk = written < chunk.length ? chunk.subarray(written) : undefined;
    if (error !== null || chunk !== undefined) {
      state = 'paused';
      clock.after(pauseMs, flush);
      pauseMs = written > 0 ? RETRY_MIN_MS : Math.min(pauseMs * 2, RETRY_MAX_MS);
      return false;
    }
    pauseMs = RETRY_MIN_MS;
    // Not while it is full: the line that tells would cost another.
    if (dropped > reported && waiting <= maxWaiting / 2) {
      const since = dropped - reported;
      reported = dropped;
      sink.onRecovered(since);
    }
    return true;
  }

  const sink: LogSink = {
    onRecovered: () => {},
    get dropped() {
      return dropped;
    },
    get isWriting() {
      return state === 'writing';
    },
    get waiting() {
      return lines.length - first + (chunk === undefined ? 0 : begun);
    },
    write(json) {
      const line = format === undefined ? json : format(json);
      lines.push(line);
      waiting += line.length;
      if (state === 'idle') gather();
      else if (state === 'gathering') {
        if (waiting >= BATCH) flush();
      } else if (waiting > maxWaiting) dropOldest();
    },
    drain: (timeoutMs) =>
      new Promise((resolve) => {
        if (state === 'idle') return resolve();
        const cancel = clock.after(timeoutMs, resolve);
        onDrained = () => {
          cancel();
          resolve();
        };
        if (state === 'gathering') flush();
      }),
    flushNow() {
      // A write under way may still be carried out: what came after it must not overtake it.
      if (state === 'writing') return;
      for (;;) {
        chunk ??= take();
        if (chunk === undefined) return;
        const written = target.writeNow(chunk);
        if (written < chunk.length) return;
        chunk = undefined;
      }
    },
  };
  return sink;
}
