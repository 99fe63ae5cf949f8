/** The book of causes for the steps of a probe: what went wrong, and what to do about it. Pure. */
import {
  type CauseFacts,
  type Explanation,
  explainById,
  explain as explainTrouble,
} from '../protocol/causes/book.ts';
import type { TokenError } from '../tokens/access-token.ts';

export type { Explanation };

/** A step of a probe; `sender` is MAIL FROM. */
export type ProbeStage = 'token' | 'dns' | 'tcp' | 'tls' | 'greeting' | 'ehlo' | 'auth' | 'sender' | 'graph';

export interface FailedStep extends CauseFacts {
  readonly stage: ProbeStage;
  /** What was said or reported: a reply line, an OAuth error, a system error code. */
  readonly said: string;
}

/** Explains a failed step. There is always an answer; an unknown one asks to read the reply. */
export const explain = (trouble: FailedStep): Explanation =>
  explainTrouble({ ...trouble, stage: trouble.stage === 'sender' ? 'mail' : trouble.stage });

/** Explains why there is no token, also where the token endpoint said nothing. */
export function explainToken({ causeId, cure }: TokenError, facts: CauseFacts): Explanation {
  const { what, cure: known } = explainById(causeId, facts) ?? {
    what: 'no access token can be had just now',
    cure: 'read what was said',
  };
  return { what, cure: cure ?? known };
}

/** Days left on a server certificate below which `check` warns. */
const CERTIFICATE_DAYS = 14;

/** A doubt about a certificate that is still good. */
export const certificateDoubt = (daysLeft: number): string | undefined =>
  daysLeft < CERTIFICATE_DAYS ? `certificate ends in ${daysLeft} days` : undefined;
