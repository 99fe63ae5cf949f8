/** How often a token was there when somebody asked. In: each question to the cache. Out: counts, debug lines. */
import type { TokenResource } from '../accounts/credential.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { AccessToken } from './access-token.ts';

export interface CacheUse {
  readonly counts: { readonly hits: number; readonly misses: number };
  hit(account: string, resource: TokenResource): void;
  /** `held`: what was there, and is not handed out any more. */
  missed(account: string, resource: TokenResource, held: AccessToken | undefined): void;
  reset(): void;
}

export function createCacheUse(deps: { readonly log: Log; readonly clock: Clock }): CacheUse {
  const { log, clock } = deps;
  let counts = { hits: 0, misses: 0 };
  return {
    get counts() {
      return counts;
    },
    hit(account, resource) {
      counts.hits += 1;
      log.debug({ event: 'token_cached', account, resource }, 'access token taken from the cache');
    },
    missed(account, resource, held) {
      counts.misses += 1;
      if (held === undefined) return;
      const leftMs = held.expiresAt - clock.now();
      log.debug(
        { event: 'token_expired', account, resource, left_ms: leftMs },
        'the access token in the cache has ended, or has too little time left',
      );
    },
    reset() {
      counts = { hits: 0, misses: 0 };
    },
  };
}
