/**
 * The calls of Microsoft Graph that deliver mail. In: a message or the id of a draft. Out: what came of
 * the call, never a rejection. Owns the renewal of a token that was refused, once a call; pacing and
 * breaker stand in front of every request. Source: learn.microsoft.com/graph/api user-post-messages,
 * message-send, user-sendmail.
 */
import { randomUUID } from 'node:crypto';
import { type Clock, systemClock } from '../../clock.ts';
import type { Http, HttpAnswer, HttpRequest } from '../../http.ts';
import type { Log } from '../../log.ts';
import type { GraphCall } from '../../protocol/causes/graph-causes.ts';
import { type GraphRefusal, parseGraphRefusal } from '../../protocol/graph-answer.ts';
import { parseJsonObject } from '../../protocol/json-object.ts';
import { createWatch, type Mask } from '../../protocol/masking.ts';
import { parseRetryAfter } from '../../protocol/retry-after.ts';
import { cleanText } from '../../protocol/text.ts';
import type { BreakerWeight } from '../../protocol/verdict.ts';
import { type AccessToken, TokenError, type TokenSource } from '../../tokens/access-token.ts';
import type { UpstreamEndpoint } from '../endpoint.ts';
import { UpstreamError } from '../failure.ts';
import type { GraphKey, GraphPacing } from './pacing.ts';

/** A mailbox as Graph addresses it. */
export interface GraphMailbox {
  /** Account id, for tokens, logs and metrics. */
  readonly account: string;
  /** `https://graph.microsoft.com/v1.0/users/ann%40example.com`, without a slash at the end. */
  readonly url: string;
  readonly key: GraphKey;
}

export type GraphOutcome<T> =
  | { readonly kind: 'ok'; readonly value: T }
  /** An answer that is not the wanted one. */
  | { readonly kind: 'refused'; readonly refusal: GraphRefusal }
  /** No answer. */
  | { readonly kind: 'lost'; readonly maybeSent: boolean; readonly code: string; readonly detail?: string }
  /** Nothing was asked: no token, no place, the breaker is open. */
  | { readonly kind: 'unasked'; readonly error: UpstreamError; readonly waitMs?: number };

/** A message in the mailbox, as far as we asked. */
export interface GraphMessage {
  readonly id: string;
  readonly isDraft: boolean;
  /** With angle brackets. */
  readonly internetMessageId: string | undefined;
  /** To, Cc and Bcc, as given; undefined where not asked for. */
  readonly recipients: readonly string[] | undefined;
  /** ms since the epoch. */
  readonly createdAt: number | undefined;
}

export interface GraphClient {
  /** Saves the message as a draft. */
  create(message: Buffer): Promise<GraphOutcome<GraphMessage>>;
  /** Takes at most `withinMs`. */
  send(draft: string, withinMs: number): Promise<GraphOutcome<'done'>>;
  /** `none`: it cannot be found (404). Takes at most `withinMs`. */
  look(draft: string, withinMs: number): Promise<GraphOutcome<GraphMessage | 'none'>>;
  /** In the whole mailbox, or among drafts: a device that gives all it says one Message-ID has more sent than one search finds. */
  search(internetMessageId: string, among: 'all' | 'drafts'): Promise<GraphOutcome<readonly GraphMessage[]>>;
  remove(draft: string): Promise<GraphOutcome<'done'>>;
  /** Creates and sends in one call. */
  sendMail(message: Buffer): Promise<GraphOutcome<'done'>>;
}

/** A call that ended, for metrics. */
export interface GraphCallObservation {
  readonly account: string;
  readonly call: GraphCall;
  /** Status, or why there was none. */
  readonly outcome: string;
  readonly ms: number;
}

export interface GraphClientDeps {
  readonly http: Http;
  readonly tokens: TokenSource;
  readonly pacing: GraphPacing;
  /** Breaker of the Graph host. */
  readonly endpoint: UpstreamEndpoint;
  readonly log: Log;
  readonly clock?: Clock;
  readonly onCall?: (observation: GraphCallObservation) => void;
}

export interface GraphClientOptions {
  /** Longest wait for a place to ask, ms. Default 15,000. */
  readonly maxWaitMs?: number;
  /** Longest wait for the answer to a small request, ms. Default 20,000. */
  readonly answerMs?: number;
  /** The same where the message is uploaded, ms. Default 60,000: 4 MB over a slow line. */
  readonly uploadMs?: number;
}

/** Holds for one request only, so every one carries it: the id then survives the move to Sent Items. */
const IMMUTABLE = { prefer: 'IdType="ImmutableId"' };
const BEGINS: ReadonlySet<GraphCall> = new Set(['create', 'send', 'send_mail']);
/** Messages that one search finds at most. */
export const MOST_FOUND = 20;
const FIELDS = 'id,isDraft,internetMessageId';

export function createGraphClient(
  mailbox: GraphMailbox,
  deps: GraphClientDeps,
  options: GraphClientOptions = {},
): GraphClient {
  const { http, tokens, pacing, endpoint, log, clock = systemClock } = deps;
  const maxWaitMs = options.maxWaitMs ?? 15_000;
  const answerMs = options.answerMs ?? 20_000;
  const uploadMs = options.uploadMs ?? 60_000;

  const ofProxies = createWatch(http.secrets);
  let masked: { readonly bearer: AccessToken; readonly mask: Mask } | undefined;

  async function token(): Promise<AccessToken> {
    return tokens.peek(mailbox.account, 'graph') ?? tokens.get(mailbox.account, 'graph');
  }

  function maskFor(bearer: AccessToken): Mask {
    if (masked?.bearer !== bearer) {
      const ofAccount = tokens.mask(mailbox.account, bearer);
      masked = { bearer, mask: http.secrets.length === 0 ? ofAccount : (text) => ofProxies(ofAccount(text)) };
    }
    return masked.mask;
  }

  const unasked = (error: unknown): Extract<GraphOutcome<never>, { kind: 'unasked' }> => {
    if (error instanceof UpstreamError) return { kind: 'unasked', error };
    if (!(error instanceof TokenError)) throw error;
    const { code, message } = error;
    return {
      kind: 'unasked',
      error: new UpstreamError({ kind: 'token', code, account: mailbox.account, detail: message }, error),
    };
  };

  /**
   * One request. What begins something goes by the breaker, which rejects with `UpstreamError` while it is
   * open; what finds out how something ended, or tidies it up, is asked in any case and says nothing
   * against the host: one message in trouble looks many times.
   */
  async function ask(call: GraphCall, request: HttpRequest, mask: Mask): Promise<HttpAnswer> {
    const startedAt = clock.monotonic();
    let answer: HttpAnswer | undefined;
    try {
      if (!BEGINS.has(call)) answer = await http.request(request);
      else
        await endpoint.guard(mailbox.account, async () => {
          answer = await http.request(request);
          const weight = weightOf(answer);
          // The breaker counts what is thrown; the answer is handed on all the same.
          if (weight !== 'none') throw fault(answer, weight);
        });
    } catch (error) {
      if (answer === undefined) throw error;
    }
    if (answer === undefined) throw new UpstreamError({ kind: 'local', cause: 'internal' });
    const ms = clock.monotonic() - startedAt;
    const outcome = answer.kind === 'answer' ? String(answer.status) : answer.code;
    deps.onCall?.({ account: mailbox.account, call, outcome, ms });
    log.debug(
      {
        event: 'graph_call',
        account: mailbox.account,
        call,
        outcome,
        ms: Math.round(ms),
        client_request_id: request.headers['client-request-id'],
        request_id:
          answer.kind === 'answer' ? cleanText(mask(answer.headers['request-id'] ?? ''), 64) : undefined,
      },
      'asked Graph',
    );
    return answer;
  }

  /** One call; after a 401 once more with a new token: nothing was done with the old one. */
  async function call<T>(spec: CallSpec<T>): Promise<GraphOutcome<T>> {
    const { name, method, url, message, withinMs = Number.POSITIVE_INFINITY } = spec;
    const octets = message === undefined ? 0 : Math.ceil(message.length / 3) * 4;
    const until = clock.monotonic() + withinMs;
    const left = (ms: number): number => Math.min(ms, Math.max(0, until - clock.monotonic()));
    try {
      let bearer = await token();
      for (let isRenewed = false; ; isRenewed = true) {
        const place = await pacing.enter(mailbox.key, octets, left(maxWaitMs));
        if ('waitMs' in place)
          return {
            ...unasked(
              new UpstreamError({
                kind: 'local',
                cause: 'rate_limited',
                waitSeconds: Math.ceil(place.waitMs / 1000),
              }),
            ),
            waitMs: place.waitMs,
          };
        let answer: HttpAnswer;
        try {
          answer = await ask(
            name,
            {
              method,
              url,
              headers: {
                authorization: `Bearer ${bearer.reveal()}`,
                accept: 'application/json',
                'user-agent': 'xoauth2-relay',
                'client-request-id': randomUUID(),
                ...IMMUTABLE,
                // Graph demands a length of a POST without a body too (learn.microsoft.com/graph/api/message-send).
                ...(message !== undefined
                  ? { 'content-type': 'text/plain' }
                  : method === 'POST'
                    ? { 'content-length': '0' }
                    : {}),
              },
              // Only now: while it waits a message is not held twice.
              ...(message === undefined ? {} : { body: message.toString('base64') }),
              timeoutMs: left(octets > 0 ? uploadMs : answerMs),
            },
            maskFor(bearer),
          );
        } finally {
          place.leave();
        }
        if (answer.kind === 'lost') return answer;
        const retryAfterMs = parseRetryAfter(answer.headers['retry-after'], clock.now());
        const refusal = (): GraphRefusal => parseGraphRefusal(name, answer, clock.now(), maskFor(bearer));
        // A 202 with Retry-After has been accepted; only what comes next waits.
        if (answer.status === 429)
          pacing.throttled(mailbox.key, retryAfterMs, refusal().code === 'ApplicationThrottled');
        else if (retryAfterMs !== undefined) pacing.pause(mailbox.key, retryAfterMs);
        if (answer.status === spec.wanted) {
          const value = spec.read(answer.body, maskFor(bearer));
          if (value !== undefined) return { kind: 'ok', value };
        }
        if (answer.status === 401 && !isRenewed) {
          bearer = await tokens.renew(mailbox.account, bearer, 'graph');
          continue;
        }
        return { kind: 'refused', refusal: refusal() };
      }
    } catch (error) {
      return unasked(error);
    }
  }

  const messagesUrl = `${mailbox.url}/messages`;
  const draftUrl = (draft: string): string => `${messagesUrl}/${encodeURIComponent(draft)}`;

  return {
    create: (message) =>
      call({
        name: 'create',
        method: 'POST',
        url: messagesUrl,
        message,
        wanted: 201,
        read: (body, mask) => parseMessage(parseJsonObject(body), mask),
      }),
    send: (draft, withinMs) =>
      call({
        name: 'send',
        method: 'POST',
        url: `${draftUrl(draft)}/send`,
        wanted: 202,
        read: done,
        withinMs,
      }),
    async look(draft, withinMs) {
      const outcome = await call({
        name: 'look',
        method: 'GET',
        url: `${draftUrl(draft)}?$select=${FIELDS}`,
        wanted: 200,
        read: (body, mask) => parseMessage(parseJsonObject(body), mask),
        withinMs,
      });
      const isGone = outcome.kind === 'refused' && outcome.refusal.status === 404;
      return isGone ? { kind: 'ok', value: 'none' } : outcome;
    },
    search: (internetMessageId, among) =>
      call({
        name: 'search',
        method: 'GET',
        url: `${among === 'all' ? messagesUrl : `${mailbox.url}/mailFolders/drafts/messages`}?$filter=${encodeURIComponent(
          `internetMessageId eq '${internetMessageId.replaceAll("'", "''")}'`,
        )}&$select=${FIELDS},createdDateTime,toRecipients,ccRecipients,bccRecipients&$top=${MOST_FOUND}`,
        wanted: 200,
        read(body, mask) {
          const { value } = parseJsonObject(body) ?? {};
          return Array.isArray(value) ? value.flatMap((item) => parseMessage(item, mask) ?? []) : undefined;
        },
      }),
    remove: (draft) =>
      call({ name: 'delete', method: 'DELETE', url: draftUrl(draft), wanted: 204, read: done }),
    sendMail: (message) =>
      call({
        name: 'send_mail',
        method: 'POST',
        url: `${mailbox.url}/sendMail`,
        message,
        wanted: 202,
        read: done,
      }),
  };
}

const done = (): 'done' => 'done';

/** One call; `read` answers undefined for a body that is not as it should be. */
interface CallSpec<T> {
  readonly name: GraphCall;
  readonly method: HttpRequest['method'];
  readonly url: string;
  /** Goes as base64. */
  readonly message?: Buffer;
  readonly wanted: number;
  readonly read: (body: string, mask: Mask) => T | undefined;
  /** In all, waiting for a place included, ms. */
  readonly withinMs?: number;
}

/** How much an answer says against the host. Throttling and refusals say nothing. */
function weightOf(answer: HttpAnswer): BreakerWeight {
  if (answer.kind === 'lost') return answer.code === 'CLOSED' ? 'none' : 'full';
  return answer.status >= 500 ? 'half' : 'none';
}

function fault(answer: HttpAnswer, weight: BreakerWeight): UpstreamError {
  const detail = answer.kind === 'lost' ? (answer.detail ?? answer.code) : String(answer.status);
  const error = new UpstreamError({
    kind: 'lost',
    stage: 'connect',
    cause: 'tcp',
    reused: false,
    finalByteSent: false,
    detail,
  });
  return new UpstreamError(error.event, undefined, { ...error.verdict, breaker: weight });
}

function parseMessage(item: unknown, mask: Mask): GraphMessage | undefined {
  if (typeof item !== 'object' || item === null) return undefined;
  const json = item as Record<string, unknown>;
  const { id, isDraft, internetMessageId, createdDateTime } = json;
  if (typeof id !== 'string' || id === '' || id.length > 1000 || typeof isDraft !== 'boolean')
    return undefined;
  const lists = [json.toRecipients, json.ccRecipients, json.bccRecipients];
  const createdAt = typeof createdDateTime === 'string' ? Date.parse(createdDateTime) : Number.NaN;
  return {
    id,
    isDraft,
    internetMessageId:
      typeof internetMessageId === 'string' ? mask(cleanText(internetMessageId, 998)) : undefined,
    recipients: lists.every(Array.isArray)
      ? lists.flatMap((list) => (list as unknown[]).flatMap(addressOf))
      : undefined,
    createdAt: Number.isNaN(createdAt) ? undefined : createdAt,
  };
}

function addressOf(recipient: unknown): string[] {
  const address = (recipient as { emailAddress?: { address?: unknown } } | null)?.emailAddress?.address;
  return typeof address === 'string' ? [address] : [];
}
