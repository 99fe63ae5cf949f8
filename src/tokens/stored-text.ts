/** Records as text, sealed where there is a key. Used by every store that leaves the process. */
import { isTokenFailureKind, parseJsonObject } from '../protocol/token-failure.ts';
import { isSealed, SealError, type Sealer } from './sealing.ts';
import type { StoredBlock, StoredGrant } from './token-store.ts';

/** Text kept under `name`. */
export function formatStored(grant: StoredGrant, name: string, sealer: Sealer | undefined): string {
  const text = JSON.stringify(grant);
  return sealer === undefined ? text : sealer.seal(text, name);
}

/** `stale`: to be written again, it is in the clear or under an old key. Throws `SealError`. */
export function parseStored(
  text: string,
  name: string,
  sealer: Sealer | undefined,
): { readonly grant: StoredGrant; readonly stale: boolean } {
  if (!isSealed(text)) return { grant: parseGrant(text), stale: sealer !== undefined };
  if (sealer === undefined) throw new SealError('unknown_key', 'it is sealed and no state key was given');
  const opened = sealer.open(text, name);
  return { grant: parseGrant(opened.text), stale: opened.stale };
}

/** Undefined for anything that is not a block. */
export function parseBlock(text: string): StoredBlock | undefined {
  const { fingerprint, kind, message, cure, until } = parseJsonObject(text) ?? {};
  const sound = typeof fingerprint === 'string' && typeof message === 'string' && typeof until === 'number';
  if (!sound || !isTokenFailureKind(kind)) return undefined;
  return { fingerprint, kind, message, until, ...(typeof cure === 'string' ? { cure } : {}) };
}

function parseGrant(text: string): StoredGrant {
  const json = parseJsonObject(text);
  if (json === undefined) throw new SealError('damaged', 'not a JSON object');
  const { grantFingerprint, refreshToken, refreshTokenObtainedAt, tokenFingerprint } = json;
  const { accessToken, expiresAt, obtainedAt } = json;
  const texts = [refreshToken, tokenFingerprint, accessToken];
  const times = [refreshTokenObtainedAt, expiresAt, obtainedAt];
  const sound =
    typeof grantFingerprint === 'string' &&
    texts.every((value) => value === undefined || (typeof value === 'string' && value !== '')) &&
    times.every((value) => value === undefined || (typeof value === 'number' && Number.isFinite(value)));
  if (!sound) throw new SealError('damaged', 'not a stored grant');
  return json as unknown as StoredGrant;
}
