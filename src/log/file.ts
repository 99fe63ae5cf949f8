/**
 * A log file that rotates. In: path. Out: a destination that writes `PATH.N.log`, with `current.log` beside it
 * pointing there. Owns the open file; older ones beyond a number are removed.
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { makeDirectories } from '../directories.ts';
import type { LogTarget } from './sink.ts';
import { fileTarget } from './target.ts';

/** About 15,000 messages. */
const ROTATE_AT = 10 * 1_048_576;
/** Besides the one being written: 100 MiB in all. */
const KEPT = 9;

/** The file that `openLogFile(path)` writes to at the moment. */
export const currentLogFile = (path: string): string => join(dirname(path), 'current.log');

/** A directory is no log file: its files would come to lie beside it, unseen. Throws a system error. */
export function refuseDirectory(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory())
    throw Object.assign(new Error('it is a directory'), { code: 'EISDIR' });
}

/** Opens the newest file of `path`, or the first. Throws a system error. */
export function openLogFile(path: string, rotateAt = ROTATE_AT, kept = KEPT): LogTarget {
  const directory = dirname(path);
  const base = basename(path).replace(/\.log$/, '');
  refuseDirectory(path);
  makeDirectories(directory);
  let number = numbers(directory, base).at(-1) ?? 1;
  let fd = openNumber(number);
  let size = fstatSync(fd).size;
  point();

  function openNumber(n: number): number {
    const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
    // Of a FIFO nobody reads neither the opening nor a write may wait.
    const flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
    return openSync(join(directory, `${base}.${n}.log`), flags, 0o640);
  }

  /** A link made beside and renamed: a reader never finds none. */
  function point(): void {
    const link = join(directory, `.current.log.${process.pid}`);
    rmSync(link, { force: true });
    symlinkSync(`${base}.${number}.log`, link);
    renameSync(link, currentLogFile(path));
  }

  /** A rotation that fails (a full disk) is tried again at the next write; the file grows meanwhile. */
  function rotate(): void {
    try {
      const next = openNumber(number + 1);
      closeSync(fd);
      fd = next;
      number++;
      size = 0;
      for (const old of numbers(directory, base).filter((n) => n < number - kept))
        rmSync(join(directory, `${base}.${old}.log`), { force: true });
      point();
    } catch {}
  }

  const file = fileTarget(() => fd);
  return {
    write(chunk, done) {
      if (size >= rotateAt) rotate();
      file.write(chunk, (error, written) => {
        size += written;
        done(error, written);
      });
    },
    writeNow: file.writeNow,
  };
}

/** The numbers of `BASE.N.log` in the directory, ascending. */
function numbers(directory: string, base: string): number[] {
  const found: number[] = [];
  for (const name of readdirSync(directory)) {
    if (!name.startsWith(`${base}.`)) continue;
    const number = /^(\d{1,9})\.log$/.exec(name.slice(base.length + 1))?.[1];
    if (number !== undefined) found.push(Number(number));
  }
  return found.sort((a, b) => a - b);
}
