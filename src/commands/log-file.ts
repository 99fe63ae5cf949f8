/**
 * A log file that rotates, and its reader's view. In: path. Out: a stream for the log; the path of the file
 * being written. The one file that knows pino-roll.
 */
import { dirname, join } from 'node:path';
import roll from 'pino-roll';

/** About 40,000 messages. */
const ROTATE_AT = '10m';
/** Besides the one being written: 100 MiB in all. */
const KEPT = 9;

/** Opens `PATH.N.log` and keeps `current.log` beside it pointing there; written synchronously. */
export const openLogFile = (path: string): ReturnType<typeof roll> =>
  roll({
    file: path.replace(/\.log$/, ''),
    extension: '.log',
    size: ROTATE_AT,
    limit: { count: KEPT },
    mkdir: true,
    symlink: true,
    sync: true,
  });

/** The file that `openLogFile(path)` writes to at the moment. */
export const currentLogFile = (path: string): string => join(dirname(path), 'current.log');
