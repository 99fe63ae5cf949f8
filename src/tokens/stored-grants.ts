/**
 * The grants of one account as they are kept, and the changes they know. In: what is kept, a rotation, a token. Out: what is
 * kept from then on. Used by every store. They are kept together, so that an accounts file that is put back finds its own
 * again. Pure.
 */
import type { TokenResource } from '../protocol/vocabulary.ts';
import { isOfEarlierSignIn, isSameMailbox } from './same-consent.ts';
import type {
  GrantId,
  Rotation,
  RotationResult,
  StoredGrant,
  StoredToken,
  StoredTokens,
} from './token-store.ts';

/**
 * Grants of one account that are kept: the one in use, and what stood in the accounts file before it or somebody signed in
 * for as another mailbox. A file of so many is far from what is too large to be read.
 */
const MAX_GRANTS = 32;

/** What `grant` is after `rotation`; a later generation stands, except that of an earlier sign-in. */
export function afterRotation(
  stored: StoredGrant | undefined,
  grantFingerprint: string,
  rotation: Rotation,
  tokens: StoredTokens,
): { readonly result: RotationResult; readonly grant: StoredGrant } {
  const { base, refreshToken, obtainedAt, signedInAs, signedInAt, isCopy = false } = rotation;
  const isEarlier = stored !== undefined && isOfEarlierSignIn(stored, rotation);
  const isLater = stored !== undefined && stored.generation > base && !isEarlier;
  if (isLater && stored.refreshToken !== refreshToken)
    return { result: { kept: false, stored }, grant: stored };
  // The same one again is no later one.
  const generation =
    stored?.refreshToken === refreshToken
      ? Math.max(base + 1, stored.generation)
      : Math.max(base, isEarlier && isCopy ? 0 : (stored?.generation ?? 0)) + 1;
  const grant: StoredGrant = {
    grantFingerprint,
    generation,
    refreshToken,
    refreshTokenObtainedAt: obtainedAt,
    ...(signedInAs === undefined ? {} : { signedInAs }),
    ...(signedInAt === undefined ? {} : { signedInAt }),
    tokens: { ...stored?.tokens, ...tokens },
  };
  return { result: { kept: true, generation }, grant };
}

export function withToken(
  stored: StoredGrant | undefined,
  grantFingerprint: string,
  resource: TokenResource,
  token: StoredToken | undefined,
): StoredGrant {
  const { [resource]: _old, ...others } = stored?.tokens ?? {};
  return {
    ...(stored ?? { grantFingerprint, generation: 0 }),
    tokens: token === undefined ? others : { ...others, [resource]: token },
  };
}

/** Without access tokens that have ended; undefined where nothing worth keeping is left. */
export function withoutEnded(grant: StoredGrant, now: number): StoredGrant | undefined {
  const living = Object.entries(grant.tokens).filter(([, token]) => token.expiresAt > now);
  if (living.length === 0 && grant.refreshToken === undefined) return undefined;
  return { ...grant, tokens: Object.fromEntries(living) };
}

interface Kind {
  readonly grantFingerprint: string;
  readonly signedInAs?: string | undefined;
}

/** What the operator gave and each mailbox' own sign-in in place of it are grants of their own. */
export const isSameGrant = (one: Kind, other: Kind): boolean =>
  one.grantFingerprint === other.grantFingerprint &&
  (one.signedInAs === undefined || other.signedInAs === undefined
    ? one.signedInAs === other.signedInAs
    : isSameMailbox(one.signedInAs, other.signedInAs));

/** Whether this mailbox may use it. */
const isGrantOf = ({ fingerprint, user }: Omit<GrantId, 'accountId'>, grant: Kind): boolean =>
  grant.grantFingerprint === fingerprint &&
  (grant.signedInAs === undefined || user === undefined || isSameMailbox(grant.signedInAs, user));

/** What a mailbox goes on with: its own sign-in, else what the operator gave. */
export function ownGrant(
  grants: readonly StoredGrant[],
  id: Omit<GrantId, 'accountId'>,
): StoredGrant | undefined {
  const own = grants.filter((grant) => isGrantOf(id, grant));
  return own.find(({ signedInAs }) => signedInAs !== undefined) ?? own[0];
}

/** The grants with `grant` in front; the oldest of too many go. */
export const withGrant = (grants: readonly StoredGrant[], grant: StoredGrant): readonly StoredGrant[] =>
  [grant, ...grants.filter((other) => !isSameGrant(other, grant))].slice(0, MAX_GRANTS);
