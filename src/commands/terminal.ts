/**
 * The person at the terminal. In: lines to show, questions to ask. Out: what was answered. Colours and
 * in-place updates appear only where the stream is a terminal; secrets are read without echo.
 */
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import type { ReadStream, WriteStream } from 'node:tty';
import { stripVTControlCharacters, styleText } from 'node:util';

export interface Terminal {
  /** One line on stdout. */
  print(line?: string): void;
  /** One line on stderr: what is not the command's result. */
  note(line: string): void;
  /** Raw text on stdout. */
  write(text: string): void;
  /** Aborted with the error when stdout takes no more: nothing is written any more, and what has no end of its own ends. */
  readonly unread: AbortSignal;
  readonly isInteractive: boolean;
  /** stdout is a terminal and may be redrawn. */
  readonly isLive: boolean;
  /** Height of the terminal in lines. */
  readonly rows: number;
  /** Its width in columns; 80 where there is none. */
  readonly columns: number;
  readonly paint: Paint;
  /** Asks for a line. Rejects with `NoTerminalError` where nobody can answer. */
  ask(question: string, fallback?: string, signal?: AbortSignal): Promise<string>;
  /** Asks without echo; on a pipe reads one line of it. */
  askSecret(question: string): Promise<string>;
  confirm(question: string, fallback: boolean): Promise<boolean>;
}

/** Colours, or nothing where they do not belong. */
export type Paint = Readonly<Record<(typeof STYLES)[number], (text: string) => string>>;

export class NoTerminalError extends Error {
  override readonly name = 'NoTerminalError';
}

const unanswered = (question: string): NoTerminalError =>
  new NoTerminalError(`no answer to "${question.trim().replace(/:$/, '')}"`);

interface Streams {
  readonly stdin: NodeJS.ReadableStream & Partial<Pick<ReadStream, 'isTTY'>>;
  readonly stdout: NodeJS.WritableStream & Partial<Pick<WriteStream, 'isTTY' | 'rows' | 'columns'>>;
  readonly stderr: NodeJS.WritableStream;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Whether colours belong is known here. */
const ANYWAY = { validateStream: false };
const STYLES = ['bold', 'dim', 'red', 'green', 'yellow'] as const;

export function createTerminal({ stdin, stdout, stderr, env }: Streams): Terminal {
  const isLive = stdout.isTTY === true && env.TERM !== 'dumb';
  const coloured = isLive && (env.NO_COLOR ?? '') === '';
  const paint = Object.fromEntries(
    STYLES.map((style) => [style, (text: string) => (coloured ? styleText(style, text, ANYWAY) : text)]),
  ) as Paint;

  let piped: ReturnType<typeof createLineQueue> | undefined;

  const read = async (question: string, muted: boolean, signal?: AbortSignal): Promise<string> => {
    if (stdin.isTTY !== true) {
      piped ??= createLineQueue(stdin);
      const line = await piped(signal);
      if (line === undefined) throw unanswered(question);
      return line;
    }
    const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
    const lines = createInterface({ input: stdin, output: muted ? silent : stderr, terminal: true });
    // To stderr, so that a redirected stdout holds the result alone; after the echo is off, so that who types
    // at once is not seen.
    stderr.write(question);
    const close = (): void => lines.close();
    signal?.addEventListener('abort', close);
    try {
      const line = await new Promise<string | undefined>((resolve) => {
        lines.once('line', resolve);
        lines.once('SIGINT', () => resolve(undefined));
        lines.once('close', () => resolve(undefined));
      });
      if (muted || line === undefined) stderr.write('\n');
      if (line === undefined) throw unanswered(question);
      return line;
    } finally {
      signal?.removeEventListener('abort', close);
      lines.close();
    }
  };

  const ask = async (question: string, fallback?: string, signal?: AbortSignal): Promise<string> => {
    const prompt =
      fallback === undefined || fallback === '' ? `${question}: ` : `${question} [${fallback}]: `;
    const answer = (await read(prompt, false, signal)).trim();
    return answer === '' && fallback !== undefined ? fallback : answer;
  };

  const over = new AbortController();
  stdout.on('error', (error) => over.abort(error));
  const write = (text: string): void => {
    if (!over.signal.aborted) stdout.write(text);
  };

  return {
    print: (line = '') => write(`${line}\n`),
    note: (line) => void stderr.write(`${line}\n`),
    write,
    unread: over.signal,
    isInteractive: stdin.isTTY === true,
    isLive,
    get rows() {
      return stdout.rows ?? 24;
    },
    get columns() {
      return stdout.columns ?? 80;
    },
    paint,
    ask,
    askSecret: (question) => read(`${question}: `, true),
    confirm: async (question, fallback) => {
      const answer = await ask(`${question} (${fallback ? 'Y/n' : 'y/N'})`, fallback ? 'y' : 'n');
      return /^y/i.test(answer);
    },
  };
}

/**
 * One reader for all questions: a reader per question would swallow the lines meant for the next one. Gives the next
 * line; undefined when there is none any more or `signal` aborts.
 */
function createLineQueue(
  input: NodeJS.ReadableStream,
): (signal?: AbortSignal) => Promise<string | undefined> {
  const lines: string[] = [];
  let isOver = false;
  let wake = (): void => {};
  createInterface({ input, terminal: false })
    .on('line', (line) => {
      lines.push(line);
      wake();
    })
    .on('close', () => {
      isOver = true;
      wake();
    });
  return async (signal) => {
    while (lines.length === 0 && !isOver && signal?.aborted !== true)
      await new Promise<void>((resolve) => {
        wake = resolve;
        signal?.addEventListener('abort', () => resolve(), { once: true });
      });
    return signal?.aborted === true ? undefined : lines.shift();
  };
}

/** Columns aligned, two spaces between them; colours do not count. */
export function formatTable(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, visibleLength(cell));
  return rows.map((row) =>
    row
      .map((cell, i) =>
        i === row.length - 1 ? cell : cell + ' '.repeat((widths[i] ?? 0) - visibleLength(cell)),
      )
      .join('  ')
      .trimEnd(),
  );
}

/** Columns aligned, a line each. */
export function printTable({ print }: Terminal, rows: readonly (readonly string[])[]): void {
  for (const line of formatTable(rows)) print(line);
}

export const printJson = ({ print }: Terminal, value: unknown): void => print(JSON.stringify(value, null, 2));

export const visibleLength = (text: string): number => stripVTControlCharacters(text).length;
