/**
 * What is sent to a token endpoint. In: the facts of a grant, secrets as plain text. Out: the form
 * body (application/x-www-form-urlencoded) and the claims of signed assertions. Pure; signs nothing.
 */

export interface RefreshTokenRequest {
  readonly clientId: string;
  /** Absent for public clients: Microsoft refuses a secret from them (AADSTS700025). */
  readonly clientSecret?: string | undefined;
  readonly refreshToken: string;
  /** Empty where the provider wants none in a refresh. */
  readonly scope: string;
}

/** The refresh grant (RFC 6749 §6). */
export function refreshTokenForm(request: RefreshTokenRequest): string {
  const form = new URLSearchParams({
    grant_type: 'refresh_token',
    client_id: request.clientId,
    refresh_token: request.refreshToken,
  });
  if (request.clientSecret !== undefined) form.set('client_secret', request.clientSecret);
  if (request.scope !== '') form.set('scope', request.scope);
  return form.toString();
}

/** How an application proves who it is: a secret, or an assertion signed with its certificate (RFC 7523 §2.2). */
export type ClientProof = { readonly secret: string } | { readonly assertion: string };

/** The app-only grant (RFC 6749 §4.4.2). */
export function clientCredentialsForm(clientId: string, scope: string, proof: ClientProof): string {
  const form = new URLSearchParams({ grant_type: 'client_credentials', client_id: clientId });
  if (scope !== '') form.set('scope', scope);
  if ('secret' in proof) {
    form.set('client_secret', proof.secret);
  } else {
    form.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer');
    form.set('client_assertion', proof.assertion);
  }
  return form.toString();
}

/** The service account grant (RFC 7523 §2.1). */
export function jwtBearerForm(assertion: string): string {
  return new URLSearchParams({
    grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
    assertion,
  }).toString();
}

/** Microsoft recommends 5 to 10 minutes for a client assertion. */
const CLIENT_ASSERTION_LIFE_S = 300;
/** Google refuses a service account assertion that lives longer than an hour. */
const SERVICE_ACCOUNT_ASSERTION_LIFE_S = 3600;

/** Claims of a JSON Web Token; times in seconds since the epoch. */
export type Claims = Readonly<Record<string, string | number>>;

/** Claims of a client assertion; `nowMs` is the provider's time as far as we know it, `jti` unique. */
export function clientAssertionClaims(
  clientId: string,
  tokenUrl: string,
  nowMs: number,
  jti: string,
): Claims {
  const now = Math.floor(nowMs / 1000);
  return {
    aud: tokenUrl,
    iss: clientId,
    sub: clientId,
    jti,
    iat: now,
    nbf: now,
    exp: now + CLIENT_ASSERTION_LIFE_S,
  };
}

/** Claims of a Google service account acting for the mailbox `subject` (domain-wide delegation). */
export function serviceAccountClaims(
  clientEmail: string,
  subject: string,
  scope: string,
  tokenUrl: string,
  nowMs: number,
): Claims {
  const now = Math.floor(nowMs / 1000);
  return {
    iss: clientEmail,
    sub: subject,
    scope,
    aud: tokenUrl,
    iat: now,
    exp: now + SERVICE_ACCOUNT_ASSERTION_LIFE_S,
  };
}
