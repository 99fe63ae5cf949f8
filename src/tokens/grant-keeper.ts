/**
 * The refresh tokens of all grants, which are never lost: what a provider gave goes to the store before
 * anything else is done with it, whatever has become of the account meanwhile. In: rotations. Out: the
 * newest refresh token. Owns what the store could not take yet.
 */
import type { TokenResource } from '../accounts/credential.ts';
import { Secret } from '../accounts/credential.ts';
import { type Clock, orAfter, pause } from '../clock.ts';
import type { Log } from '../log.ts';
import { foldAddress } from '../protocol/text.ts';
import type { Steps } from '../slices.ts';
import { createConsentSearch, type Found } from './consent-search.ts';
import type { Grant } from './grant.ts';
import { type GrantEvent, nextGrantState } from './grant-state.ts';
import { isEarlier } from './same-consent.ts';
import { SharedStoreAway } from './store-twofold.ts';
import { createStoreWatch } from './store-watch.ts';
import type { Rotation, StoredGrant, StoredToken, StoredTokens, TokenStore } from './token-store.ts';

export interface GrantKeeper {
  /**
   * The same object for the same consent of an account as long as it has it or something of it is under way.
   * `isConsent`: a person gave it. Default true. `user`: the mailbox, which another one's sign-in does not serve.
   */
  of(accountId: string, fingerprint: string, isConsent?: boolean, user?: string): Grant;
  /**
   * Takes a later refresh token of the same consent that another account has, or had before it was renamed. `user` is
   * the mailbox. `isRefused`: ours is no good; one that is as late will do. False: the store cannot be reached. Never rejects.
   */
  catchUp(grant: Grant, user: string, isRefused?: boolean): Promise<boolean>;
  /** Looks into the store and takes a later refresh token from it. Rejects where the store cannot be reached. */
  load(grant: Grant): Promise<StoredGrant | undefined>;
  /**
   * A provider gave a refresh token: it is the newest now, and durable when this resolves, or noted as unsaved.
   * `signedInAs`: by a new sign-in for this mailbox. Never rejects.
   */
  rotated(
    grant: Grant,
    refreshToken: string,
    tokens: Promise<StoredTokens>,
    signedInAs?: string,
  ): Promise<void>;
  /** Keeps an access token, or forgets it. Never rejects. */
  saveToken(grant: Grant, resource: TokenResource, token: StoredToken | undefined): Promise<void>;
  dropSpare(grant: Grant): void;
  /** Something of it is under way until the result is called: who asks for the same consent gets the same object. */
  hold(grant: Grant): () => void;
  /** Accounts whose newest refresh token only this process knows. */
  unsaved(): readonly string[];
  /** From now on accounts have these; lets go, in steps, what no account has and nothing is under way for. */
  keepOnly(grants: Pick<ReadonlySet<Grant>, 'has'>): Steps<undefined>;
  /** The store has lost what it had: every rotated grant is given to it again. Never rejects. */
  saveAgain(): Promise<void>;
  /** Tells the log once of an outage, and of its end. */
  storeFailed(error: unknown, what: 'read' | 'write' | 'lock'): void;
  storeAnswered(what: 'read' | 'write'): void;
  /** The last thing asked of the store failed, or it is only just back or has lost what others may not have given it again yet. */
  readonly isStoreAway: boolean;
  /** The last attempt at what is unsaved, at most `boundMs`; names the accounts that are lost if this process ends. */
  close(boundMs: number): Promise<readonly string[]>;
}

/** How long a store that failed is left alone before what it missed is offered again. */
const STORE_RETRY_MS = 10_000;

/** … and once the process is about to end, ms. */
const LAST_RETRY_MS = 250;

const NONE: Promise<StoredTokens> = Promise.resolve({});

type Kept = { -readonly [K in keyof Grant]: Grant[K] } & {
  readonly isConsent: boolean;
  saving: Promise<void> | undefined;
  /** How many have something of it under way. */
  holders: number;
  /** What is unsaved: a new refresh token, or the one the store had and has lost. */
  toSave: 'new' | 'lost';
  /** Refresh tokens that were offered to the store without a word from it: it may take one when it is back. */
  offered: Set<string>;
  /** Access tokens that the store could not take: no other relay need ask for them again. */
  missed: Partial<Record<TokenResource, StoredToken>>;
};

export function createGrantKeeper(deps: {
  readonly store: TokenStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly onChange: (accountId: string) => void;
}): GrantKeeper {
  const { store, clock, log } = deps;
  const watch = createStoreWatch({ kind: store.kind, clock, log });
  const grants = new Map<string, Kept>();
  const consents = createConsentSearch(store, watch);
  let wanted: Pick<ReadonlySet<Grant>, 'has'> = new Set();
  let cancelRetry: (() => void) | undefined;
  let toldOfMemory = false;

  const kept = (grant: Grant): Kept => grant as Kept;
  const idOf = ({ accountId, fingerprint, user }: Grant) => ({ accountId, fingerprint, user });
  const keyOf = ({ accountId, fingerprint, user }: Grant): string => `${fingerprint} ${accountId} ${user}`;

  function move(grant: Kept, event: GrantEvent): boolean {
    const next = nextGrantState(grant.state, event);
    if (next === undefined) return false;
    grant.state = next;
    const failedSaves =
      event === 'save failed' ? grant.failedSaves + 1 : next === 'unsaved' ? grant.failedSaves : 0;
    if (failedSaves !== grant.failedSaves) {
      grant.failedSaves = failedSaves;
      deps.onChange(grant.accountId);
    }
    letGo(grant);
    return true;
  }

  /**
   * Unless an account has it, something of it is still to come, or it may have to be given to the store again: a
   * shared one can lose its data while an account is out of the accounts file.
   */
  function letGo(grant: Kept): void {
    const isGivenAgain = store.kind === 'redis' && grant.refreshToken !== undefined;
    const isNeeded = wanted.has(grant) || grant.holders > 0 || grant.state === 'unsaved' || isGivenAgain;
    if (isNeeded || grants.get(keyOf(grant)) !== grant) return;
    grants.delete(keyOf(grant));
    consents.remove(grant);
  }

  function takeStored(grant: Kept, stored: StoredGrant): void {
    if (stored.refreshToken === undefined || stored.refreshToken === grant.refreshToken?.reveal()) {
      if (stored.refreshToken !== undefined) grant.generation = Math.max(grant.generation, stored.generation);
      return;
    }
    if (isEarlier(stored, grant) || !move(grant, 'loaded')) return;
    grant.refreshToken = new Secret(stored.refreshToken);
    grant.obtainedAt = stored.refreshTokenObtainedAt;
    grant.signedInAs = stored.signedInAs;
    grant.generation = Math.max(grant.generation, stored.generation);
  }

  function remember(grant: Kept): void {
    if (grants.get(keyOf(grant)) === grant) return;
    grants.set(keyOf(grant), grant);
    if (grant.isConsent) consents.add(grant);
  }

  /** Another account has it: a copy is kept for this one, whatever becomes of that. */
  async function takeOver(own: Kept, found: Found): Promise<void> {
    if (found.refreshToken.reveal() === own.refreshToken?.reveal()) return;
    const handedOn = leaveFor(own, found.signedInAs);
    if (own.state === 'unsaved' && own.toSave === 'new' && own.signedInAs === found.signedInAs)
      own.spare = own.refreshToken;
    Object.assign(own, found);
    own.toSave = 'lost';
    own.isHere = false;
    move(own, 'rotated');
    log.info(
      { event: 'refresh_token_taken_over', account: own.accountId },
      'another account with the same consent has a later refresh token: going on with it',
    );
    await handedOn;
    await save(own, NONE);
  }

  /** Before `own` goes on with a sign-in: another account keeps the latest of what the operator gave. */
  async function leaveFor(own: Kept, signedInAs: string | undefined): Promise<void> {
    const legacy = consents.legacyOf(own, signedInAs, (other) => wanted.has(other as Kept));
    if (legacy !== undefined) await takeOver(legacy.heir as Kept, legacy.last);
  }

  /** The store had it: it goes back as what it was, so that a later one of another relay stands above it. */
  function lostBy(grant: Kept): boolean {
    if (grant.state !== 'kept') return false;
    grant.toSave = 'lost';
    watch.isToBeCompleted();
    return move(grant, 'rotated');
  }

  /** One at a time for a grant; a rotation during a save is saved after it. */
  function save(grant: Kept, tokens: Promise<StoredTokens>): Promise<void> {
    const mine = (grant.saving ?? Promise.resolve()).then(() => saveNow(grant, tokens));
    grant.saving = mine;
    return mine.finally(() => {
      if (grant.saving === mine) grant.saving = undefined;
    });
  }

  async function saveNow(grant: Kept, tokens: Promise<StoredTokens>): Promise<void> {
    const { refreshToken } = grant;
    if (grant.state !== 'unsaved' || refreshToken === undefined) return;
    const rotation: Rotation = {
      base: grant.generation - (grant.toSave === 'lost' ? 1 : 0),
      refreshToken: refreshToken.reveal(),
      obtainedAt: grant.obtainedAt ?? clock.now(),
      ...(grant.signedInAs === undefined ? {} : { signedInAs: grant.signedInAs }),
      tokens,
    };
    try {
      const at = clock.monotonic();
      const result = await store.rotate(idOf(grant), rotation);
      watch.answered('write');
      grant.seenAt = at;
      if (result.kept) {
        grant.generation = Math.max(grant.generation, result.generation);
        grant.offered.clear();
        if (grant.refreshToken === refreshToken) move(grant, 'saved');
        return;
      }
      if (grant.offered.delete(result.stored.refreshToken ?? '')) {
        // Our own earlier one, taken after we had given up waiting: what came later goes on top of it.
        grant.generation = Math.max(grant.generation, result.stored.generation);
        grant.toSave = 'new';
        return await saveNow(grant, tokens);
      }
      log.warn(
        { event: 'refresh_token_overtaken', account: grant.accountId },
        'another relay has refreshed this account meanwhile: going on with its refresh token',
      );
      grant.spare = refreshToken;
      move(grant, 'overtaken');
      takeStored(grant, result.stored);
    } catch (error) {
      if (grant.refreshToken === refreshToken)
        grant.isHere = error instanceof SharedStoreAway && error.here !== undefined;
      grant.offered.add(rotation.refreshToken);
      move(grant, 'save failed');
      watch.failed(error, 'write');
      Object.assign(grant.missed, await tokens);
      retryLater();
    }
  }

  async function saveAll(): Promise<void> {
    cancelRetry = undefined;
    await Promise.all([...grants.values()].map(offerAgain));
  }

  async function offerAgain(grant: Kept): Promise<void> {
    const missed = grant.missed;
    grant.missed = {};
    if (grant.state === 'unsaved') return save(grant, Promise.resolve(missed));
    for (const [resource, token] of Object.entries(missed))
      await saveToken(grant, resource as TokenResource, token);
  }

  function retryLater(): void {
    cancelRetry ??= clock.after(STORE_RETRY_MS, () => void saveAll());
  }

  async function saveToken(grant: Kept, resource: TokenResource, token: StoredToken | undefined) {
    delete grant.missed[resource];
    try {
      await store.saveToken(idOf(grant), resource, token);
      watch.answered('write');
    } catch (error) {
      watch.failed(error, 'write');
      if (token === undefined) return;
      grant.missed[resource] = token;
      retryLater();
    }
  }

  // The others may have rotated alone what this one did not miss, and save it only now.
  store.onBack?.(() => {
    watch.isToBeCompleted();
    if (cancelRetry === undefined) return;
    giveUpRetry();
    void saveAll();
  });

  function giveUpRetry(): void {
    cancelRetry?.();
    cancelRetry = undefined;
  }

  const unsaved = (): readonly string[] =>
    [...grants.values()].filter((grant) => grant.state === 'unsaved').map((grant) => grant.accountId);

  return {
    of(accountId, fingerprint, isConsent = true, user) {
      const made: Kept = {
        accountId,
        fingerprint,
        user: user === undefined ? undefined : foldAddress(user),
        state: 'original',
        refreshToken: undefined,
        obtainedAt: undefined,
        generation: 0,
        isConsent,
        signedInAs: undefined,
        seenAt: undefined,
        spare: undefined,
        failedSaves: 0,
        isHere: false,
        saving: undefined,
        holders: 0,
        toSave: 'new',
        offered: new Set(),
        missed: {},
      };
      const known = grants.get(keyOf(made));
      if (known !== undefined) return known;
      remember(made);
      return made;
    },
    async load(grant) {
      const own = kept(grant);
      try {
        const at = clock.monotonic();
        const stored = await store.load(idOf(grant));
        watch.answered('read');
        own.seenAt = at;
        if (stored !== undefined) takeStored(own, stored);
        // A store that came back without what it had (a failover, an empty disk) is given it again.
        const isBehind = own.state === 'kept' && isEarlier(stored ?? { generation: 0 }, own);
        if (isBehind && lostBy(own)) void save(own, NONE);
        return stored;
      } catch (error) {
        watch.failed(error, 'read');
        // Others may have a later one, which is not known; an earlier one is surely no good.
        if (error instanceof SharedStoreAway && error.here !== undefined) takeStored(own, error.here);
        throw error;
      }
    },
    async catchUp(grant, user, isRefused = false) {
      const own = kept(grant);
      const { later, equal, isAway } = await consents.findFor(own, user, isRefused);
      if (later !== undefined) void takeOver(own, later);
      if (isRefused) own.spare ??= equal?.refreshToken;
      return !isAway;
    },
    async rotated(grant, refreshToken, tokens, signedInAs = grant.signedInAs) {
      const own = kept(grant);
      remember(own);
      const handedOn = leaveFor(own, signedInAs);
      own.signedInAs = signedInAs;
      own.refreshToken = new Secret(refreshToken);
      own.obtainedAt = clock.now();
      own.toSave = 'new';
      own.isHere = false;
      move(own, 'rotated');
      await handedOn;
      await save(own, tokens);
      if (store.kind !== 'memory' || toldOfMemory) return;
      toldOfMemory = true;
      log.info(
        { event: 'rotation_in_memory', account: own.accountId },
        'the provider gives new refresh tokens and they are kept in memory only: with --state-dir they survive a stop',
      );
    },
    saveToken: (grant, resource, token) => saveToken(kept(grant), resource, token),
    dropSpare: (grant) => {
      kept(grant).spare = undefined;
    },
    hold(grant) {
      kept(grant).holders += 1;
      return () => {
        kept(grant).holders -= 1;
        letGo(kept(grant));
      };
    },
    unsaved,
    *keepOnly(all) {
      wanted = all;
      for (const grant of grants.values()) {
        letGo(grant);
        yield;
      }
      return undefined;
    },
    async saveAgain() {
      for (const grant of [...grants.values()]) if (lostBy(grant)) await save(grant, NONE);
    },
    storeFailed: watch.failed,
    storeAnswered: watch.answered,
    get isStoreAway() {
      return watch.isAway;
    },
    async close(boundMs) {
      const end = clock.monotonic() + boundMs;
      const left = (): number => end - clock.monotonic();
      const unsavedOnes = (): Kept[] => [...grants.values()].filter(({ state }) => state === 'unsaved');
      giveUpRetry();
      if (unsavedOnes().length > 0) await orAfter(clock, saveAll(), boundMs);
      // A store that was away for a moment may be back in time; what this relay's own directory has is not lost.
      while (unsavedOnes().some((grant) => !grant.isHere) && left() > 0) {
        await pause(clock, Math.min(LAST_RETRY_MS, left()));
        giveUpRetry();
        await orAfter(clock, saveAll(), Math.max(left(), 0));
      }
      giveUpRetry();
      const here = unsavedOnes().filter((grant) => grant.isHere);
      if (here.length > 0)
        log.warn(
          { event: 'refresh_tokens_kept_here', accounts: here.map(({ accountId }) => accountId) },
          'the newest refresh tokens of these accounts are in the state directory only: start this relay again with it, so that the others get them',
        );
      return unsavedOnes().flatMap((grant) => (grant.isHere ? [] : grant.accountId));
    },
  };
}
