/**
 * Judges what a token endpoint answered. In: one HTTP answer. Out: a grant that can be used, or a
 * classified failure. Pure; nothing the provider sent is trusted before it passed here.
 */

import { parseJsonObject } from './json-object.ts';
import { maskSecrets } from './masking.ts';
import {
  classifyTokenFailure,
  type TokenAnswer,
  type TokenFailure,
  unusableAnswer,
  unusableToken,
} from './token-failure.ts';

/** A usable success (RFC 6749 §5.1). */
export interface TokenGrant {
  readonly accessToken: string;
  /** Life from the moment of the answer, ms. */
  readonly lifetimeMs: number;
  /** Oddities worth one log line; no secrets. */
  readonly notes: readonly string[];
}

export type TokenJudgement =
  | { readonly ok: true; readonly grant: TokenGrant }
  | { readonly ok: false; readonly failure: TokenFailure };

/** RFC 6749 §5.1 only recommends expires_in. Without it nothing may be assumed: ask again soon. */
const UNSTATED_LIFETIME_MS = 5 * 60_000;
/** Longer than any provider's policy (Microsoft: 28 h with continuous access evaluation). */
export const MAX_LIFETIME_MS = 7 * 24 * 60 * 60_000;
/** A SASL response line may have 12,288 octets (RFC 4954 §4), three quarters of that before base64, less the user. */
const MAX_TOKEN_OCTETS = 8192;
/** VSCHAR without the space (RFC 6749 appendix A.12): anything else would break the SASL string. */
const SENDABLE = /^[\x21-\x7e]+$/;

export function judgeTokenAnswer(answer: TokenAnswer): TokenJudgement {
  const refuse = (failure: TokenFailure): TokenJudgement => ({ ok: false, failure });
  if (answer.status < 200 || answer.status > 299) return refuse(classifyTokenFailure(answer));
  const json = parseJsonObject(answer.body);
  if (json === undefined) {
    const type = maskSecrets(answer.contentType ?? 'no content type', answer.secrets).split(';')[0] ?? '';
    return refuse(
      unusableAnswer(
        `token endpoint answered HTTP ${answer.status} with ${Buffer.byteLength(answer.body)} octets that are not a JSON object (${type.slice(0, 60).replace(/[^\w/+. [\]-]/g, '?')})`,
      ),
    );
  }
  if (json.error !== undefined && json.access_token === undefined) {
    return refuse(classifyTokenFailure(answer));
  }
  const accessToken = json.access_token;
  if (typeof accessToken !== 'string' || accessToken === '') {
    return refuse(unusableAnswer('token endpoint answered without an access_token'));
  }
  if (!SENDABLE.test(accessToken)) {
    return refuse(
      unusableToken('token endpoint sent an access_token with characters that no token may have'),
    );
  }
  if (accessToken.length > MAX_TOKEN_OCTETS) {
    return refuse(
      unusableToken(
        `token endpoint sent an access_token of ${accessToken.length} octets, too long for SMTP AUTH`,
      ),
    );
  }
  if (typeof json.token_type === 'string' && json.token_type.toLowerCase() !== 'bearer') {
    return refuse(unusableToken('token endpoint sent a token that is not of type Bearer'));
  }
  const notes: string[] = [];
  const seconds = parseSeconds(json.expires_in);
  if (seconds === undefined) notes.push('expires_in is missing or not a number: asking again in minutes');
  if (seconds !== undefined && seconds <= 0) {
    return refuse(
      unusableToken(`token endpoint sent a token that has already ended (expires_in ${seconds})`),
    );
  }
  const statedMs = seconds === undefined ? UNSTATED_LIFETIME_MS : seconds * 1000;
  if (statedMs > MAX_LIFETIME_MS) notes.push('expires_in is longer than a week: taken as a week');
  return { ok: true, grant: { accessToken, lifetimeMs: Math.min(statedMs, MAX_LIFETIME_MS), notes } };
}

/** A number, or a string of digits as some providers send it. */
function parseSeconds(value: unknown): number | undefined {
  if (typeof value === 'string' && /^-?\d{1,15}$/.test(value.trim())) return Number(value);
  return typeof value === 'number' && !Number.isNaN(value) ? value : undefined;
}

/** A refresh token has a few kilobytes at most, whatever its characters: it is sent URL-encoded. */
const MAX_REFRESH_TOKEN = 65_536;
const IN_A_TORN_ANSWER = /"refresh_token"\s{0,9}:\s{0,9}("(?:[^"\\]|\\.){1,65536}")/;

/**
 * The refresh token in an answer, taken before anything else about it is judged: the provider may have
 * revoked the one before. Of every 2xx answer, also one that is torn, or whose access token is no good.
 */
export function refreshTokenIn(status: number, body: string): string | undefined {
  if (status < 200 || status > 299) return undefined;
  const json = parseJsonObject(body);
  const value = json === undefined ? tornRefreshToken(body) : json.refresh_token;
  return typeof value === 'string' && value !== '' && value.length <= MAX_REFRESH_TOKEN ? value : undefined;
}

function tornRefreshToken(body: string): unknown {
  const quoted = IN_A_TORN_ANSWER.exec(body)?.[1];
  try {
    return quoted === undefined ? undefined : JSON.parse(quoted);
  } catch {
    return undefined;
  }
}
