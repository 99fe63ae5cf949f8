/**
 * Whether a token may be asked for although the store that processes share cannot be had, nor the lock in it: only
 * where nobody else can be asking for the same grant, or where two who do so harm nothing. Pure.
 */
import type { Credential } from '../accounts/credential.ts';
import { builtInProviders } from '../accounts/providers.ts';
import { type TokenFailure, unusableToken } from '../protocol/token-failure.ts';
import type { Grant } from './grant.ts';
import type { TokenStore } from './token-store.ts';
import { UNREADABLE_CAUSE } from './unreadable.ts';

/**
 * `wait`: mail waits for the store where two could ask at once. `alone`: except where this relay was the only one when
 * the store was last heard. `ask`: each process asks by itself.
 */
export type WithoutStore = 'wait' | 'alone' | 'ask';

const NEVER_ROTATING: ReadonlySet<string> = new Set(
  [...builtInProviders.values()].filter((profile) => profile.neverRotates).map(({ tokenUrl }) => tokenUrl),
);

/** `aloneSince`: no other process has refreshed since then, monotonic ms; undefined: one may have. */
export function mayAskAlone(credential: Credential, grant: Grant, aloneSince: number | undefined): boolean {
  if (credential.grant !== 'refresh_token') return true;
  if (grant.state === 'original' && NEVER_ROTATING.has(credential.tokenUrl)) return true;
  // What others had left in the store must have been read after they went.
  return aloneSince !== undefined && grant.seenAt !== undefined && grant.seenAt >= aloneSince;
}

/** Row of the book of causes by what cannot be had. */
const CAUSES: Readonly<Record<TokenStore['kind'], string>> = {
  redis: 'token-store-away',
  file: 'state-directory-unusable',
  memory: 'state-directory-unusable',
};

/** Nothing is asked for want of what the store has. */
export const isStoreAway = (causeId: string | undefined): boolean =>
  causeId === CAUSES.redis || causeId === CAUSES.file || causeId === UNREADABLE_CAUSE;

/** Nothing was asked. */
export const waitingForStore = (kind: TokenStore['kind']): TokenFailure => ({
  ...unusableToken(
    kind === 'redis'
      ? 'Redis is away, and another relay may be refreshing this account: not asked without it'
      : 'the state directory cannot be used, and another process may be refreshing this account: not asked without it',
  ),
  cause: CAUSES[kind],
});
