/**
 * When accounts have one consent: the operator gave the same client_id and refresh token for both, say for a mailbox
 * that was renamed, or for two mailboxes of one person. They hand the newest refresh token on to each other; access
 * tokens stay with their account. What a person signed in for anew serves that mailbox alone. Pure.
 */
import { foldAddress } from '../protocol/text.ts';

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
  /** When, ms since the epoch. */
  readonly signedInAt: number | undefined;
}

export const isSameMailbox = (one: string, other: string): boolean => foldAddress(one) === foldAddress(other);

/** Whether `holder` may go on with what is kept under the same fingerprint. */
export const isOfSameConsent = (
  holder: Pick<ConsentHolder, 'user' | 'signedInAs' | 'signedInAt'>,
  found: SignIn & { readonly signedInAs?: string | undefined },
): boolean =>
  found.signedInAs === undefined
    ? holder.signedInAs === undefined
    : isSameMailbox(found.signedInAs, holder.user) && !isOfEarlierSignIn(found, holder);

/** Whether it is known to be of an earlier sign-in of the same mailbox, however often it was refreshed since. */
export const isOfEarlierSignIn = (one: SignIn, other: SignIn): boolean =>
  one.signedInAt !== undefined && other.signedInAt !== undefined && one.signedInAt < other.signedInAt;

/** Whether what is kept of one account comes before what `own` has gone on to. */
export const isEarlier = (found: Latest, own: Latest): boolean => {
  if ((found.signedInAs === undefined) !== (own.signedInAs === undefined))
    return found.signedInAs === undefined;
  if (isOfEarlierSignIn(found, own)) return true;
  return found.generation < own.generation && !isOfEarlierSignIn(own, found);
};

/**
 * Orders what `holder` may go on with. A sign-in for its own mailbox stands before what the operator gave, unless the
 * holder is further already: their generations count different things.
 */
export const latestFirst = (holder: Pick<ConsentHolder, 'generation'>) => {
  const isOwnSignIn = (found: Latest): number =>
    found.signedInAs !== undefined && found.generation > holder.generation ? 1 : 0;
  return (a: Latest, b: Latest): number => isOwnSignIn(b) - isOwnSignIn(a) || b.generation - a.generation;
};

type SignIn = { readonly signedInAt?: number | undefined };
type Latest = SignIn & { readonly generation: number; readonly signedInAs?: string | undefined };

/** The first of them that `holder` may go on with; undefined where none has a refresh token. */
export const latestFor = <G extends Latest & { readonly refreshToken?: unknown }>(
  holder: Pick<ConsentHolder, 'user' | 'signedInAs' | 'signedInAt' | 'generation'>,
  found: readonly (G | undefined)[],
): G | undefined =>
  found
    .flatMap((grant) => (grant?.refreshToken !== undefined && isOfSameConsent(holder, grant) ? grant : []))
    .sort(latestFirst(holder))
    .at(0);
