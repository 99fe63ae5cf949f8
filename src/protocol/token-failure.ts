/**
 * Why a token endpoint gave no token. In: status, headers and body of an answer, or the code of a
 * network error. Out: one class of failure, in words, with the provider's trace id. Pure: the same
 * input gives the same judgement. Sources: RFC 6749 §5.2, Microsoft's AADSTS reference, Google's
 * OAuth error tables.
 */

/** Closed: who has to do something about it. */
export type TokenFailureKind =
  | 'provider_fault'
  | 'throttled'
  | 'needs_consent'
  | 'app_misconfigured'
  | 'clock_skew'
  | 'bad_request';

export interface TokenFailure {
  readonly kind: TokenFailureKind;
  /** In words, one line, no secret: what was sent and anything that looks like a token is masked. */
  readonly message: string;
  /** What the operator should do, where somebody can. */
  readonly cure: string | undefined;
  /** Not to be asked again for this long, ms. */
  readonly retryAfterMs: number | undefined;
  /** Who else is concerned: nobody, all accounts of the OAuth client, or everybody at the endpoint. */
  readonly scope: 'account' | 'app' | 'endpoint';
}

/** One HTTP answer of a token endpoint. */
export interface TokenAnswer {
  readonly status: number;
  /** `Retry-After` as received: seconds or an HTTP date. */
  readonly retryAfter?: string | undefined;
  readonly contentType?: string | undefined;
  /** `Location` of a redirect. */
  readonly location?: string | undefined;
  readonly body: string;
  /** When it arrived, ms since the epoch. */
  readonly receivedAt: number;
  /** Texts that were sent and must not appear in a message. */
  readonly secrets: readonly string[];
}

/** Without Retry-After a throttled client waits a minute, as Microsoft's own libraries do. */
const DEFAULT_THROTTLE_MS = 60_000;
/** `Retry-After: 0` is no licence to hammer. */
const MIN_THROTTLE_MS = 1000;
/** AADSTS50196 counts like requests over five minutes; silence shorter than that prolongs it. */
const LOOP_SILENCE_MS = 5 * 60_000;
const AADSTS_LOOP = 50196;
/** A longer Retry-After is a mistake or an attack: nobody could mend it by waiting. */
const MAX_RETRY_AFTER_MS = 60 * 60_000;
/** Longest quotation of a provider's own words. */
const MAX_QUOTED = 300;

/** AADSTS codes by class; unlisted ones are judged by `error`. */
const AADSTS: Readonly<Record<TokenFailureKind, readonly number[]>> = {
  throttled: [AADSTS_LOOP, 90055],
  provider_fault: [
    50033, 50087, 90006, 90012, 90024, 90033, 90090, 70012, 40010, 80001, 80002, 80005, 80007, 50166,
  ],
  clock_skew: [700024],
  app_misconfigured: [
    7000215, 7000222, 70002, 700027, 700016, 700011, 70001, 7000112, 7000218, 700025, 50012, 500011, 650056,
    650057, 50194,
  ],
  bad_request: [90013, 90014, 900144, 9002313, 70011, 28002, 70003, 90002, 90023],
  needs_consent: [
    70000, 70008, 700082, 700084, 70043, 50173, 50132, 50133, 50055, 50144, 50057, 50034, 50053, 50126, 50076,
    50079, 50074, 50078, 50072, 50158, 53000, 53001, 53002, 53003, 53004, 530032, 530035, 50097, 50105, 65001,
    65004, 90094, 700020,
  ],
};
const AADSTS_KIND: ReadonlyMap<number, TokenFailureKind> = new Map(
  (Object.keys(AADSTS) as TokenFailureKind[]).flatMap((kind) => AADSTS[kind].map((code) => [code, kind])),
);

/** `error` values by class: RFC 6749 §5.2, OpenID Connect, Google. */
const ERROR_KIND: ReadonlyMap<string, TokenFailureKind> = new Map([
  ['invalid_grant', 'needs_consent'],
  ['interaction_required', 'needs_consent'],
  ['consent_required', 'needs_consent'],
  ['login_required', 'needs_consent'],
  ['access_denied', 'needs_consent'],
  ['invalid_client', 'app_misconfigured'],
  ['unauthorized_client', 'app_misconfigured'],
  ['deleted_client', 'app_misconfigured'],
  ['disabled_client', 'app_misconfigured'],
  ['org_internal', 'app_misconfigured'],
  ['admin_policy_enforced', 'app_misconfigured'],
  ['invalid_scope', 'bad_request'],
  ['invalid_request', 'bad_request'],
  ['invalid_resource', 'bad_request'],
  ['unsupported_grant_type', 'bad_request'],
  ['temporarily_unavailable', 'provider_fault'],
  ['server_error', 'provider_fault'],
  ['internal_failure', 'provider_fault'],
  ['backend_error', 'provider_fault'],
  ['slow_down', 'throttled'],
  ['rate_limit_exceeded', 'throttled'],
  ['quota_exceeded', 'throttled'],
  ['too_many_requests', 'throttled'],
]);

const SCOPES: Readonly<Record<TokenFailureKind, TokenFailure['scope']>> = {
  provider_fault: 'endpoint',
  throttled: 'app',
  needs_consent: 'account',
  app_misconfigured: 'app',
  clock_skew: 'endpoint',
  bad_request: 'account',
};

const CURES: Readonly<Record<TokenFailureKind, string | undefined>> = {
  provider_fault: undefined,
  throttled: undefined,
  needs_consent: 'sign in again for this mailbox and put the new refresh_token into the accounts file',
  app_misconfigured: 'check client_id, its secret or certificate, and its consent at the provider',
  clock_skew: "set this host's clock (NTP)",
  bad_request: 'check grant, scope, tenant and token_url of the account',
};
/** Cures that know more than their class. */
const AADSTS_CURES: ReadonlyMap<number, string> = new Map([
  [7000215, "the client secret is wrong: use the secret's value, not its id"],
  [7000222, 'the client secret has expired: create a new one in Entra ID'],
  [7000218, 'this app is confidential: give client_secret or a certificate'],
  [700025, 'this app is public: remove client_secret'],
  [700016, 'the app is not in this tenant: check client_id and tenant'],
  [50194, 'a single-tenant app needs its own tenant in the account'],
  [700027, 'the certificate is not the one registered with the app'],
  [65001, 'grant the app consent to SMTP.Send'],
]);

export const isTokenFailureKind = (value: unknown): value is TokenFailureKind =>
  typeof value === 'string' && Object.hasOwn(CURES, value);

/** Judges an answer that is not a success; also a 200 whose JSON carries `error`. */
export function classifyTokenFailure(answer: TokenAnswer): TokenFailure {
  const { status } = answer;
  if (status >= 300 && status < 400) return redirectFailure(answer);
  const said = parseErrorBody(answer.body);
  const make = (kind: TokenFailureKind, retryAfterMs?: number): TokenFailure => ({
    kind,
    message: describe(answer, said),
    cure: said?.codes.map((c) => AADSTS_CURES.get(c)).find((c) => c !== undefined) ?? CURES[kind],
    retryAfterMs,
    scope: said?.codes.includes(AADSTS_LOOP) ? 'account' : SCOPES[kind],
  });
  const askedToWait = parseRetryAfter(answer.retryAfter, answer.receivedAt);
  const throttled = (): TokenFailure => {
    const wait = Math.max(askedToWait ?? DEFAULT_THROTTLE_MS, MIN_THROTTLE_MS);
    return make('throttled', said?.codes.includes(AADSTS_LOOP) ? Math.max(wait, LOOP_SILENCE_MS) : wait);
  };
  // A fault of the endpoint never speaks about the credential, whatever its body says.
  if (status >= 500 || status === 408) return make('provider_fault', askedToWait);
  if (status === 429) return throttled();
  if (said === undefined) return make('provider_fault', askedToWait);
  const kind = kindOf(said);
  if (kind === 'throttled') return throttled();
  return make(kind, kind === 'provider_fault' ? askedToWait : undefined);
}

/** Judges a request that got no answer; `code` is the system's or the HTTP client's. */
export function classifyNetworkFailure(code: string | undefined, host: string): TokenFailure {
  return {
    kind: 'provider_fault',
    message: `token endpoint ${host}: ${networkWords(code)}`,
    cure: undefined,
    retryAfterMs: undefined,
    scope: 'endpoint',
  };
}

/** An answer that cannot be used although nothing says why. */
export function unusableAnswer(message: string): TokenFailure {
  return { kind: 'provider_fault', message, cure: undefined, retryAfterMs: undefined, scope: 'endpoint' };
}

/** The endpoint works, but what it gave this account is no token to log in with. */
export const unusableToken = (message: string): TokenFailure => ({
  ...unusableAnswer(message),
  scope: 'account',
});

/** The breaker of the endpoint is open: nothing was sent. */
export function endpointResting(host: string): TokenFailure {
  return unusableAnswer(`token endpoint ${host} has failed repeatedly and is not asked for the moment`);
}

/** `Retry-After` in ms, bounded to an hour; undefined where absent or nonsense (RFC 9110 §10.2.3). */
export function parseRetryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  const text = value.trim();
  const ms = /^\d{1,10}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  if (Number.isNaN(ms)) return undefined;
  return Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS);
}

interface ErrorBody {
  readonly error: string;
  readonly description: string;
  readonly codes: readonly number[];
  readonly trace: readonly string[];
}

function kindOf(said: ErrorBody): TokenFailureKind {
  for (const code of said.codes) {
    const kind = AADSTS_KIND.get(code);
    if (kind !== undefined) return kind;
  }
  if (said.error === 'invalid_grant') {
    // Google reports its complaints about a service account's assertion as invalid_grant.
    if (/reasonable timeframe|short-lived token/i.test(said.description)) return 'clock_skew';
    if (/invalid jwt|jwt signature/i.test(said.description)) return 'app_misconfigured';
  }
  return ERROR_KIND.get(said.error.toLowerCase()) ?? 'bad_request';
}

function parseErrorBody(body: string): ErrorBody | undefined {
  const json = parseJsonObject(body);
  if (json === undefined) return undefined;
  let { error, error_description: description } = json;
  if (isRecord(error)) {
    // The form Google's APIs use: {"error":{"status":"UNAUTHENTICATED","message":"…"}}.
    description = error.message;
    error = error.status ?? error.code;
  }
  if (typeof error === 'number') error = String(error);
  if (typeof error !== 'string' || error === '') return undefined;
  const words = typeof description === 'string' ? description : '';
  const codes = Array.isArray(json.error_codes)
    ? json.error_codes.map(Number).filter(Number.isSafeInteger)
    : [...words.matchAll(/AADSTS(\d{5,9})/g)].map((m) => Number(m[1]));
  const trace = (['trace_id', 'correlation_id'] as const).flatMap((key) => {
    const id = json[key];
    return typeof id === 'string' && id !== '' ? [`${key} ${id.slice(0, 64)}`] : [];
  });
  return { error, description: words, codes, trace };
}

function describe(answer: TokenAnswer, said: ErrorBody | undefined): string {
  if (said === undefined) {
    const type = answer.contentType?.split(';')[0] ?? 'no content type';
    return clean(`token endpoint answered HTTP ${answer.status} (${type})`, answer.secrets);
  }
  // Microsoft appends trace id, correlation id and time to the sentence; they are quoted apart.
  const sentence = said.description.split(/\s*Trace ID:/i)[0] ?? '';
  const words = sentence === '' ? '' : `: ${clean(sentence, answer.secrets)}`;
  const facts = [`HTTP ${answer.status}`, ...said.trace].join(', ');
  return `${clean(said.error, answer.secrets)}${words} (${clean(facts, [])})`;
}

function redirectFailure(answer: TokenAnswer): TokenFailure {
  const target = URL.canParse(answer.location ?? '') ? new URL(answer.location ?? '').origin : 'elsewhere';
  return {
    kind: 'provider_fault',
    message: `token endpoint answered HTTP ${answer.status}, a redirect to ${clean(target, answer.secrets)}; credentials are not sent there`,
    cure: 'check token_url of the account',
    retryAfterMs: undefined,
    scope: 'endpoint',
  };
}

function networkWords(code: string | undefined): string {
  switch (code) {
    case 'ECONNREFUSED':
      return 'connection refused';
    case 'ECONNRESET':
    case 'EPIPE':
    case 'UND_ERR_SOCKET':
      return 'connection closed before an answer';
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `name not found (${code})`;
    case 'ETIMEDOUT':
    case 'UND_ERR_CONNECT_TIMEOUT':
      return 'no connection in time';
    case 'UND_ERR_HEADERS_TIMEOUT':
    case 'UND_ERR_BODY_TIMEOUT':
    case 'ABORT_ERR':
      return 'no complete answer in time';
    case 'TOO_LARGE':
      return 'the answer is too large';
    case undefined:
      return 'request failed';
    default:
      return `request failed (${code})`;
  }
}

/** One printable line with nothing in it that was sent or that looks like a token. */
function clean(text: string, secrets: readonly string[]): string {
  let out = text;
  for (const secret of secrets) if (secret.length >= 4) out = out.replaceAll(secret, '[secret]');
  return (
    out
      // biome-ignore lint/suspicious/noControlCharactersInRegex: cleaning them is the purpose
      .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ')
      .replace(/[\w.~+=-]{40,}/g, '[…]')
      .trim()
      .slice(0, MAX_QUOTED)
  );
}

/** The object a JSON text holds; undefined for anything else. */
export function parseJsonObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
