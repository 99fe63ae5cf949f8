/** Runs a program of the system to its end. */
import { spawn } from 'node:child_process';

export interface ProgramResult {
  readonly code: number | null;
  /** stdout and stderr in the order they came. */
  readonly output: string;
}

/** Resolves whatever the exit code; rejects when the program cannot be started or takes longer than `timeoutMs` (default 60 s). */
export function runProgram(
  command: string,
  args: readonly string[],
  options: { input?: string; env?: NodeJS.ProcessEnv; cwd?: string; timeoutMs?: number } = {},
): Promise<ProgramResult> {
  const { input, timeoutMs = 60_000, ...rest } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...rest, timeout: timeoutMs, stdio: ['pipe', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += String(chunk);
    });
    child.stderr.on('data', (chunk) => {
      output += String(chunk);
    });
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (signal === 'SIGTERM') reject(new Error(`${command} took longer than ${timeoutMs} ms\n${output}`));
      else resolve({ code, output });
    });
    child.stdin.on('error', () => {});
    child.stdin.end(input ?? '');
  });
}
