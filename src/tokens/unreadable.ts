/**
 * What is kept of a grant and cannot be read: it may be the newest refresh token, so that nothing is asked with an
 * earlier one. It is a word about the accounts whose it may be, and none about the others or the store. Pure.
 */
import type { TokenFailure } from '../protocol/token-failure.ts';
import { passing } from './disbelief.ts';
import { SealError } from './sealing.ts';
import { codeOf, StateFileRefused } from './state-files.ts';
import type { TokenStore } from './token-store.ts';

/** A file that may hold a later refresh token of the consent that was looked for. */
export class UnreadFile extends Error {
  override readonly name = 'UnreadFile';
  readonly path: string;
  constructor(path: string, cause: unknown) {
    super(`${path} cannot be read`, { cause });
    this.path = path;
  }
}

export type Unreadable = SealError | StateFileRefused | UnreadFile;

export const isUnreadable = (error: unknown): error is Unreadable =>
  error instanceof SealError || error instanceof StateFileRefused || error instanceof UnreadFile;

/** Row of the book of causes. */
export const UNREADABLE_CAUSE = 'stored-grant-unreadable';

/** Nothing was asked, and nothing is before that is mended. */
export function cannotRead(error: Unreadable, kind: TokenStore['kind']): TokenFailure {
  const fails = (what: string, cure: string): TokenFailure => ({
    ...passing(what),
    cause: UNREADABLE_CAUSE,
    cure,
  });
  if (error instanceof UnreadFile)
    return fails(
      'a file in the state directory may hold a later refresh token of this account, and cannot be read',
      cureOfFile(error),
    );
  if (error instanceof StateFileRefused)
    return fails('what the state directory has of this account cannot be read', error.message);
  return kind === 'redis'
    ? fails(
        'what Redis has of this account is sealed with another state key than this process was given',
        'give it the state key of the relays that share the store (state_key; to rotate it, the new one and the old one)',
      )
    : fails(
        'what the state directory has of this account is sealed with another state key than this process was given',
        'give it that key, too (state_key: the new one and the old one); where it is lost, remove the *.grant file of the account there, and it goes on with the accounts file',
      );
}

function cureOfFile({ path, cause }: UnreadFile): string {
  if (cause instanceof StateFileRefused) return cause.message;
  if (cause instanceof SealError)
    return `give the state key that ${path} is sealed with, too (state_key: the new one and the old one); where it is lost, remove that file`;
  return `make ${path} readable for the relay (${codeOf(cause) ?? 'unknown'}); where it is lost, remove that file`;
}
