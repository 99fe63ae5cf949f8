/**
 * Where the latest refresh token of a consent is, when several accounts have it or had it. In: grants of this process,
 * the store. Out: what they have, the latest first. Owns which grants of this process are alike.
 */
import { Secret } from '../accounts/credential.ts';
import type { GrantState } from './grant-state.ts';
import { type ConsentHolder, isOfSameConsent, latestFirst } from './same-consent.ts';
import { SharedStoreAway } from './store-twofold.ts';
import type { StoreWatch } from './store-watch.ts';
import type { StoredGrant, TokenStore } from './token-store.ts';
import { isUnreadable } from './unreadable.ts';

/**
 * Why more is looked for than before any request. `refused`: ours is no good, and one that is as late will do.
 * `interrupted`: whoever refreshed last did not come to its end.
 */
export type GrantDoubt = 'refused' | 'interrupted';

/** What another account has, or what stands beside the files. */
export interface Found {
  readonly refreshToken: Secret;
  readonly obtainedAt: number | undefined;
  readonly generation: number;
  readonly signedInAs: string | undefined;
  readonly signedInAt: number | undefined;
}

/** What this process has of a consent for one account. */
export interface ConsentMember extends Omit<Found, 'refreshToken'> {
  readonly accountId: string;
  readonly fingerprint: string;
  readonly state: GrantState;
  readonly toSave: 'new' | 'lost';
  readonly refreshToken: Secret | undefined;
  readonly seenAt: number | undefined;
}

export interface ConsentSearch {
  add(member: ConsentMember): void;
  remove(member: ConsentMember): void;
  /**
   * The latest of what the operator gave, which `own` leaves for a sign-in by `signedInAs`, and who is to have it;
   * undefined where nobody lacks it.
   */
  legacyOf(
    own: ConsentMember,
    signedInAs: string | undefined,
    isServed: (member: ConsentMember) => boolean,
  ): { readonly heir: ConsentMember; readonly last: Found } | undefined;
  /**
   * `later` than what `own` has. `spare`, where ours was refused: as late as the latest, made of the same one without
   * knowledge of each other; else what somebody signed in for as this mailbox, however far ours is. Never rejects.
   * `failure`: why what the store has is not known.
   */
  findFor(
    own: ConsentMember,
    user: string,
    doubt?: GrantDoubt,
  ): Promise<{
    readonly later: Found | undefined;
    readonly spare: Found | undefined;
    readonly failure: unknown;
  }>;
}

/** As the store will count it. */
const generationOf = ({ generation, state, toSave }: ConsentMember): number =>
  generation + (state === 'unsaved' && toSave === 'new' ? 1 : 0);

export function createConsentSearch(store: TokenStore, watch: StoreWatch): ConsentSearch {
  const byFingerprint = new Map<string, readonly ConsentMember[]>();
  const alike = (member: ConsentMember): readonly ConsentMember[] =>
    (byFingerprint.get(member.fingerprint) ?? []).filter((other) => other !== member);

  /** What others have that `holder` may go on with: what the store says, and this process. */
  async function search(
    own: ConsentMember,
    holder: ConsentHolder,
    isThorough: boolean,
  ): Promise<{ found: Found[]; failure: unknown }> {
    const others = alike(own);
    // A command beside this process may have written for any of them.
    const unread = others
      .filter(({ seenAt }) => isThorough || seenAt === undefined)
      .map((other) => other.accountId);
    const found: Found[] = [];
    const addStored = (stored: StoredGrant | undefined): void => {
      if (stored?.refreshToken === undefined) return;
      found.push({
        refreshToken: new Secret(stored.refreshToken),
        obtainedAt: stored.refreshTokenObtainedAt,
        generation: stored.generation,
        signedInAs: stored.signedInAs,
        signedInAt: stored.signedInAt,
      });
    };
    let failure: unknown;
    try {
      addStored(await store.elsewhere?.(holder, { unread, isThorough }));
    } catch (error) {
      failure = error;
      if (!isUnreadable(error)) watch.failed(error, 'read');
      if (error instanceof SharedStoreAway) addStored(error.here);
    }
    for (const other of others)
      if (other.refreshToken !== undefined && isOfSameConsent(holder, other))
        found.push({
          refreshToken: other.refreshToken,
          obtainedAt: other.obtainedAt,
          generation: generationOf(other),
          signedInAs: other.signedInAs,
          signedInAt: other.signedInAt,
        });
    return { found, failure };
  }

  /** To one that has nothing a sign-in comes first. */
  async function ownSignIn(own: ConsentMember, holder: ConsentHolder): Promise<Found | undefined> {
    const fromNothing = { ...holder, generation: 0 };
    const { found } = await search(own, fromNothing, true);
    return found.sort(latestFirst(fromNothing)).find((other) => other.signedInAs !== undefined);
  }

  return {
    add: (member) => void byFingerprint.set(member.fingerprint, [...alike(member), member]),
    remove(member) {
      const others = alike(member);
      if (others.length > 0) byFingerprint.set(member.fingerprint, others);
      else byFingerprint.delete(member.fingerprint);
    },
    legacyOf(own, signedInAs, isServed) {
      const { refreshToken, obtainedAt } = own;
      if (refreshToken === undefined || own.signedInAs !== undefined || signedInAs === undefined)
        return undefined;
      const generation = generationOf(own);
      const last = { refreshToken, obtainedAt, generation, signedInAs: undefined, signedInAt: undefined };
      const sharing = alike(own).filter((other) => other.signedInAs === undefined);
      const heir = sharing.find(isServed) ?? sharing[0];
      const isHad = sharing.some((other) => generationOf(other) >= last.generation);
      return heir === undefined || isHad ? undefined : { heir, last };
    },
    async findFor(own, user, doubt) {
      const { accountId, fingerprint, generation, signedInAs, signedInAt } = own;
      const holder = { accountId, fingerprint, user, generation, signedInAs, signedInAt };
      const { found, failure } = await search(own, holder, doubt !== undefined);
      const [first] = found.sort(latestFirst(holder));
      const ownGeneration = generationOf(own);
      const later = first !== undefined && first.generation > ownGeneration ? first : undefined;
      if (doubt !== 'refused') return { later, spare: undefined, failure };
      const latest = later ?? { ...holder, generation: ownGeneration, refreshToken: own.refreshToken };
      const equal = found.find(
        (other) =>
          other.generation === latest.generation &&
          other.signedInAs === latest.signedInAs &&
          other.refreshToken.reveal() !== latest.refreshToken?.reveal(),
      );
      const spare = equal ?? (latest.signedInAs === undefined ? await ownSignIn(own, holder) : undefined);
      return { later, spare, failure };
    },
  };
}
