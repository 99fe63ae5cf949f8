/**
 * What the other rooms see of tokens: an `AccessToken` that cannot be printed and a `TokenSource`
 * that hands them out. No credential passes through here.
 */
import { inspect } from 'node:util';
import type { TokenResource } from '../accounts/credential.ts';
import type { Mask } from '../protocol/masking.ts';
import { MAX_LIFETIME_MS } from '../protocol/token-response.ts';
import type { TokenTrouble } from '../protocol/verdict.ts';

export type { TokenResource };

/** A bearer token. `reveal()` is called by the SASL step of src/upstream and by the token stores, nowhere else. */
export class AccessToken {
  readonly #value: string;
  /** End of its life, ms since the epoch; at most a week after it was obtained, whoever says more. */
  readonly expiresAt: number;
  /** When it was obtained, ms since the epoch. */
  readonly obtainedAt: number;
  constructor(value: string, expiresAt: number, obtainedAt: number) {
    this.#value = value;
    this.expiresAt = Math.min(expiresAt, obtainedAt + MAX_LIFETIME_MS);
    this.obtainedAt = obtainedAt;
  }
  reveal(): string {
    return this.#value;
  }
  toString(): string {
    return '[access token]';
  }
  toJSON(): string {
    return '[access token]';
  }
  [inspect.custom](): string {
    return '[access token]';
  }
}

/** Closed: a switch over it ends in `never`. */
export type TokenErrorCode = TokenTrouble;

/** `message` is safe for logs and admin answers: in words, with the provider's trace id, never a secret. */
export class TokenError extends Error {
  override readonly name = 'TokenError';
  readonly code: TokenErrorCode;
  /** Not asked again before this, ms since the epoch. */
  readonly retryAt: number | undefined;
  /** What the operator should do. */
  readonly cure: string | undefined;
  /** Row of the book of causes. */
  readonly causeId: string | undefined;
  constructor(
    code: TokenErrorCode,
    message: string,
    options: {
      retryAt?: number | undefined;
      cure?: string | undefined;
      causeId?: string | undefined;
      cause?: unknown;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryAt = options.retryAt;
    this.cure = options.cure;
    this.causeId = options.causeId;
  }
}

export interface TokenSource {
  /** The cached token if it is fresh enough, synchronously; counts as a hit. Undefined: `get` has to fetch. */
  peek(accountId: string, resource?: TokenResource): AccessToken | undefined;
  /**
   * A token with enough life left, from cache or fetched; one request however many callers, and one at a time
   * for a grant whatever the resources. Rejects with `TokenError` (`bad_request` where the account has no scope for it).
   */
  get(accountId: string, resource?: TokenResource): Promise<AccessToken>;
  /** After the upstream refused `rejected` (SMTP 535, HTTP 401): fetches only if `rejected` is still the cached one, once. Rejects with `TokenError`. */
  renew(accountId: string, rejected: AccessToken, resource?: TokenResource): Promise<AccessToken>;
  /** Takes `used` and everything else of the account that is ever sent out of a text that a server wrote. */
  mask(accountId: string, used?: AccessToken): Mask;
}
