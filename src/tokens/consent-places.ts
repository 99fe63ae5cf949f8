/**
 * Where grants stand that are looked for under another account: one that was renamed, or that shares a consent. In: a
 * look at every place. Out: the places of a consent. Owns what it saw, for a while.
 */
import type { Clock } from '../clock.ts';
import type { StoredGrant } from './token-store.ts';

export interface ConsentPlaces {
  /** Places with a refresh token of the consent, as seen at most `ageMs` ago. */
  of(fingerprint: string, ageMs: number): Promise<ReadonlySet<string>>;
}

/** `look` names every place with what stands there. */
export function createConsentPlaces(
  look: () => AsyncIterable<readonly [place: string, grants: readonly StoredGrant[]]>,
  clock: Clock,
): ConsentPlaces {
  let seen: Promise<ReadonlyMap<string, ReadonlySet<string>>> | undefined;
  let seenAt = Number.NEGATIVE_INFINITY;

  async function lookAtAll(): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
    const places = new Map<string, Set<string>>();
    for await (const [place, grants] of look())
      for (const { grantFingerprint, refreshToken } of grants) {
        if (refreshToken === undefined) continue;
        const known = places.get(grantFingerprint);
        if (known === undefined) places.set(grantFingerprint, new Set([place]));
        else known.add(place);
      }
    return places;
  }

  return {
    async of(fingerprint, ageMs) {
      if (seen === undefined || clock.monotonic() - seenAt > ageMs) {
        seenAt = clock.monotonic();
        seen = lookAtAll();
        seen.catch(() => {
          seen = undefined;
        });
      }
      return (await seen).get(fingerprint) ?? new Set();
    },
  };
}

/** The latest of several records of a consent; undefined where none has a refresh token. */
export const latestOf = (grants: readonly (StoredGrant | undefined)[]): StoredGrant | undefined =>
  grants.reduce(
    (best, grant) =>
      grant?.refreshToken !== undefined && grant.generation > (best?.generation ?? 0) ? grant : best,
    undefined,
  );
