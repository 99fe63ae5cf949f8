/**
 * Makes a directory and those above it, for their owner alone. In: a path. Out: the first that was made. Not Node's own
 * `recursive`: it tries for ever where a file system makes no directories and answers ENOENT, as /proc does.
 */
import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

const MODE = 0o700;

/** The first directory that was made; undefined: it was there. Throws a system error. */
export function makeDirectories(path: string): string | undefined {
  const reason = made(path);
  if (reason === undefined) return path;
  const above = dirname(path);
  if (reason !== 'ENOENT' || above === path) return undefined;
  const first = makeDirectories(above);
  mkdirSync(path, MODE);
  return first ?? path;
}

/** `ENOENT` where the one above is missing, `EEXIST` where it is there. Throws every other system error. */
function made(path: string): 'ENOENT' | 'EEXIST' | undefined {
  try {
    mkdirSync(path, MODE);
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || (code === 'EEXIST' && statSync(path).isDirectory())) return code;
    throw error;
  }
}
