/** Questions with a right and a wrong answer. In: a person at a terminal. Out: an answer that can be used. */
import { OperatorError } from '../enrol/operator-error.ts';
import { EXIT_CONFIGURATION } from './definition.ts';
import type { Terminal } from './terminal.ts';

/**
 * The answer, as `read` makes it. An answer it throws an `OperatorError` for is named and asked for again; where
 * nobody sits at the terminal it ends the command.
 */
export async function askUntil<T>(
  terminal: Terminal,
  ask: () => Promise<string>,
  read: (answer: string) => T | Promise<T>,
): Promise<T> {
  for (;;) {
    const answer = await ask();
    try {
      return await read(answer);
    } catch (error) {
      if (!(error instanceof OperatorError) || !terminal.isInteractive) throw error;
      terminal.note(terminal.paint.red(error.message));
    }
  }
}

/** One of `names`, in any case. Throws an `OperatorError` that lists them. */
export function oneOf<N extends string>(what: string, names: readonly N[]): (answer: string) => N {
  return (answer) => {
    const name = names.find((n) => n.toLowerCase() === answer.toLowerCase());
    if (name === undefined)
      throw new OperatorError(
        answer === ''
          ? `name a ${what}: ${names.join(', ')}`
          : `no ${what} ${answer}: use ${names.join(', ')}`,
        EXIT_CONFIGURATION,
      );
    return name;
  };
}

/** Something without white space. Throws an `OperatorError`. */
export const oneWord =
  (what: string) =>
  (answer: string): string => {
    if (!/^\S+$/.test(answer))
      throw new OperatorError(
        answer === '' ? `${what} is needed` : `${what} holds no spaces`,
        EXIT_CONFIGURATION,
      );
    return answer;
  };
