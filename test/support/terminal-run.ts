/** The command line on a terminal of its own, with a person at it. In: arguments, answers. Out: the screen and the exit code. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { repositoryRoot } from './relay-process.ts';
import { waitFor, within } from './wait-for.ts';

export interface TerminalRun {
  /** Waits for the question to stand on the screen below the last one, and types. */
  answer(question: string, typed: string): Promise<void>;
  screen(): string;
  /** The terminal goes away, as with a connection that breaks. */
  hangUp(): void;
  readonly exited: Promise<number | null>;
}

export function startOnTerminal(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>> = {},
): TerminalRun {
  const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
  const command = [process.execPath, join(repositoryRoot, 'bin/xoauth2-relay.js'), ...args]
    .map(quote)
    .join(' ');
  // util-linux gives the command a terminal.
  const child = spawn('script', ['-qec', `exec ${command}`, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, TERM: 'xterm', NO_COLOR: '1', COLUMNS: '200', ...env },
  });
  let screen = '';
  let read = 0;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    screen += text;
  });
  child.stdin.on('error', () => {});
  const closed = within(
    new Promise<number | null>((resolve) => child.once('close', resolve)),
    60_000,
    `xoauth2-relay ${args.join(' ')} on a terminal`,
  ).finally(() => child.stdin.destroy());
  closed.catch(() => child.kill());
  return {
    screen: () => screen,
    hangUp: () => void child.kill('SIGKILL'),
    async answer(question, typed) {
      const at = await waitFor(
        () => {
          const found = screen.indexOf(question, read);
          return found < 0 ? undefined : found + question.length;
        },
        { what: `"${question}" on the screen: ${screen}` },
      );
      read = at;
      child.stdin.write(`${typed}\r`);
    },
    exited: closed,
  };
}
