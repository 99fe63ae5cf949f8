/** What token endpoints say when something is wrong, as Google and Microsoft say it, for scripts. */

/** One answer of the token endpoint. */
export interface TokenAnswer {
  /** HTTP status, default 200. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  /** Answers what it would have answered anyway (with `delayMs`, `until` or `patch`). */
  readonly normal?: boolean;
  /** Overwrites keys of the normal success body; `undefined` removes one. */
  readonly patch?: Readonly<Record<string, unknown>>;
  /** Waits this long first, ms. */
  readonly delayMs?: number;
  readonly until?: Promise<unknown>;
  /** `reset`: RST instead of an answer; `silence`: never an answer; `truncate`: half of the body, then FIN; `drip`: an octet at a time, without end. */
  readonly after?: 'reset' | 'silence' | 'truncate' | 'drip';
}

const JSON_TYPE = { 'content-type': 'application/json; charset=utf-8' };

export const oauthError = (status: number, error: string, description: string): TokenAnswer => ({
  status,
  headers: JSON_TYPE,
  body: JSON.stringify({ error, error_description: description }),
});

/** Trace and correlation id in every Microsoft error of the simulator. */
export const traceId = '7d8a1b2c-0000-4000-8000-3f5e6d7c8b9a';
const correlationId = '11112222-bbbb-4ccc-8ddd-333344445555';

function microsoftError(status: number, error: string, number: number, text: string): TokenAnswer {
  const timestamp = '2026-11-20 10:00:00Z';
  return {
    status,
    headers: JSON_TYPE,
    body: JSON.stringify({
      error,
      error_description: `AADSTS${number}: ${text} Trace ID: ${traceId} Correlation ID: ${correlationId} Timestamp: ${timestamp}`,
      error_codes: [number],
      timestamp,
      trace_id: traceId,
      correlation_id: correlationId,
      error_uri: `https://login.microsoftonline.com/error?code=${number}`,
    }),
  };
}

export const tokenAnswers = {
  googleRevoked: oauthError(400, 'invalid_grant', 'Token has been expired or revoked.'),
  googleBadRequest: oauthError(400, 'invalid_grant', 'Bad Request'),
  googleClientNotFound: oauthError(401, 'invalid_client', 'The OAuth client was not found.'),
  googleClientUnauthorized: oauthError(401, 'invalid_client', 'Unauthorized'),
  googleDeletedClient: oauthError(401, 'deleted_client', 'The OAuth client was deleted.'),
  googleDelegationMissing: oauthError(
    401,
    'unauthorized_client',
    'Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested.',
  ),
  googleJwtTimeframe: oauthError(
    400,
    'invalid_grant',
    'Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.',
  ),
  googleJwtSignature: oauthError(400, 'invalid_grant', 'Invalid JWT Signature.'),
  googleUnknownUser: oauthError(400, 'invalid_grant', 'Invalid email or User ID'),
  googleInternalFailure: oauthError(500, 'internal_failure', 'Backend Error'),
  invalidScope: oauthError(400, 'invalid_scope', 'Some requested scopes were invalid.'),
  invalidRequest: oauthError(400, 'invalid_request', 'Missing required parameter: grant_type'),
  unsupportedGrant: oauthError(400, 'unsupported_grant_type', 'Invalid grant_type'),
  temporarilyUnavailable: oauthError(
    503,
    'temporarily_unavailable',
    'The service is temporarily unavailable.',
  ),
  microsoft: microsoftError,
  microsoftRevoked: microsoftError(
    400,
    'invalid_grant',
    50173,
    'The provided grant has expired due to it being revoked, a fresh auth token is needed.',
  ),
  microsoftInactive: microsoftError(
    400,
    'invalid_grant',
    700082,
    'The refresh token has expired due to inactivity. The token was issued on 2026-08-01T10:00:00.0000000Z and was inactive for 90.00:00:00.',
  ),
  /** Throttling in the disguise of a dead grant. */
  microsoftLoop: microsoftError(
    400,
    'invalid_grant',
    50196,
    'The server terminated an operation because it encountered a client request loop. Please contact your app vendor.',
  ),
  microsoftMfa: microsoftError(
    400,
    'interaction_required',
    50076,
    'Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication.',
  ),
  microsoftBadSecret: microsoftError(401, 'invalid_client', 7000215, 'Invalid client secret provided.'),
  microsoftExpiredSecret: microsoftError(
    401,
    'invalid_client',
    7000222,
    'The provided client secret keys are expired.',
  ),
  microsoftUnknownApp: microsoftError(
    400,
    'unauthorized_client',
    700016,
    'Application was not found in the directory.',
  ),
  microsoftSecretMissing: microsoftError(
    401,
    'invalid_client',
    7000218,
    "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
  ),
  microsoftPublicSecret: microsoftError(
    401,
    'invalid_client',
    700025,
    "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.",
  ),
  microsoftBadAssertion: microsoftError(
    401,
    'invalid_client',
    700027,
    'Client assertion failed signature validation.',
  ),
  /** Plain text, as the gateway says it. */
  tooManyRequests: (retryAfterS?: number): TokenAnswer => ({
    status: 429,
    headers: {
      'content-type': 'text/plain',
      ...(retryAfterS === undefined ? {} : { 'retry-after': String(retryAfterS) }),
    },
    body: 'Too Many Requests',
  }),
  unavailableHtml: {
    status: 503,
    headers: { 'content-type': 'text/html' },
    body: '<html><head><title>503</title></head><body>Service Unavailable</body></html>',
  },
  okHtml: {
    status: 200,
    headers: { 'content-type': 'text/html' },
    body: '<!doctype html><html><body>Sign in to continue</body></html>',
  },
  redirect: (location: string): TokenAnswer => ({ status: 302, headers: { location } }),
  tenMegabytes: { status: 200, headers: JSON_TYPE, body: Buffer.alloc(10 * 1024 * 1024, 0x20) },
  reset: { after: 'reset' },
  silence: { after: 'silence' },
  drip: { after: 'drip' },
  truncated: { normal: true, after: 'truncate' },
} as const satisfies Record<string, TokenAnswer | ((...args: never[]) => TokenAnswer)>;
