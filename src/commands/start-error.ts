/** Why a relay could not start, in one line: what, why, cure. In: what `start` rejected with. Out: words, exit code 2. */
import { AccountsFileError } from '../accounts/accounts-file.ts';
import { explainFileError } from '../accounts/secret-source.ts';
import type { Settings } from '../config.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { ListenerError } from '../listener/listener.ts';
import { LogFileTaken } from '../log/file.ts';
import { TokenSocketError } from '../programs/token-socket.ts';
import { StateDirectoryError } from '../tokens/store-file.ts';
import { EXIT_CONFIGURATION } from './definition.ts';

type SystemError = NodeJS.ErrnoException & { readonly address?: string; readonly port?: number };

/** The error to tell; what is a defect of ours is given back as it is, for its stack. */
export function explainStart(error: unknown, settings: Settings): unknown {
  if (!(error instanceof Error)) return error;
  const told = (message: string): OperatorError =>
    new OperatorError(oneLine(message), EXIT_CONFIGURATION, { cause: error });
  if (error instanceof AccountsFileError) return told(error.message);
  // Errors of other rooms that say what to set.
  if (error instanceof ListenerError) {
    if (error.code === 'certificate') return told(`${error.message} (--cert-file, --key-file)`);
    const cause = error.cause as SystemError | undefined;
    return told(cause?.syscall === undefined ? error.message : explainAddress(cause, error.place, 'port'));
  }
  if (error instanceof TokenSocketError) {
    const cause = error.cause as SystemError | undefined;
    return told(
      cause?.syscall === undefined
        ? `${error.message} (--token-socket)`
        : explainAddress(cause, settings.tokenSocket ?? '', 'token-socket'),
    );
  }
  if (error instanceof StateDirectoryError) return told(error.message);
  const { syscall, path, address, port } = error as SystemError;
  if (syscall === undefined) return error;
  if (syscall === 'listen' || syscall === 'getaddrinfo' || syscall === 'bind')
    return told(
      explainAddress(error, `${address ?? settings.adminHost}:${port ?? settings.adminPort}`, 'admin-port'),
    );
  const { stateDir } = settings;
  if (stateDir !== undefined && path?.startsWith(stateDir))
    return told(
      `cannot use the state directory ${stateDir}: ${explainFileError(error)} (give it to the relay's user: install -d -m 700 -o USER ${stateDir}; or name another with --state-dir)`,
    );
  return told(`cannot start: ${path === undefined ? error.message : `${path}: ${explainFileError(error)}`}`);
}

/** Why the log file cannot be written. */
export const explainLogFile = (path: string, error: unknown): string =>
  `cannot write the log file ${path}: ${error instanceof LogFileTaken ? error.message : explainFileError(error)}: choose another with --log-file, or correct its directory`;

function explainAddress(
  { code, message }: SystemError,
  place: string,
  flag: 'port' | 'admin-port' | 'token-socket',
): string {
  const isFile = place.startsWith('/');
  const host = flag === 'port' ? 'host' : 'admin-host';
  const another = isFile
    ? `choose another path with --${flag === 'token-socket' ? flag : 'socket'}`
    : `choose another port with --${flag}`;
  const nameless = `this name has no address; give an address with --${host}`;
  const why: Readonly<Record<string, string>> = {
    EADDRINUSE: `another program listens there${isFile ? '' : ' (ss -ltnp names it)'}; stop it, or ${another}`,
    EACCES: isFile
      ? `its directory is missing or may not be written by this user; make it, or ${another}`
      : `ports below 1024 need the right to it: AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or ${another}`,
    EADDRNOTAVAIL: `not an address of this machine (ip address shows them); correct --${host}`,
    ENOTFOUND: nameless,
    EAI_AGAIN: nameless,
  };
  return `cannot listen on ${place}: ${why[code ?? ''] ?? message}`;
}

const oneLine = (text: string): string =>
  text
    .split('\n')
    .map((line) => line.trim())
    .join(' ');
