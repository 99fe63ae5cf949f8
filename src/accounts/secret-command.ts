/**
 * Secrets that a program prints (a password manager, a vault). In: an entry of the accounts file. Out: the
 * entry with the programs' output in place of `{ "command": […] }`, and what went wrong. Runs them without a
 * shell, some at a time, never for long.
 */
import { execFile } from 'node:child_process';
import { createSemaphore } from '../semaphore.ts';
import type { AccountEntry, Issue } from './schema.ts';
import { explainFileError, MAX_SECRET_BYTES, type SecretPlaces } from './secret-source.ts';

/** A program that asks a person, or a network that is down, must not hold the start for ever. */
const COMMAND_TIMEOUT_MS = 10_000;
/** Programs at once, over all accounts. */
const AT_ONCE = 8;

const NOT_RUN =
  'is { "command": … }, a program that is not run here: write the entry into the accounts file yourself, if you trust it';

const commandsAtOnce = createSemaphore(AT_ONCE);

/** `entry` without commands; `issues` name the key of each that failed. Never rejects. */
export async function resolveCommands(
  entry: AccountEntry,
  places: SecretPlaces,
): Promise<{ readonly entry: AccountEntry; readonly issues: readonly Issue[] }> {
  const commands = Object.entries(entry).flatMap(([key, value]) => {
    const command = (value as { command?: unknown } | undefined)?.command;
    return Array.isArray(command) ? [[key, command as string[]] as const] : [];
  });
  if (commands.length === 0) return { entry, issues: [] };
  if (places.mayRun === false)
    return { entry, issues: commands.map(([key]) => ({ path: [key], message: NOT_RUN })) };
  const issues: Issue[] = [];
  const texts: Record<string, string> = {};
  await Promise.all(
    commands.map(async ([key, command]) => {
      const result = await commandsAtOnce.run(() => run(command, places));
      if ('text' in result) texts[key] = result.text;
      else issues.push({ path: [key], message: result.wrong });
    }),
  );
  return { entry: { ...entry, ...texts }, issues };
}

/** The output without its last line break. What the program says on stderr may hold anything: it is not quoted. */
function run(
  [program = '', ...args]: readonly string[],
  { env, directory }: SecretPlaces,
): Promise<{ readonly text: string } | { readonly wrong: string }> {
  // What no program can be called with Node throws on.
  if (program === '' || [program, ...args].some((word) => typeof word !== 'string' || word.includes('\0')))
    return Promise.resolve({ wrong: 'command must be a program and its arguments, as texts without NUL' });
  return new Promise((resolve) => {
    execFile(
      program,
      args,
      {
        cwd: directory,
        env: { ...env },
        encoding: 'utf8',
        timeout: COMMAND_TIMEOUT_MS,
        killSignal: 'SIGKILL',
        maxBuffer: MAX_SECRET_BYTES,
      },
      (error, stdout) => {
        const text = stdout.replace(/\r?\n$/, '');
        if (error !== null) resolve({ wrong: explain(program, error) });
        else if (text === '') resolve({ wrong: `the command ${program} printed nothing` });
        else resolve({ text });
      },
    ).stdin?.end();
  });
}

function explain(
  program: string,
  error: Error & { code?: unknown; killed?: boolean; signal?: unknown },
): string {
  if (error.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER')
    return `the command ${program} prints too much for a secret`;
  if (error.killed === true)
    return `the command ${program} gave no answer within ${COMMAND_TIMEOUT_MS / 1000} s`;
  if (typeof error.code === 'string') return `cannot run ${program}: ${explainFileError(error)}`;
  return `the command ${program} failed (${error.signal ?? `exit code ${error.code}`})`;
}
