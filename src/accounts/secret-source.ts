/**
 * Where secrets stand. In: a secret as written in the accounts file: its text, `{ env }`, `{ file }`,
 * `{ command }` or `{ credential }`.
 * Out: the secret. A failure names the place, never the content.
 */
import { readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Secret } from './credential.ts';
import type { SecretSource } from './schema.ts';

/** The place cannot be read or is empty; the message says which and what to do. */
export class SecretSourceError extends Error {
  override readonly name = 'SecretSourceError';
}

export interface SecretPlaces {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Relative paths start here: the folder of the accounts file. */
  readonly directory: string;
  /** False: `{ "command": … }` is refused and nothing is run. Default true. */
  readonly mayRun?: boolean;
}

/** A secret is a token, a password or a PEM key; anything larger is the wrong file. */
export const MAX_SECRET_BYTES = 65_536;

/** Reads a secret; one trailing line break is not part of it. Throws `SecretSourceError`. */
export function readSecret(source: SecretSource, places: SecretPlaces): Secret {
  return new Secret(readSecretText(source, places));
}

/** As `readSecret`, for what is not secret by itself, such as a certificate. */
export function readSecretText(source: SecretSource, places: SecretPlaces): string {
  if (typeof source === 'string') return source;
  if ('env' in source) {
    const text = places.env[source.env];
    if (text === undefined) throw new SecretSourceError(`the environment variable ${source.env} is not set`);
    if (text === '') throw new SecretSourceError(`the environment variable ${source.env} is empty`);
    return text;
  }
  // Programs have been run before (secret-command.ts): here nobody waits.
  if ('command' in source) throw new SecretSourceError('a command is not possible here');
  const path =
    'file' in source ? resolve(places.directory, source.file) : credentialPath(source.credential, places);
  const text = readSmallFile(path);
  if (text === '') throw new SecretSourceError(`the file ${path} is empty`);
  return text;
}

/** systemd.exec(5): LoadCredential= and SetCredential= put files there. */
function credentialPath(name: string, { env }: SecretPlaces): string {
  const directory = env.CREDENTIALS_DIRECTORY;
  if (directory === undefined || directory === '')
    throw new SecretSourceError(
      `the credential ${name} needs systemd: LoadCredential=${name}:/path in the unit (CREDENTIALS_DIRECTORY is not set)`,
    );
  return join(directory, name);
}

/** A small file without its last line break. Throws `SecretSourceError`. */
export function readSmallFile(path: string): string {
  try {
    const facts = statSync(path);
    if (!facts.isFile()) throw new SecretSourceError(`${path} is not a file`);
    if (facts.size > MAX_SECRET_BYTES) throw new SecretSourceError(`${path} is too large for a secret`);
    return readFileSync(path, 'utf8')
      .replace(/^\ufeff/, '')
      .replace(/\r?\n$/, '');
  } catch (error) {
    if (error instanceof SecretSourceError) throw error;
    throw new SecretSourceError(`cannot read ${path}: ${explainFileError(error)}`);
  }
}

/** A file system error in words, with the cure. */
export function explainFileError(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  switch (code) {
    case 'ENOENT':
      return 'no such file';
    case 'EACCES':
    case 'EPERM':
      return `not permitted for this user (${process.getuid?.() ?? 'unknown'}): check owner and mode`;
    case 'EISDIR':
      return 'it is a directory: name the file in it';
    case 'ENOTDIR':
    case 'EEXIST':
      return 'a part of the path is a file and no directory';
    case 'EROFS':
      return 'the file system is mounted read-only';
    case 'ENOSPC':
    case 'EDQUOT':
      return 'no space left';
    case 'EBUSY':
    case 'EXDEV':
      return 'it is mounted as a single file, which no new one can replace: mount the directory it is in instead';
    case 'ENXIO':
      return 'it is a FIFO that nobody reads, or a socket';
    case 'ELOOP':
      return 'it is a symbolic link, which is not followed';
    default:
      return code ?? 'unreadable';
  }
}
