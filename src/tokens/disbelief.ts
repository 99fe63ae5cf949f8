/**
 * When `invalid_grant` is not believed. A refresh token that is refused may have been rotated by another
 * process whose answer is not in the store yet. Pure.
 */
import type { TokenFailure } from '../protocol/token-failure.ts';
import type { Interruption } from './token-store.ts';

export interface Doubt {
  /** Another process may have a newer refresh token. */
  readonly isShared: boolean;
  /** What the others have saved cannot be read just now, or the lock has been lost. */
  readonly isStoreAway: boolean;
  /** A refresh of this account was begun and its end has not been seen. */
  readonly interrupted: Interruption | undefined;
  /** ms since the epoch. */
  readonly now: number;
  /** What the operator does about the failure where it is believed. */
  readonly cure: string | undefined;
  /** How long after its beginning a refresh may still be saved, ms. */
  readonly patienceMs: number;
}

/** The store is read again after this, ms. */
export const LOOK_AGAIN_MS = 3000;

/** The relay is about to end: what it would ask for, it might not be able to keep. */
export const stopping: TokenFailure = passing('the relay is stopping: no token is asked for any more');

/** Nothing is wrong with the account or its provider. */
export function passing(message: string): TokenFailure {
  return {
    kind: 'provider_fault',
    message,
    cure: 'wait: it is tried again by itself',
    scope: 'account',
  };
}

/** The failure as it counts: a passing one while there is doubt, with word of a refresh that was cut short. */
export function believe(failure: TokenFailure, doubt: Doubt): TokenFailure {
  const { isShared, isStoreAway, interrupted } = doubt;
  if (failure.kind !== 'needs_consent' || !isShared) return failure;
  if (isStoreAway)
    return waiting(
      failure,
      'the token store is away or has lost its data, and another relay may have a newer refresh token',
    );
  if (interrupted === undefined) return failure;
  const begun = new Date(interrupted.begunAt).toISOString();
  const isRecent = Math.abs(doubt.now - interrupted.begunAt) < doubt.patienceMs;
  if (!interrupted.isOver && isRecent)
    return waiting(failure, `another relay began a refresh at ${begun} and may still save its answer`);
  // The book of causes does not know of it.
  const { cause: _cause, ...rest } = failure;
  const cure = `a refresh begun at ${begun} was cut short (the process was killed or its machine stopped), and its answer is lost: ${doubt.cure ?? 'sign in again'}`;
  return { ...rest, cure };
}

const waiting = (failure: TokenFailure, why: string): TokenFailure => ({
  ...passing(`${failure.message}; not believed yet: ${why}`),
  cure: 'wait: it is looked for again by itself every few seconds',
  retryAfterMs: LOOK_AGAIN_MS,
});
