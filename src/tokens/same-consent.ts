/**
 * When accounts have one consent: the operator gave the same client_id and refresh token for both, say for a mailbox
 * that was renamed, or for two mailboxes of one person. They hand the newest refresh token on to each other; access
 * tokens stay with their account. What a person signed in for anew serves that mailbox alone. Pure.
 */
import type { StoredGrant } from './token-store.ts';

/** What an account has of a consent. */
export interface ConsentHolder {
  readonly accountId: string;
  /** Hash of what the operator gave. */
  readonly fingerprint: string;
  /** The mailbox, as the provider knows it. */
  readonly user: string;
  readonly generation: number;
  /** Whose new sign-in took the place of what the operator gave; undefined: nobody's. */
  readonly signedInAs: string | undefined;
}

/** Whether `holder` may go on with what another account with the same fingerprint has. */
export const isOfSameConsent = (
  holder: Pick<ConsentHolder, 'user' | 'signedInAs'>,
  found: { readonly signedInAs?: string | undefined },
): boolean =>
  found.signedInAs === undefined ? holder.signedInAs === undefined : found.signedInAs === holder.user;

/** The latest of them that `holder` may go on with; undefined where none has a refresh token. */
export const latestFor = (
  holder: Pick<ConsentHolder, 'user' | 'signedInAs'>,
  found: readonly (StoredGrant | undefined)[],
): StoredGrant | undefined =>
  found.reduce(
    (best, grant) =>
      grant?.refreshToken !== undefined &&
      isOfSameConsent(holder, grant) &&
      grant.generation > (best?.generation ?? 0)
        ? grant
        : best,
    undefined,
  );
