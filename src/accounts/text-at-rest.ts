/**
 * A file that somebody may be writing just now. In: its path. Out: its text or octets, and its mode, never half of one
 * and half of another; or why not, without a cure: that is the caller's, who knows what the file is for. Owns nothing.
 */
import { constants, open } from 'node:fs/promises';
import { pause, systemClock } from '../clock.ts';
import { explainFileError } from './secret-source.ts';

/** 100,000 accounts with long refresh tokens are 200 MiB; more is a mistake. */
const MAX_FILE_BYTES = 268_435_456;
/** File systems tell times to 10 ms at worst: what was written longer ago than this differs from what is written now. */
const REST_MS = 20;
/** Who writes that long is waited for by whoever asks again, ms. */
const MAX_UNREST_MS = 2_000;

export type TextFileFault =
  | 'missing'
  | 'unreadable'
  | 'directory'
  | 'no_file'
  | 'too_large'
  | 'being_written'
  | 'no_text';

/** The file cannot be had; the message says why and does not name it. */
export class TextFileError extends Error {
  override readonly name = 'TextFileError';
  readonly code: TextFileFault;
  constructor(code: TextFileFault, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Throws `TextFileError`. */
export async function readTextAtRest(path: string): Promise<{ text: string; mode: number }> {
  const { content, mode } = await readFileAtRest(path);
  return { text: decodeText(content), mode };
}

/** Throws `TextFileError`. */
export async function readFileAtRest(path: string): Promise<{ content: Buffer; mode: number }> {
  try {
    for (let waitedMs = 0; waitedMs < MAX_UNREST_MS; waitedMs += REST_MS) {
      const read = await readAtRest(path);
      if (read !== undefined) return read;
      await pause(systemClock, REST_MS);
    }
  } catch (error) {
    if (error instanceof TextFileError) throw error;
    const code = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'missing' : 'unreadable';
    throw new TextFileError(code, explainFileError(error), { cause: error });
  }
  throw new TextFileError('being_written', 'is being written');
}

/** Of a file that is written in place the beginning may be old and the rest new, and an account lost between. */
async function readAtRest(path: string): Promise<{ content: Buffer; mode: number } | undefined> {
  // A FIFO would hold up the opening, and with it every later reload.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const before = await file.stat();
    if (before.isDirectory()) throw new TextFileError('directory', 'is a directory');
    if (!before.isFile()) throw new TextFileError('no_file', 'is no file');
    if (before.size > MAX_FILE_BYTES)
      throw new TextFileError('too_large', 'is larger than 256 MiB: is it the right file?');
    const ageMs = Date.now() - before.mtimeMs;
    if (ageMs >= 0 && ageMs < REST_MS) return undefined;
    const content = await file.readFile();
    const after = await file.stat();
    const isSame = after.mtimeMs === before.mtimeMs && after.size === before.size;
    return isSame ? { content, mode: before.mode } : undefined;
  } finally {
    await file.close();
  }
}

function decodeText(content: Buffer): string {
  if (content[0] === 0xff || content[0] === 0xfe)
    throw new TextFileError('no_text', 'is UTF-16: save it as UTF-8');
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch {
    throw new TextFileError('no_text', 'is not UTF-8 text: save it as UTF-8');
  }
}
