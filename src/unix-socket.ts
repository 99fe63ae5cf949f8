/** UNIX sockets that a relay listens on. In: a path. Out: a socket with its mode, in place of one that is left over. */
import { lstat, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';

/** The socket has its mode from the start: a `chmod` afterwards would leave a moment in which anybody connects. */
export function listenOnPath(server: Server, path: string, mode: number, opened: () => void): void {
  const before = process.umask(0o777 & ~mode);
  try {
    // Bound before `listen` returns.
    server.listen(path, opened);
  } finally {
    process.umask(before);
  }
}

/** Of `sun_path` without its end (unix(7)): what is longer would be cut without a word, and bound under another name. */
const MAX_PATH_OCTETS = process.platform === 'linux' ? 107 : 103;

/** A socket nobody listens on is left over from a killed process and removed. Throws where something else has the name, or no socket can have it. */
export async function removeStaleSocket(path: string): Promise<void> {
  const octets = Buffer.byteLength(path);
  if (octets > MAX_PATH_OCTETS)
    throw new Error(
      `the path of a socket has at most ${MAX_PATH_OCTETS} octets, this one ${octets}; choose a shorter path`,
    );
  const facts = await lstat(path).catch(() => undefined);
  if (facts === undefined) return;
  if (!facts.isSocket()) throw new Error('something that is no socket has this name; choose another path');
  const state = await new Promise<string>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve('in use');
    });
    probe.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
  });
  if (state === 'ECONNREFUSED') await unlink(path);
}
