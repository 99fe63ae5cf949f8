/**
 * Why a token endpoint gave no token. In: status, headers and body of an answer, or the code of a
 * network error. Out: one class of failure, in words, with the provider's trace id. Pure: the same
 * input gives the same judgement. Sources: RFC 6749 §5.2, Microsoft's AADSTS reference, Google's
 * OAuth error tables.
 */

import { aadstsIn, findTokenCause, findTokenNetworkCause } from './causes/book.ts';
import type { TokenFailureKind } from './causes/token-cause.ts';
import { isRecord, parseJsonObject } from './json-object.ts';
import { maskSecrets } from './masking.ts';
import { parseRetryAfter } from './retry-after.ts';
import { cleanText, MAX_JUDGED } from './text.ts';

export type { TokenFailureKind };

export interface TokenFailure {
  readonly kind: TokenFailureKind;
  /** In words, one line, no secret: what was sent and anything that looks like a token is masked. */
  readonly message: string;
  /** Row of the book of causes, which has the cure. */
  readonly cause?: string;
  /** What the operator should do, where no cause says it. */
  readonly cure?: string | undefined;
  /** Not to be asked again for this long, ms. */
  readonly retryAfterMs?: number | undefined;
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
/** Longest quotation of a provider's own words. */
const MAX_QUOTED = 300;
/** Microsoft sends one or two. */
const MAX_CODES = 16;
/** An id is quoted only where it looks like one: an endpoint could put anything there. */
const GUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

const SCOPES: Readonly<Record<TokenFailureKind, TokenFailure['scope']>> = {
  provider_fault: 'endpoint',
  throttled: 'app',
  needs_consent: 'account',
  app_misconfigured: 'app',
  clock_skew: 'endpoint',
  bad_request: 'account',
};

export const isTokenFailureKind = (value: unknown): value is TokenFailureKind =>
  typeof value === 'string' && Object.hasOwn(SCOPES, value);

/** Judges an answer that is not a success; also a 200 whose JSON carries `error`. */
export function classifyTokenFailure(answer: TokenAnswer): TokenFailure {
  const { status } = answer;
  if (status >= 300 && status < 400) return redirectFailure(answer);
  const said = parseErrorBody(answer.body);
  const codes = said?.codes ?? [];
  const cause = findTokenCause({
    status,
    codes,
    error: said?.error.toLowerCase(),
    description: said?.description ?? '',
  });
  const isLoop = cause.id === 'request-loop';
  const make = (retryAfterMs?: number): TokenFailure => ({
    kind: cause.class,
    message: describe(answer, said),
    cause: cause.id,
    retryAfterMs,
    scope: isLoop ? 'account' : SCOPES[cause.class],
  });
  const askedToWait = parseRetryAfter(answer.retryAfter, answer.receivedAt);
  switch (cause.class) {
    case 'throttled': {
      const wait = Math.max(askedToWait ?? DEFAULT_THROTTLE_MS, MIN_THROTTLE_MS);
      return make(isLoop ? Math.max(wait, LOOP_SILENCE_MS) : wait);
    }
    case 'provider_fault':
      return make(askedToWait);
    default:
      return make();
  }
}

/** Judges a request that got no answer; `code` is the system's or the HTTP client's, `words` where there are better ones. */
export function classifyNetworkFailure(
  code: string | undefined,
  host: string,
  words = networkWords(code),
): TokenFailure {
  return unusableAnswer(`token endpoint ${host}: ${words}`, findTokenNetworkCause(code ?? '').id);
}

/** An answer that cannot be used although nothing says why. */
export const unusableAnswer = (message: string, cause = 'token-service-garbled'): TokenFailure => ({
  kind: 'provider_fault',
  message,
  cause,
  scope: 'endpoint',
});

/** The endpoint works, but what it gave this account is no token to log in with. */
export const unusableToken = (message: string): TokenFailure => ({
  ...unusableAnswer(message),
  scope: 'account',
});

/** The breaker of the endpoint is open: nothing was sent. */
export function endpointResting(host: string): TokenFailure {
  return unusableAnswer(
    `token endpoint ${host} has failed repeatedly and is not asked for the moment`,
    'token-service-fault',
  );
}

interface ErrorBody {
  readonly error: string;
  readonly description: string;
  readonly codes: readonly number[];
  readonly trace: readonly string[];
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
  const words = typeof description === 'string' ? description.slice(0, MAX_JUDGED) : '';
  const codes = Array.isArray(json.error_codes)
    ? json.error_codes.slice(0, MAX_CODES).map(Number).filter(Number.isSafeInteger)
    : aadstsIn(words);
  const trace = (['trace_id', 'correlation_id'] as const).flatMap((key) => {
    const id = json[key];
    return typeof id === 'string' && GUID.test(id) ? [`${key} ${id}`] : [];
  });
  return { error: error.slice(0, MAX_QUOTED), description: words, codes, trace };
}

function describe(answer: TokenAnswer, said: ErrorBody | undefined): string {
  const secrets = secretsOf(answer);
  const quoted = (text: string): string => quoteCleaned(text, secrets);
  if (said === undefined) {
    const type = answer.contentType?.split(';', 1)[0] ?? 'no content type';
    return quoted(`token endpoint answered HTTP ${answer.status} (${type})`);
  }
  // Microsoft appends trace id, correlation id and time to the sentence; they are quoted apart.
  const tail = said.description.search(/Trace ID:/i);
  const sentence = (tail < 0 ? said.description : said.description.slice(0, tail)).trim();
  const words = sentence === '' ? '' : `: ${quoted(sentence)}`;
  const facts = [`HTTP ${answer.status}`, ...said.trace.map(quoted)].join(', ');
  return `${quoted(said.error)}${words} (${facts})`;
}

function redirectFailure(answer: TokenAnswer): TokenFailure {
  const target = URL.canParse(answer.location ?? '') ? new URL(answer.location ?? '').origin : 'elsewhere';
  return unusableAnswer(
    `token endpoint answered HTTP ${answer.status}, a redirect to ${quoteCleaned(target, answer.secrets)}; credentials are not sent there`,
    'token-url-wrong',
  );
}

const CLOSED = 'connection closed before an answer';
const NO_CONNECTION = 'no connection in time';
const NOT_WHOLE = 'no complete answer in time';
const NETWORK_WORDS: ReadonlyMap<string, string> = new Map([
  ['ECONNREFUSED', 'connection refused'],
  ['ECONNRESET', CLOSED],
  ['EPIPE', CLOSED],
  ['UND_ERR_SOCKET', CLOSED],
  ['ENOTFOUND', 'name not found (ENOTFOUND)'],
  ['EAI_AGAIN', 'name not found (EAI_AGAIN)'],
  ['ETIMEDOUT', NO_CONNECTION],
  ['UND_ERR_CONNECT_TIMEOUT', NO_CONNECTION],
  ['UND_ERR_HEADERS_TIMEOUT', NOT_WHOLE],
  ['UND_ERR_BODY_TIMEOUT', NOT_WHOLE],
  ['ABORT_ERR', NOT_WHOLE],
  ['TOO_LARGE', 'the answer is too large'],
]);
const networkWords = (code = ''): string =>
  NETWORK_WORDS.get(code) ?? `request failed${code === '' ? '' : ` (${code})`}`;

/** One printable line with nothing in it that was sent or that looks like a token. */
export const quoteCleaned = (text: string, secrets: readonly string[]): string =>
  cleanText(
    maskSecrets(text.slice(0, MAX_JUDGED), secrets)
      .replace(/[\w.~+/=%-]{40,}/g, '[…]')
      .trim(),
    MAX_QUOTED,
  );

/** What must not be repeated of an answer: what was sent, and the tokens that came. */
function secretsOf({ secrets, body }: TokenAnswer): readonly string[] {
  const json = parseJsonObject(body) ?? {};
  const came = ['access_token', 'refresh_token', 'id_token'].map((key) => json[key]);
  return [...secrets, ...came.filter((value) => typeof value === 'string')];
}
