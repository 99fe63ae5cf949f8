/**
 * A store that relays share, with a directory of this relay's own behind it. A refresh token that came to this
 * relay is written there too, so that neither a shared store that is away when the relay stops or dies, nor one
 * that has lost its data, costs a grant: at the next start the shared store is given what it lacks.
 */
import type { Log } from '../log.ts';
import { isEarlier, latestFor } from './same-consent.ts';
import { codeOf } from './state-files.ts';
import type {
  GrantId,
  RotationResult,
  ServedIds,
  StoredGrant,
  StoredTokens,
  TokenStore,
} from './token-store.ts';
import { isUnreadable } from './unreadable.ts';

/** The shared store cannot be had. */
export class SharedStoreAway extends Error {
  override readonly name = 'SharedStoreAway';
  /** What this relay's own directory has of the grant; after `rotate`: it has been kept there. */
  readonly here: StoredGrant | undefined;
  readonly code: string | undefined;
  constructor(cause: unknown, here: StoredGrant | undefined) {
    super('the shared token store cannot be reached', { cause });
    this.here = here;
    this.code = codeOf(cause);
  }
}

const NONE: Promise<StoredTokens> = Promise.resolve({});

/** What it asks rejects with `SharedStoreAway`; with `Unreadable`, too, where that is read. */
export function createTwofoldStore(shared: TokenStore, here: TokenStore, log: Log): TokenStore {
  let served: ServedIds = new Map();
  let givings = 0;

  /** The shared store is given what it lacks. */
  async function complete(id: GrantId, own: StoredGrant, found: StoredGrant | undefined) {
    const { refreshToken, generation, refreshTokenObtainedAt: obtainedAt = 0, signedInAs, signedInAt } = own;
    if (refreshToken === undefined || !isEarlier(found ?? { generation: 0 }, own)) return found;
    const result = await shared.rotate(id, {
      base: generation - 1,
      refreshToken,
      obtainedAt,
      ...(signedInAs === undefined ? {} : { signedInAs }),
      ...(signedInAt === undefined ? {} : { signedInAt }),
      tokens: NONE,
    });
    log.info(
      { event: 'refresh_token_given_again', account: id.accountId },
      'the shared store lacked the newest refresh token: it was in the state directory',
    );
    return result.kept
      ? { ...own, generation: result.generation, tokens: found?.tokens ?? {} }
      : result.stored;
  }

  async function load(id: GrantId): Promise<StoredGrant | undefined> {
    // What cannot be read there holds up what would be asked: `elsewhere`.
    const own = await here.load(id).catch(() => undefined);
    try {
      const found = await shared.load(id);
      return own === undefined ? found : await complete(id, own, found);
    } catch (error) {
      if (isUnreadable(error)) throw error;
      throw new SharedStoreAway(error, own);
    }
  }

  /** A command beside this relay may have kept here what the shared store could not take. */
  async function giveWhatCame(): Promise<void> {
    givings += 1;
    const mine = givings;
    let isTaken = true;
    for (const { grant } of served.values()) {
      // What that does not take now it is given when it is back again.
      if (mine !== givings || !isTaken) return;
      const own = await here.load(grant).catch(() => undefined);
      if (own !== undefined && isEarlier(grant, own))
        isTaken = await load(grant).then(
          () => true,
          (error: unknown) => isUnreadable(error),
        );
    }
  }
  shared.onBack?.(() => void giveWhatCame());

  return {
    ...shared,
    async open() {
      await here.open();
      await shared.open();
    },
    load,
    async elsewhere(holder, options) {
      // Its own file, too: that may have one that the shared store lacks, or as late as that.
      const unread = [...options.unread, holder.accountId];
      const own = await here.elsewhere?.(holder, { ...options, unread }).catch((error: unknown) => {
        if (isUnreadable(error)) throw error;
        return undefined;
      });
      try {
        return latestFor(holder, [await shared.elsewhere?.(holder, options), own]);
      } catch (error) {
        if (isUnreadable(error)) throw error;
        throw new SharedStoreAway(error, own);
      }
    },
    serves(accounts) {
      served = accounts;
      here.serves?.(accounts);
    },
    async rotate(id, rotation): Promise<RotationResult> {
      const [own, given] = await Promise.allSettled([
        here.rotate(id, { ...rotation, isCopy: true, tokens: NONE }),
        shared.rotate(id, rotation),
      ]);
      if (own.status === 'rejected')
        log.error(
          { event: 'token_store_failed', store: here.kind, what: 'write', reason: codeOf(own.reason) },
          'a refresh token could not be written into the state directory',
        );
      if (given.status === 'fulfilled') return given.value;
      const { refreshToken, obtainedAt, signedInAs, signedInAt } = rotation;
      throw new SharedStoreAway(
        given.reason,
        own.status === 'fulfilled' && own.value.kept
          ? {
              grantFingerprint: id.fingerprint,
              generation: own.value.generation,
              refreshToken,
              refreshTokenObtainedAt: obtainedAt,
              ...(signedInAs === undefined ? {} : { signedInAs }),
              ...(signedInAt === undefined ? {} : { signedInAt }),
              tokens: {},
            }
          : undefined,
      );
    },
    prune: (accountIds, forgetAfterMs) => here.prune(accountIds, forgetAfterMs),
    async close() {
      givings += 1;
      await here.close();
      await shared.close();
    },
  };
}
