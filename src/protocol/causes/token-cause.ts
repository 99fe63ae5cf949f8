/** What a row about a token endpoint has beside the others. Pure. */
import type { Cause } from './cause.ts';

/** Closed: who has to do something about it. */
export type TokenFailureKind =
  | 'provider_fault'
  | 'throttled'
  | 'needs_consent'
  | 'app_misconfigured'
  | 'clock_skew'
  | 'bad_request';

export interface TokenCause extends Cause {
  readonly class: TokenFailureKind;
  readonly aadsts?: readonly number[];
  /** `error` values. With `words` both must fit. */
  readonly errors?: readonly string[];
  /** In the provider's sentence. */
  readonly words?: RegExp;
}

/** A row about the relay's own request. */
export const token = (row: Omit<TokenCause, 'stages'>): TokenCause => ({ stages: ['token'], ...row });
