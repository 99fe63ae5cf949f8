/**
 * Logs in for one account. In: the account's facts, and a token on its way. Out: an authenticated
 * connection, its server proved or found wanting where BDAT is wanted. 535 is answered with one new token,
 * never more; an AUTH that the server misunderstood gets one more try on a fresh connection.
 */
import type { Account } from '../accounts/account.ts';
import type { AccessToken, TokenSource } from '../tokens/access-token.ts';
import type { UpstreamConnection } from './connection.ts';
import type { UpstreamEndpoint } from './endpoint.ts';
import { tokenTrouble, UpstreamError } from './failure.ts';
import type { OpenConnection } from './open.ts';

export interface LoginDeps {
  readonly tokens: TokenSource;
  readonly open: OpenConnection;
  readonly accountId: string;
  /** Ends logins that nobody needs any more, with its reason. */
  readonly signal: AbortSignal;
}

/** Rejects with `UpstreamError`. */
export type LogIn = (
  as: Account,
  at: UpstreamEndpoint,
  coming: Promise<AccessToken>,
) => Promise<UpstreamConnection>;

export function createLogin({ tokens, open, accountId, signal }: LoginDeps): LogIn {
  /** As `open`; where the token does not come the attempt is given up, whatever it waits for. */
  async function openWith(as: Account, coming: Promise<AccessToken>): Promise<UpstreamConnection> {
    const given = new AbortController();
    const follow = (): void => given.abort(signal.reason);
    signal.addEventListener('abort', follow);
    if (signal.aborted) follow();
    let mask = tokens.mask(accountId);
    coming.then(
      (access) => {
        mask = tokens.mask(accountId, access);
      },
      (error: unknown) => given.abort(error),
    );
    try {
      return await open(as, coming, { signal: given.signal, mask: (text) => mask(text) });
    } finally {
      signal.removeEventListener('abort', follow);
    }
  }

  async function openProved(
    as: Account,
    at: UpstreamEndpoint,
    coming: Promise<AccessToken>,
  ): Promise<UpstreamConnection> {
    const guarded = (): Promise<UpstreamConnection> => at.guard(accountId, () => openWith(as, coming));
    const connection = await guarded();
    const { chunking, pipelining } = connection.capabilities;
    if (!as.chunking || !chunking || !pipelining) return connection;
    await at.proofs.prove(connection);
    // What broke the connection is remembered: the next one is not asked.
    return connection.dead ? guarded() : connection;
  }

  return async (as, at, coming) => {
    try {
      return await openProved(as, at, coming);
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      if (error.verdict.renewToken) {
        const renewed = tokens.renew(accountId, await coming).catch((e: unknown) => {
          throw tokenTrouble(e, accountId);
        });
        await renewed;
        return openProved(as, at, renewed);
      }
      if (error.verdict.retry === 'fresh') return openProved(as, at, coming);
      throw error;
    }
  };
}
