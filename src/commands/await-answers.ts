/**
 * A command that asks token endpoints for tokens, and its end. In: a token service, work with it. Out: the result of the
 * work when each answer has come, a late one, too, and what it brought is kept: that may be the only refresh token that is
 * still good. Owns the signals meanwhile.
 */
import type { TokenUse } from '../enrol/probe.ts';
import { GrantsUnsavedError } from '../tokens/grants-unsaved.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** A wait that is longer is told, ms. */
const UNNOTICED_MS = 1000;
const WAITING = 'waiting until what a token endpoint answers is kept: it may be the only good refresh token';

/**
 * A signal ends the waiting for what is late, and waits for what was asked as a stop of the relay does; a second one,
 * SIGHUP aside, does not wait. `note`: what whoever waits should know, a line each.
 */
export const awaitAnswers =
  (
    note: (line: string) => void,
    /** What is said at a signal of what could not be saved. */
    describeLoss = (loss: GrantsUnsavedError): string => loss.message,
  ): TokenUse =>
  async (tokens, work) => {
    let ending: Promise<unknown> | undefined;
    const off = (): void => {
      for (const signal of SIGNALS) process.off(signal, end);
    };
    // A terminal that is closed says it twice: by its shell, and once more when that has ended.
    const ignore = (): void => {};
    const end = (signal: NodeJS.Signals): void => {
      off();
      process.on('SIGHUP', ignore);
      const closed = tellLong(tokens.close(), () => note(`${WAITING}; a second signal ends at once`));
      ending = closed
        .catch((error: unknown) => {
          if (error instanceof GrantsUnsavedError) note(describeLoss(error));
        })
        .then(() => {
          process.off('SIGHUP', ignore);
          process.kill(process.pid, signal);
        });
    };
    for (const signal of SIGNALS) process.on(signal, end);
    try {
      return await work(tokens).finally(async () => {
        await tellLong(tokens.answered(), () => note(WAITING));
        await tokens.close();
      });
    } finally {
      // Also while the last attempt at what is unsaved is made.
      off();
      await ending;
    }
  };

async function tellLong(wait: Promise<void>, tell: () => void): Promise<void> {
  const timer = setTimeout(tell, UNNOTICED_MS);
  await wait.finally(() => clearTimeout(timer));
}
