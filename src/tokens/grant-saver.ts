/**
 * Brings refresh tokens into the store. In: grants with something unsaved. Out: their state when it is saved. Owns when
 * what the store could not take is offered again.
 */
import type { TokenResource } from '../accounts/credential.ts';
import { type Clock, orAfter, pause } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Grant } from './grant.ts';
import type { GrantEvent } from './grant-state.ts';
import { SharedStoreAway } from './store-twofold.ts';
import type { StoreWatch } from './store-watch.ts';
import type { GrantId, Rotation, StoredGrant, StoredToken, StoredTokens, TokenStore } from './token-store.ts';
import { isUnreadable } from './unreadable.ts';

export interface GrantSaver {
  /** One at a time for a grant; a rotation during a save is saved after it. Never rejects. */
  save(grant: Kept, tokens: Promise<StoredTokens>): Promise<void>;
  /** Keeps an access token, or forgets it. Never rejects. */
  saveToken(grant: Kept, resource: TokenResource, token: StoredToken | undefined): Promise<void>;
  /** The last attempt at what is unsaved, at most `boundMs`; names the accounts that are lost if this process ends. */
  close(boundMs: number): Promise<readonly string[]>;
}

/** How long a store that failed is left alone before what it missed is offered again. */
const STORE_RETRY_MS = 10_000;

/** … and once the process is about to end, ms. */
const LAST_RETRY_MS = 250;

export const NONE: Promise<StoredTokens> = Promise.resolve({});

/** A grant as it is written. */
export type Kept = { -readonly [K in keyof Grant]: Grant[K] } & {
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

export const idOf = ({ accountId, fingerprint, user }: Grant): GrantId => ({ accountId, fingerprint, user });

export function createGrantSaver(deps: {
  readonly store: TokenStore;
  readonly watch: StoreWatch;
  readonly clock: Clock;
  readonly log: Log;
  readonly all: () => Iterable<Kept>;
  readonly move: (grant: Kept, event: GrantEvent) => boolean;
  /** The store has a later one. */
  readonly takeStored: (grant: Kept, stored: StoredGrant) => void;
}): GrantSaver {
  const { store, watch, clock, log, move, takeStored } = deps;
  let cancelRetry: (() => void) | undefined;

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
      base: grant.generation - (grant.toSave === 'lost' || grant.isHere ? 1 : 0),
      refreshToken: refreshToken.reveal(),
      obtainedAt: grant.obtainedAt ?? clock.now(),
      ...(grant.signedInAs === undefined ? {} : { signedInAs: grant.signedInAs }),
      ...(grant.signedInAt === undefined ? {} : { signedInAt: grant.signedInAt }),
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
      grant.spare = { refreshToken, signedInAs: grant.signedInAs };
      move(grant, 'overtaken');
      takeStored(grant, result.stored);
    } catch (error) {
      const here = error instanceof SharedStoreAway ? error.here : undefined;
      // What comes next goes on top of it, here too.
      grant.generation = Math.max(grant.generation, here?.generation ?? 0);
      if (grant.refreshToken === refreshToken) grant.isHere = here !== undefined;
      grant.offered.add(rotation.refreshToken);
      move(grant, 'save failed');
      watch.failed(error, 'write');
      Object.assign(grant.missed, await tokens);
      retryLater();
    }
  }

  async function saveAll(): Promise<void> {
    cancelRetry = undefined;
    await Promise.all([...deps.all()].map(offerAgain));
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
      // Nothing is kept beside what is sealed with another key, or another user's.
      if (isUnreadable(error)) return;
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

  return {
    save,
    saveToken,
    async close(boundMs) {
      const end = clock.monotonic() + boundMs;
      const left = (): number => end - clock.monotonic();
      const unsavedOnes = (): Kept[] => [...deps.all()].filter(({ state }) => state === 'unsaved');
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
