/**
 * A trial of what is never lost: accounts at an endpoint that revokes a refresh token the moment it gives
 * the next one, and services on one ground (a directory, a Redis) that are stopped, reloaded and disturbed.
 */
import { Secret } from '../../src/accounts/credential.ts';
import { pause, systemClock } from '../../src/clock.ts';
import { type Log, silentLog } from '../../src/log.ts';
import type { TokenError } from '../../src/tokens/access-token.ts';
import {
  type AccountCredential,
  createTokenService,
  type TokenService,
  type TokenServiceDeps,
} from '../../src/tokens/token-service.ts';
import type { TokenStore } from '../../src/tokens/token-store.ts';
import type { WithoutStore } from '../../src/tokens/unlocked.ts';
import { account, refreshCredential } from '../tokens/support.ts';
import { startTokenEndpoint, type TokenEndpoint } from './token-endpoint.ts';

export interface Trial {
  readonly endpoint: TokenEndpoint;
  /** What the operator wrote once, at the beginning. */
  readonly entries: readonly AccountCredential[];
  readonly users: readonly string[];
  /** A service as a new process would have it. */
  serve(
    deps?: Partial<TokenServiceDeps>,
    options?: { answerTimeoutMs?: number; lateMs?: number; withoutStore?: WithoutStore },
  ): Promise<TokenService>;
  /** Refreshes every account by a new service on the same ground; names those that cannot be. */
  lost(): Promise<readonly string[]>;
  readonly openStore: (log: Log) => TokenStore;
  /** The account gets its first refresh token back, as if its owner had signed in again. */
  restart(user: string): void;
  close(): Promise<void>;
}

export async function startTrial(count: number, openStore: (log: Log) => TokenStore): Promise<Trial> {
  const endpoint = await startTokenEndpoint('microsoft');
  endpoint.rotation = 'revoke-old';
  endpoint.decidesAtOnce = true;
  const users = Array.from({ length: count }, (_, i) => `user${i}@x`);
  const entries = users.map((user) => {
    const { clientId, clientSecret = '', refreshToken } = endpoint.add(user);
    return {
      account: account(user),
      credential: refreshCredential(endpoint.url, user, {
        clientId,
        clientSecret: new Secret(clientSecret),
        refreshToken: new Secret(refreshToken),
      }),
    };
  });
  const open = new Set<TokenService>();

  const trial: Trial = {
    endpoint,
    entries,
    users,
    openStore,
    restart: (user) => endpoint.acceptAgain(user),
    async serve(deps = {}, { answerTimeoutMs = 2000, lateMs = 2000, withoutStore = 'wait' } = {}) {
      const { log = silentLog, ...rest } = deps;
      const service = createTokenService(
        { log, store: openStore(log), ...rest },
        { refreshAhead: false, withoutStore, endpoint: { answerTimeoutMs, lateMs, env: {} } },
      );
      open.add(service);
      await service.open();
      service.applyAccounts(entries);
      return service;
    },
    async lost() {
      endpoint.delayMs = 0;
      const service = await trial.serve();
      // What passes by itself is no loss: a slow machine may take a lock away.
      const isLost = async (user: string): Promise<boolean> => {
        for (let tries = 1; ; tries += 1)
          try {
            await service.refresh(user);
            return false;
          } catch (error) {
            if ((error as TokenError).code !== 'provider_fault' || tries === 20) return true;
            await pause(systemClock, 250);
          }
      };
      const lost = await Promise.all(users.map(isLost));
      await service.close();
      return users.filter((_user, i) => lost[i]);
    },
    async close() {
      for (const service of open) await service.close().catch(() => undefined);
      await endpoint.close();
    },
  };
  return trial;
}
