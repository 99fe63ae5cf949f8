/**
 * What a command is: names, options, examples and exit codes as values, and a function that runs it.
 * The command line, --help, shell completion and the manual page are all derived from these.
 */
import { OperatorError } from '../enrol/operator-error.ts';
import type { Terminal } from './terminal.ts';

export interface OptionDefinition {
  /** `--port <number>`, `-f, --follow`, `--no-precache`. */
  readonly flags: string;
  readonly help: string;
  /** Closed set of values, for checking and completion. */
  readonly choices?: readonly string[];
  /** The value is a file or directory, for completion. */
  readonly isPath?: boolean;
  /** Heading in --help. */
  readonly group?: string;
}

export const option = (
  flags: string,
  help: string,
  more: Pick<OptionDefinition, 'choices' | 'isPath'> = {},
): OptionDefinition => ({ flags, help, ...more });

export interface CommandDefinition {
  /** Words after the program's name: `serve`, `account add`. */
  readonly name: string;
  readonly summary: string;
  /** Further paragraphs for --help and the manual. */
  readonly details?: readonly string[];
  /** `<file>`, `[address]`, `[names...]`. */
  readonly arguments?: readonly { readonly name: string; readonly help: string }[];
  readonly options: readonly OptionDefinition[];
  readonly examples: readonly string[];
  /** Beyond 0 (done) and 2 (usage or configuration wrong). */
  readonly exitCodes: Readonly<Record<number, string>>;
  /** Resolves to the exit code. Rejects with `OperatorError` for what the operator can cure. */
  run(context: CommandContext): Promise<number>;
}

export interface CommandContext {
  readonly arguments: readonly string[];
  /** By camel-case name, as commander gives them. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly terminal: Terminal;
}

/** Exit code for a wrong command line, wrong settings or a wrong accounts file. */
export const EXIT_CONFIGURATION = 2;

/** Words in front of a nested command and what they gather. */
export const GROUPS: Readonly<Record<string, string>> = {
  account: 'accounts of the file and of the running relay',
  unclear: 'messages of which nobody knows whether Graph sent them',
};

/** The option as text, or undefined. */
export function textOption(context: CommandContext, name: string): string | undefined {
  const value = context.options[name];
  return typeof value === 'string' ? value : undefined;
}

/** Whether a flag without value was given. */
export const isSet = (context: CommandContext, name: string): boolean => context.options[name] === true;

/** The option as a whole number. Throws an `OperatorError`. */
export function numberOption(context: CommandContext, name: string, fallback: number): number {
  const text = textOption(context, name);
  if (text === undefined) return fallback;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  const flag = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw new OperatorError(`--${flag}: expected a whole number`, EXIT_CONFIGURATION);
}

export const timeoutOption = (what: string, fallback: number): OptionDefinition =>
  option('--timeout-ms <number>', `longest wait ${what}, ms (default ${fallback})`);
/** ms. */
export const timeoutOf = (context: CommandContext, fallback: number): number =>
  numberOption(context, 'timeoutMs', fallback);

/** Of commands that show what the running relay says. */
export const jsonOption = option('--json', 'print the answer of the admin API');
export const accountArgument = [{ name: '<account>', help: 'id or address' }];
