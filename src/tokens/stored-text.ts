/**
 * Records as text, sealed where there is a key. In: the grants of one account, or the text of a block. Out: text, or what
 * it holds, checked. Used by every store outside memory.
 */
import { parseJsonObject } from '../protocol/json-object.ts';
import { isTokenFailureKind } from '../protocol/token-failure.ts';
import { TOKEN_RESOURCES, type TokenResource } from '../protocol/vocabulary.ts';
import { isSealed, SealError, type Sealer } from './sealing.ts';
import type { StoredBlock, StoredGrant, StoredToken, StoredTokens } from './token-store.ts';

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
  const {
    grantFingerprint,
    generation,
    refreshToken,
    refreshTokenObtainedAt,
    signedInAs,
    signedInAt,
    tokens,
  } = (value ?? {}) as Record<string, unknown>;
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
    ...(isTime(signedInAt) ? { signedInAt } : {}),
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
