/**
 * Destinations of the log that never block. In: chunks of whole lines. Out: octets on standard output or in a
 * file. Owns no buffer; a destination that takes nothing says so and is asked again.
 */
import { constants, fstatSync, openSync, write, writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import type { LogTarget } from './sink.ts';

const STDOUT = 1;

/** Standard output, whatever it is: terminal, pipe, socket, file, device. */
export function standardOutput(): LogTarget {
  const facts = fstatSync(STDOUT);
  if (isatty(STDOUT)) {
    const own = reopenTerminal();
    return own === undefined ? fileTarget(() => STDOUT) : instantTarget(own);
  }
  if (facts.isFIFO() || facts.isSocket()) {
    // Node's own stream makes the descriptor non-blocking as soon as it exists.
    void process.stdout;
    return instantTarget(STDOUT);
  }
  return fileTarget(() => STDOUT);
}

/** A terminal that is held (^S) blocks whoever writes to it; a description of our own does not. */
function reopenTerminal(): number | undefined {
  try {
    return openSync(`/dev/fd/${STDOUT}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return undefined;
  }
}

/** A non-blocking descriptor: what does not fit now is told at once. */
function instantTarget(fd: number): LogTarget {
  return {
    write(chunk, done) {
      let written = 0;
      try {
        written = writeSync(fd, chunk);
      } catch (error) {
        return done(error as Error, 0);
      }
      done(null, written);
    },
    writeNow: (chunk) => writeAll(fd, chunk),
  };
}

/** A file, whose disk may be slow, full or gone: written by another thread, one write at a time. */
export function fileTarget(fd: () => number): LogTarget {
  return {
    write: (chunk, done) =>
      write(fd(), chunk, 0, chunk.length, null, (error, written) => done(error, written ?? 0)),
    writeNow: (chunk) => writeAll(fd(), chunk),
  };
}

function writeAll(fd: number, chunk: Buffer): number {
  let written = 0;
  try {
    while (written < chunk.length) written += writeSync(fd, chunk, written);
  } catch {
    // Full, or nobody reads: the process ends all the same.
  }
  return written;
}
