/** The command line as a person runs it: `bin/xoauth2-relay.js` as a child process. In: arguments, input. Out: output and exit code. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { repositoryRoot } from './relay-process.ts';
import { waitFor, within } from './wait-for.ts';

export interface CliRun {
  /** What came so far. */
  stdout(): string;
  stderr(): string;
  /** The first match in stdout or stderr; rejects after 15 s. */
  seen(pattern: RegExp): Promise<RegExpExecArray>;
  write(text: string): void;
  readonly exited: Promise<{ code: number | null; stdout: string; stderr: string }>;
  signal(name: NodeJS.Signals): void;
  /** Whoever reads the output goes away, as `head` does. */
  closeStdout(): void;
}

export interface CliOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Text on stdin, which ends after it; without it stdin stays open. */
  readonly input?: string;
  /** Other than the repository's. */
  readonly bin?: string;
  readonly cwd?: string;
}

export function startCli(args: readonly string[], options: CliOptions = {}): CliRun {
  const bin = options.bin ?? join(repositoryRoot, 'bin/xoauth2-relay.js');
  const child = spawn(process.execPath, [bin, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1', ...options.env },
    cwd: options.cwd,
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.on('error', () => {});
  if (options.input !== undefined) child.stdin.end(options.input);
  const closed = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
  return {
    stdout: () => stdout,
    stderr: () => stderr,
    seen: (pattern) =>
      waitFor(() => pattern.exec(stdout) ?? pattern.exec(stderr) ?? undefined, {
        what: `${pattern} in the output of ${args.join(' ')}: ${stderr}`,
      }),
    write: (text) => void child.stdin.write(text),
    exited: within(closed, 30_000, `xoauth2-relay ${args.join(' ')}`),
    signal: (name) => void child.kill(name),
    closeStdout: () => void child.stdout.destroy(),
  };
}

export const runCli = (args: readonly string[], options: CliOptions = {}): CliRun['exited'] =>
  startCli(args, { input: '', ...options }).exited;
