/**
 * A store that relays share, with a directory of this relay's own behind it. A refresh token that came to this
 * relay is written there too, so that neither a shared store that is away when the relay stops or dies, nor one
 * that has lost its data, costs a grant: at the next start the shared store is given what it lacks.
 */
import type { Log } from '../log.ts';
import { isEarlier, latestFor } from './same-consent.ts';
import { codeOf } from './state-files.ts';
import type { GrantId, RotationResult, StoredGrant, StoredTokens, TokenStore } from './token-store.ts';
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
  /** Grants whose copy here is known to be no later than the shared one. */
  const compared = new Set<string>();
  // A command beside this relay may have kept here what it could not take.
  shared.onBack?.(() => compared.clear());
  const keyOf = ({ accountId, fingerprint, user = '' }: GrantId): string =>
    `${fingerprint} ${accountId} ${user}`;

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

  return {
    ...shared,
    async open() {
      await here.open();
      await shared.open();
    },
    async load(id) {
      const key = keyOf(id);
      let isRead = true;
      const own = compared.has(key)
        ? undefined
        : await here.load(id).catch(() => {
            isRead = false;
            return undefined;
          });
      try {
        const found = await shared.load(id);
        const whole = own === undefined ? found : await complete(id, own, found);
        if (isRead) compared.add(key);
        return whole;
      } catch (error) {
        if (isUnreadable(error)) throw error;
        throw new SharedStoreAway(error, own);
      }
    },
    async elsewhere(holder, options) {
      let unread: unknown;
      const own = await here.elsewhere?.(holder, options).catch((error: unknown) => {
        unread = error;
        return undefined;
      });
      try {
        const found = await shared.elsewhere?.(holder, options);
        // The shared one has it, too, unless it has lost its data.
        if (found === undefined && isUnreadable(unread)) throw unread;
        return latestFor(holder, [found, own]);
      } catch (error) {
        if (isUnreadable(error)) throw error;
        throw new SharedStoreAway(error, own);
      }
    },
    async finish(consent) {
      await here.finish?.(consent);
      compared.clear();
    },
    serves: (accounts) => here.serves?.(accounts),
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
      await here.close();
      await shared.close();
    },
  };
}
