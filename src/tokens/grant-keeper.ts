/**
 * The refresh tokens of all grants, which are never lost: what a provider gave goes to the store before
 * anything else is done with it, whatever has become of the account meanwhile. In: rotations. Out: the
 * newest refresh token. Owns what the store could not take yet.
 */
import type { TokenResource } from '../accounts/credential.ts';
import { Secret } from '../accounts/credential.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { foldAddress } from '../protocol/text.ts';
import type { Steps } from '../slices.ts';
import { createConsentSearch, type Found, type GrantDoubt } from './consent-search.ts';
import type { Grant } from './grant.ts';
import { createGrantSaver, idOf, type Kept, NONE } from './grant-saver.ts';
import { type GrantEvent, nextGrantState } from './grant-state.ts';
import { isEarlier } from './same-consent.ts';
import { SharedStoreAway } from './store-twofold.ts';
import { createStoreWatch } from './store-watch.ts';
import type { StoredGrant, StoredToken, StoredTokens, TokenStore } from './token-store.ts';
import { isUnreadable } from './unreadable.ts';

export interface GrantKeeper {
  /**
   * The same object for the same consent of an account as long as it has it or something of it is under way.
   * `isConsent`: a person gave it. Default true. `user`: the mailbox, which another one's sign-in does not serve.
   */
  of(accountId: string, fingerprint: string, isConsent?: boolean, user?: string): Grant;
  /**
   * Takes a later refresh token of the same consent that another account has, or had before it was renamed, or that a
   * process left half written. `user` is the mailbox. Results in why it is not known what the store has, undefined where it
   * is. Never rejects.
   */
  catchUp(grant: Grant, user: string, doubt?: GrantDoubt): Promise<unknown>;
  /** Looks into the store and takes a later refresh token from it. Rejects where the store cannot be reached. */
  load(grant: Grant): Promise<StoredGrant | undefined>;
  /**
   * A provider gave a refresh token: it is the newest now, and durable when this resolves, or noted as unsaved.
   * `signedInAs`: of a sign-in for this mailbox. Never rejects.
   */
  rotated(
    grant: Grant,
    refreshToken: string,
    tokens: Promise<StoredTokens>,
    signedInAs?: string,
  ): Promise<void>;
  /** Likewise, and a person has just signed in for it as the mailbox `user`: whatever is refreshed of an earlier sign-in is no later one. */
  signedIn(grant: Grant, refreshToken: string, tokens: Promise<StoredTokens>, user: string): Promise<void>;
  /** Keeps an access token, or forgets it. Never rejects. */
  saveToken(grant: Grant, resource: TokenResource, token: StoredToken | undefined): Promise<void>;
  /** It is judged (where given: this one, else whichever there is); one that nothing was heard of is asked with again. */
  dropSpare(grant: Grant, spare?: Grant['spare']): void;
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
  let toldOfMemory = false;

  const saver = createGrantSaver({ store, watch, clock, log, all: () => grants.values(), move, takeStored });
  const { save, saveToken } = saver;

  const kept = (grant: Grant): Kept => grant as Kept;
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
    grant.signedInAt = stored.signedInAt;
    grant.generation = Math.max(grant.generation, stored.generation);
  }

  function remember(grant: Kept): void {
    if (grants.get(keyOf(grant)) === grant) return;
    grants.set(keyOf(grant), grant);
    if (grant.isConsent) consents.add(grant);
  }

  /** It is another's, or stands beside the files: a copy is kept for this one, whatever becomes of that. */
  async function takeOver(own: Kept, found: Found): Promise<void> {
    if (found.refreshToken.reveal() === own.refreshToken?.reveal()) return;
    const handedOn = leaveFor(own, found.signedInAs);
    if (own.signedInAs !== found.signedInAs) own.spare = undefined;
    else if (own.state === 'unsaved' && own.toSave === 'new')
      own.spare = own.refreshToken && { refreshToken: own.refreshToken, signedInAs: own.signedInAs };
    Object.assign(own, found);
    own.toSave = 'lost';
    own.isHere = false;
    move(own, 'rotated');
    log.info(
      { event: 'refresh_token_taken_over', account: own.accountId },
      'a later refresh token of the same consent has been found: going on with it',
    );
    await handedOn;
    await save(own, NONE);
  }

  /** Before `own` goes on with a sign-in: the latest of what the operator gave stays with another account, or is saved for one to come. */
  async function leaveFor(own: Kept, signedInAs: string | undefined): Promise<void> {
    const legacy = consents.legacyOf(own, signedInAs, (other) => wanted.has(other as Kept));
    if (legacy !== undefined) return takeOver(legacy.heir as Kept, legacy.last);
    if (own.state !== 'unsaved' || own.signedInAs !== undefined || signedInAs === undefined) return;
    const left = { ...own, user: undefined, saving: undefined, holders: 0, missed: {}, spare: undefined };
    own.offered = new Set();
    remember(left);
    await save(left, NONE);
  }

  /** The store had it: it goes back as what it was, so that a later one of another relay stands above it. */
  function lostBy(grant: Kept): boolean {
    if (grant.state !== 'kept') return false;
    grant.toSave = 'lost';
    watch.isToBeCompleted();
    return move(grant, 'rotated');
  }

  async function load(grant: Grant): Promise<StoredGrant | undefined> {
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
      if (!isUnreadable(error)) watch.failed(error, 'read');
      // Others may have a later one, which is not known; an earlier one is surely no good.
      if (error instanceof SharedStoreAway && error.here !== undefined) takeStored(own, error.here);
      throw error;
    }
  }

  async function take(
    own: Kept,
    refreshToken: string,
    tokens: Promise<StoredTokens>,
    of: Pick<Kept, 'signedInAs' | 'signedInAt'>,
  ): Promise<void> {
    remember(own);
    const handedOn = leaveFor(own, of.signedInAs);
    Object.assign(own, of);
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
        signedInAt: undefined,
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
    load,
    async catchUp(grant, user, doubt) {
      const own = kept(grant);
      const { later, spare, failure } = await consents.findFor(own, user, doubt);
      if (later !== undefined) void takeOver(own, later);
      own.spare ??= spare;
      return failure;
    },
    rotated: (grant, refreshToken, tokens, signedInAs = grant.signedInAs) =>
      take(kept(grant), refreshToken, tokens, {
        signedInAs,
        signedInAt: signedInAs === grant.signedInAs ? grant.signedInAt : undefined,
      }),
    // Later than what is known, whatever this host's clock says.
    signedIn: (grant, refreshToken, tokens, user) =>
      take(kept(grant), refreshToken, tokens, {
        signedInAs: user,
        signedInAt: Math.max(clock.now(), (grant.signedInAt ?? 0) + 1),
      }),
    saveToken: (grant, resource, token) => saveToken(kept(grant), resource, token),
    dropSpare(grant, spare = grant.spare) {
      if (grant.spare === spare) kept(grant).spare = undefined;
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
      for (const grant of [...grants.values()])
        if (lostBy(grant)) await save(grant, NONE);
        // Not read yet: this relay's own directory may have what the store lacks.
        else if (grant.seenAt === undefined && grant.isConsent) await load(grant).catch(() => undefined);
    },
    storeFailed: watch.failed,
    storeAnswered: watch.answered,
    get isStoreAway() {
      return watch.isAway;
    },
    close: saver.close,
  };
}
