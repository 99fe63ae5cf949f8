/**
 * Where the latest refresh token of a consent is, when several accounts have it or had it. In: grants of this process,
 * the store. Out: what they have, the latest first. Owns which grants of this process are alike.
 */
import { Secret } from '../accounts/credential.ts';
import type { GrantState } from './grant-state.ts';
import { isOfSameConsent } from './same-consent.ts';
import { SharedStoreAway } from './store-twofold.ts';
import type { StoreWatch } from './store-watch.ts';
import type { StoredGrant, TokenStore } from './token-store.ts';

/** What this process has of a consent for one account. */
export interface ConsentMember {
  readonly accountId: string;
  readonly fingerprint: string;
  readonly state: GrantState;
  readonly toSave: 'new' | 'lost';
  readonly refreshToken: Secret | undefined;
  readonly obtainedAt: number | undefined;
  readonly generation: number;
  readonly signedInAs: string | undefined;
  readonly seenAt: number | undefined;
}

/** What another account has. */
export interface Found {
  readonly refreshToken: Secret;
  readonly obtainedAt: number | undefined;
  readonly generation: number;
  readonly signedInAs: string | undefined;
}

export interface ConsentSearch {
  add(member: ConsentMember): void;
  remove(member: ConsentMember): void;
  /** Never rejects. `isAway`: the store cannot be reached. */
  findFor(
    own: ConsentMember,
    user: string,
    isThorough: boolean,
  ): Promise<{ readonly found: readonly Found[]; readonly isAway: boolean }>;
}

/** As the store will count it. */
export const generationOf = ({ generation, state, toSave }: ConsentMember): number =>
  generation + (state === 'unsaved' && toSave === 'new' ? 1 : 0);

export function createConsentSearch(store: TokenStore, watch: StoreWatch): ConsentSearch {
  const byFingerprint = new Map<string, readonly ConsentMember[]>();
  const alike = (member: ConsentMember): readonly ConsentMember[] =>
    (byFingerprint.get(member.fingerprint) ?? []).filter((other) => other !== member);

  return {
    add: (member) => void byFingerprint.set(member.fingerprint, [...alike(member), member]),
    remove(member) {
      const others = alike(member);
      if (others.length > 0) byFingerprint.set(member.fingerprint, others);
      else byFingerprint.delete(member.fingerprint);
    },
    async findFor(own, user, isThorough) {
      const { accountId, fingerprint, generation, signedInAs } = own;
      const holder = { accountId, fingerprint, user, generation, signedInAs };
      const others = alike(own);
      const unread = others.filter(({ seenAt }) => seenAt === undefined).map((other) => other.accountId);
      const found: Found[] = [];
      const addStored = (stored: StoredGrant | undefined): void => {
        if (stored?.refreshToken === undefined) return;
        found.push({
          refreshToken: new Secret(stored.refreshToken),
          obtainedAt: stored.refreshTokenObtainedAt,
          generation: stored.generation,
          signedInAs: stored.signedInAs,
        });
      };
      let isAway = false;
      try {
        addStored(await store.elsewhere?.(holder, { unread, isThorough }));
      } catch (error) {
        isAway = true;
        watch.failed(error, 'read');
        if (error instanceof SharedStoreAway) addStored(error.here);
      }
      for (const other of others)
        if (other.refreshToken !== undefined && isOfSameConsent(holder, other))
          found.push({
            refreshToken: other.refreshToken,
            obtainedAt: other.obtainedAt,
            generation: generationOf(other),
            signedInAs: other.signedInAs,
          });
      return { found: found.sort((a, b) => b.generation - a.generation), isAway };
    },
  };
}
