/**
 * A log file that rotates. In: path. Out: a destination that writes `NAME.N.log` beside the path, which is a link
 * to the newest. Owns the open file and the link; older ones beyond a number are removed.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
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

const LINE_FEED = 0x0a;

/** Something that this log did not make has its name. */
export class LogFileTaken extends Error {
  override readonly name = 'LogFileTaken';
}

const baseOf = (path: string): string => basename(path).replace(/\.log$/, '');

/** Whatever has this name and is no link of this log would have to be removed. Throws `LogFileTaken`. */
export function refuseTaken(path: string): void {
  const facts = lstatSync(path, { throwIfNoEntry: false });
  if (facts === undefined) return;
  if (facts.isDirectory()) throw new LogFileTaken('it is a directory: name the file in it');
  const target = facts.isSymbolicLink() ? readlinkSync(path) : '';
  if (numberIn(target, baseOf(path)) === undefined)
    throw new LogFileTaken(
      `something else has this name, which is to be a link to ${baseOf(path)}.1.log and those after it`,
    );
}

/** Opens the newest file of `path`, or the first. Throws `LogFileTaken` or a system error. */
export function openLogFile(path: string, rotateAt = ROTATE_AT, kept = KEPT): LogTarget {
  const directory = dirname(path);
  const base = baseOf(path);
  refuseTaken(path);
  makeDirectories(directory);
  let number = numbers(directory, base).at(-1) ?? 1;
  let fd = openNumber(number);
  let size = fstatSync(fd).size;
  /** A full disk cut the last line of an earlier process: the next one is not to be glued to it. */
  let isTorn = isLineCut(fileOf(number), size);
  point();

  function fileOf(n: number): string {
    return join(directory, `${base}.${n}.log`);
  }

  function openNumber(n: number): number {
    const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
    // Of a FIFO nobody reads neither the opening nor a write may wait.
    const flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
    return openSync(fileOf(n), flags, 0o640);
  }

  /** A link made beside and renamed: a reader never finds none. */
  function point(): void {
    const link = join(directory, `.${base}.log.${process.pid}`);
    rmSync(link, { force: true });
    refuseTaken(path);
    symlinkSync(`${base}.${number}.log`, link);
    renameSync(link, path);
  }

  /** A rotation that fails (a full disk) is tried again at the next write; the file grows meanwhile. */
  function rotate(): void {
    try {
      const next = openNumber(number + 1);
      closeSync(fd);
      fd = next;
      number++;
      size = 0;
      isTorn = false;
      for (const old of numbers(directory, base).filter((n) => n < number - kept))
        rmSync(fileOf(old), { force: true });
      point();
    } catch {}
  }

  /** With the end of the line that was cut before it; `own`: how much of what was written is the chunk's. */
  function mended(chunk: Buffer): { readonly octets: Buffer; readonly own: (written: number) => number } {
    if (!isTorn) return { octets: chunk, own: (written) => written };
    const own = (written: number): number => {
      if (written > 0) isTorn = false;
      return Math.max(written - 1, 0);
    };
    return { octets: Buffer.concat([Buffer.of(LINE_FEED), chunk]), own };
  }

  const file = fileTarget(() => fd);
  return {
    write(chunk, done) {
      if (size >= rotateAt) rotate();
      const { octets, own } = mended(chunk);
      file.write(octets, (error, written) => {
        size += written;
        done(error, own(written));
      });
    },
    writeNow(chunk) {
      const { octets, own } = mended(chunk);
      return own(file.writeNow(octets));
    },
  };
}

/** Only a file can have been cut; others have no end to look at. */
function isLineCut(path: string, size: number): boolean {
  if (size === 0) return false;
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    try {
      const last = Buffer.alloc(1);
      return readSync(fd, last, 0, 1, size - 1) === 1 && last[0] !== LINE_FEED;
    } finally {
      closeSync(fd);
    }
  } catch {
    return false;
  }
}

/** The numbers of `BASE.N.log` in the directory, ascending. */
const numbers = (directory: string, base: string): number[] =>
  readdirSync(directory)
    .map((name) => numberIn(name, base))
    .filter((number) => number !== undefined)
    .sort((a, b) => a - b);

/** The N of `BASE.N.log`. */
function numberIn(name: string, base: string): number | undefined {
  if (!name.startsWith(`${base}.`)) return undefined;
  const number = /^(\d{1,9})\.log$/.exec(name.slice(base.length + 1))?.[1];
  return number === undefined ? undefined : Number(number);
}
