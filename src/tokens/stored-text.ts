/**
 * Records as text, sealed where there is a key, and the two changes a record knows. Used by every store.
 * One text holds the grants of one account, so that an accounts file that is put back finds its own again.
 */
import { parseJsonObject } from '../protocol/json-object.ts';
import { isTokenFailureKind } from '../protocol/token-failure.ts';
import { TOKEN_RESOURCES, type TokenResource } from '../protocol/vocabulary.ts';
import { isSameMailbox } from './same-consent.ts';
import { isSealed, SealError, type Sealer } from './sealing.ts';
import type {
  GrantId,
  Rotation,
  RotationResult,
  StoredBlock,
  StoredGrant,
  StoredToken,
  StoredTokens,
} from './token-store.ts';

/**
 * Grants of one account that are kept: the one in use, and what stood in the accounts file before it or somebody signed in
 * for as another mailbox. A file of so many is far from what is too large to be read.
 */
const MAX_GRANTS = 32;

/** What `grant` is after `rotation`; a later generation stands. */
export function afterRotation(
  stored: StoredGrant | undefined,
  grantFingerprint: string,
  rotation: Rotation,
  tokens: StoredTokens,
): { readonly result: RotationResult; readonly grant: StoredGrant } {
  const { base, refreshToken, obtainedAt, signedInAs } = rotation;
  if (stored !== undefined && stored.generation > base && stored.refreshToken !== refreshToken)
    return { result: { kept: false, stored }, grant: stored };
  // The same one again is no later one.
  const generation =
    stored?.refreshToken === refreshToken
      ? Math.max(base + 1, stored.generation)
      : Math.max(base, stored?.generation ?? 0) + 1;
  const grant: StoredGrant = {
    grantFingerprint,
    generation,
    refreshToken,
    refreshTokenObtainedAt: obtainedAt,
    ...(signedInAs === undefined ? {} : { signedInAs }),
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

/** Text kept under `name`. */
export async function formatStored(
  grants: readonly StoredGrant[],
  name: string,
  sealer: Sealer | undefined,
): Promise<string> {
  const text = JSON.stringify({ version: 2, grants });
  return sealer === undefined ? text : sealer.seal(text, name);
}

/** `isStale`: to be written again, it is in the clear or under an old key. Rejects with `SealError`. */
export async function parseStored(
  text: string,
  name: string,
  sealer: Sealer | undefined,
): Promise<{ readonly grants: readonly StoredGrant[]; readonly isStale: boolean }> {
  if (!isSealed(text)) return { grants: parseGrants(text), isStale: sealer !== undefined };
  if (sealer === undefined) throw new SealError('unknown_key', 'it is sealed and no state key was given');
  const opened = await sealer.open(text, name);
  return { grants: parseGrants(opened.text), isStale: opened.isStale };
}

/** Undefined for anything that is not a block. */
export function parseBlock(text: string): StoredBlock | undefined {
  const { fingerprint, kind, message, cure, until } = parseJsonObject(text) ?? {};
  const sound = typeof fingerprint === 'string' && typeof message === 'string' && isTime(until);
  if (!sound || !isTokenFailureKind(kind)) return undefined;
  return { fingerprint, kind, message, until, ...(typeof cure === 'string' ? { cure } : {}) };
}

function parseGrants(text: string): readonly StoredGrant[] {
  const json = parseJsonObject(text);
  if (json === undefined) throw new SealError('damaged', 'not a JSON object');
  // Version 0.1 kept one grant and one access token.
  if (json.version === undefined) return [parseFirstForm(json)];
  if (json.version !== 2 || !Array.isArray(json.grants)) throw new SealError('damaged', 'not stored grants');
  return json.grants.map(parseGrant);
}

/** ECMA-262 §21.4.1.1: no date is further from the epoch, ms. */
const LAST_TIME = 8.64e15;
const isTime = (value: unknown): value is number =>
  typeof value === 'number' && value >= 0 && value <= LAST_TIME;
const isCount = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);
const isText = (value: unknown): value is string => typeof value === 'string' && value !== '';
const isMissingOr = (is: (value: unknown) => boolean, value: unknown): boolean =>
  value === undefined || is(value);

function parseFirstForm(json: Record<string, unknown>): StoredGrant {
  const { tokenFingerprint, accessToken, expiresAt, obtainedAt, refreshToken, ...rest } = json;
  const whole = isText(tokenFingerprint) && isText(accessToken) && isTime(expiresAt) && isTime(obtainedAt);
  const parts = [tokenFingerprint, accessToken].every((value) => isMissingOr(isText, value));
  if (!parts || ![expiresAt, obtainedAt].every((value) => isMissingOr(isTime, value)))
    throw new SealError('damaged', 'not a stored grant');
  const token = { fingerprint: tokenFingerprint, accessToken, expiresAt, obtainedAt };
  return parseGrant({
    ...rest,
    ...(refreshToken === undefined ? {} : { refreshToken }),
    generation: refreshToken === undefined ? 0 : 1,
    tokens: whole ? { smtp: token } : {},
  });
}

function parseGrant(value: unknown): StoredGrant {
  const { grantFingerprint, generation, refreshToken, refreshTokenObtainedAt, signedInAs, tokens } = (value ??
    {}) as Record<string, unknown>;
  const sound =
    typeof grantFingerprint === 'string' &&
    isCount(generation) &&
    isMissingOr(isText, refreshToken) &&
    isMissingOr(isCount, refreshTokenObtainedAt) &&
    isMissingOr(isText, signedInAs) &&
    typeof tokens === 'object';
  if (!sound) throw new SealError('damaged', 'not a stored grant');
  return {
    grantFingerprint,
    generation,
    ...(refreshToken === undefined
      ? {}
      : {
          refreshToken: refreshToken as string,
          refreshTokenObtainedAt: isTime(refreshTokenObtainedAt) ? refreshTokenObtainedAt : 0,
        }),
    ...(signedInAs === undefined ? {} : { signedInAs: signedInAs as string }),
    tokens: parseTokens((tokens ?? {}) as Record<string, unknown>),
  };
}

function parseTokens(tokens: Record<string, unknown>): StoredTokens {
  const sound: Partial<Record<TokenResource, StoredToken>> = {};
  for (const resource of TOKEN_RESOURCES) {
    const { fingerprint, accessToken, expiresAt, obtainedAt } = (tokens[resource] ?? {}) as Record<
      string,
      unknown
    >;
    if (isText(fingerprint) && isText(accessToken) && isTime(expiresAt) && isTime(obtainedAt))
      sound[resource] = { fingerprint, accessToken, expiresAt, obtainedAt };
  }
  return sound;
}
