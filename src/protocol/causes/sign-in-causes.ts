/** What a person meets at the sign-in page or by device code. Where no row fits, those of the token endpoint do. Pure. */
import type { Cause } from './cause.ts';

export interface SignInCause extends Cause {
  /** `error` values (RFC 6749 §4.1.2.1, RFC 8628 §3.5). */
  readonly errors: readonly string[];
}

export const SIGN_IN_CAUSES: readonly SignInCause[] = [
  {
    id: 'sign-in-declined',
    stages: ['sign-in'],
    errors: ['access_denied', 'authorization_declined'],
    symptom: '`access_denied`, `authorization_declined` at the sign-in',
    what: 'the sign-in was declined',
    cure: 'sign in again and accept; where the page says that an administrator has to approve, ask for it',
  },
  {
    id: 'sign-in-code-ended',
    stages: ['sign-in'],
    errors: ['expired_token', 'bad_verification_code'],
    symptom: '`expired_token`, `bad_verification_code`',
    what: 'the code has expired or is not known',
    cure: 'start again and type the new code within its time',
  },
  {
    id: 'sign-in-redirect',
    stages: ['sign-in'],
    errors: ['redirect_uri_mismatch'],
    symptom: '`redirect_uri_mismatch`, AADSTS50011',
    what: 'the redirect address is not registered with the client',
    cure: 'at Google the client type has to be "Desktop app"; at Microsoft add http://localhost under "Mobile and desktop applications"',
  },
  {
    id: 'sign-in-not-allowed',
    stages: ['sign-in'],
    errors: ['unauthorized_client'],
    symptom: '`unauthorized_client` at the sign-in',
    what: 'this client may not sign in this way',
    cure: 'at Microsoft switch "Allow public client flows" on (Entra ID, Authentication)',
  },
];
