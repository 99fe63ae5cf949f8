/**
 * The end of the token service. In: what it has open, and that somebody wants it closed. Out: one end for all who do:
 * whoever ends the process then has waited for the last attempt at what is unsaved.
 */
import type { Log } from '../log.ts';
import type { GrantKeeper } from './grant-keeper.ts';
import { GrantsUnsavedError } from './grants-unsaved.ts';
import type { TokenEndpoints } from './token-endpoint.ts';
import type { Refresher } from './token-refresher.ts';
import type { TokenStore } from './token-store.ts';

/** The last attempt at what is unsaved, ms. */
const LAST_SAVE_MS = 5000;

export function createClosing(deps: {
  readonly refresher: Pick<Refresher, 'settled'>;
  readonly endpoints: Pick<TokenEndpoints, 'close'>;
  readonly keeper: Pick<GrantKeeper, 'close'>;
  readonly store: Pick<TokenStore, 'close' | 'serves'>;
  readonly log: Log;
  /** Nothing begins any more. */
  readonly drain: () => void;
  /** What was waited for has ended, or its time is over. */
  readonly onSettled: () => void;
}): (options?: { readonly deadlineMs?: number }) => Promise<void> {
  const { refresher, endpoints, keeper, store, log } = deps;
  let goOn = (): void => undefined;
  const settled = new Promise<void>((resume) => {
    goOn = resume;
  });
  let closing: Promise<void> | undefined;

  async function closeAll(): Promise<void> {
    await settled;
    deps.onSettled();
    await endpoints.close();
    // What was cut may have ended with a refresh token in what had come of its answer.
    await refresher.settled(LAST_SAVE_MS);
    const lost = await keeper.close(LAST_SAVE_MS);
    await store.close();
    if (lost.length === 0) return;
    const error = new GrantsUnsavedError(lost, store.serves !== undefined);
    log.error({ event: 'refresh_tokens_lost', accounts: lost }, error.message);
    throw error;
  }

  return ({ deadlineMs = 0 } = {}) => {
    deps.drain();
    // Of several the one with the least patience decides.
    void refresher.settled(deadlineMs).then(goOn);
    closing ??= closeAll();
    return closing;
  };
}
