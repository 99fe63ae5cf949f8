/**
 * What went wrong in words, and what to do about it. In: a failed step: where, and what the other side
 * said. Out: an explanation a person can act on. Pure; sources are RFC 6749, Microsoft's AADSTS reference
 * and Exchange Online documentation, Google's OAuth and Gmail SMTP error pages.
 */

import type { Explanation, Rule, Trouble } from './explain-rule.ts';
import { SMTP_RULES } from './explain-smtp.ts';
import { TOKEN_RULES } from './explain-token.ts';

export type { Explanation, Stage, Trouble } from './explain-rule.ts';

const RULES: readonly Rule[] = [...TOKEN_RULES, ...SMTP_RULES];

/** Explains a failed step. There is always an answer; an unknown one quotes nothing and asks to read the reply. */
export function explain(trouble: Trouble): Explanation {
  const rule = RULES.find(
    ({ stages, said, when }) =>
      stages.includes(trouble.stage) && said.test(trouble.said) && (when === undefined || when(trouble)),
  );
  const words = (part: Rule['what']): string => (typeof part === 'string' ? part : part(trouble));
  if (rule !== undefined) return { what: words(rule.what), cure: words(rule.cure) };
  return {
    what: trouble.stage === 'token' ? 'no access token could be had' : 'the provider refused',
    cure: 'the provider’s own words above are all there is; look them up in its documentation',
  };
}

/** Days left on a server certificate below which `check` warns. */
const CERTIFICATE_DAYS = 14;

/** A doubt about a certificate that is still good. */
export const certificateDoubt = (daysLeft: number): string | undefined =>
  daysLeft < CERTIFICATE_DAYS ? `certificate ends in ${daysLeft} days` : undefined;
