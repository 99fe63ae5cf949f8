/**
 * The way to token endpoints. In: a form for a URL. Out: a judged answer within a limit, never a rejection;
 * and, where the answer may carry the only good refresh token, what still comes after the limit. Owns one
 * breaker per URL, fed by the endpoint's own faults only.
 */
import { createHash } from 'node:crypto';
import { type Breaker, type BreakerOptions, type BreakerState, createBreaker } from '../breaker.ts';
import type { Clock } from '../clock.ts';
import { HttpProxyError } from '../http-proxy.ts';
import type { Log } from '../log.ts';
import {
  classifyNetworkFailure,
  endpointResting,
  type TokenAnswer,
  type TokenFailure,
} from '../protocol/token-failure.ts';
import { judgeTokenAnswer, refreshTokenIn, type TokenJudgement } from '../protocol/token-response.ts';
import { createHttpPost, type FormAnswer, type HttpPost } from './http-post.ts';

export interface TokenEndpointOptions {
  /** TCP and TLS, ms. Default 5,000. */
  readonly connectTimeoutMs?: number;
  /** From the request to the last byte of the answer, ms. Default 20,000; Microsoft has been seen to take 10 s. */
  readonly answerTimeoutMs?: number;
  /** How much longer an answer is read to its end for the refresh token in it, ms. Default 60,000. */
  readonly lateMs?: number;
  /** Connections per endpoint. Default 64: a little more than a full pre-cache round. */
  readonly maxConnections?: number;
  readonly breaker?: BreakerOptions;
  /** Where HTTP_PROXY, HTTPS_PROXY and NO_PROXY are looked up. Default: the process environment. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** What carries requests. Default: undici. */
  readonly http?: HttpPost;
}

export interface Exchange {
  readonly outcome: TokenJudgement;
  /** False where the breaker was open: nothing went out. */
  readonly sent: boolean;
  /** Provider's clock minus ours, ms; undefined where the answer had no Date. */
  readonly clockOffsetMs: number | undefined;
  /** When the request went out, ms since the epoch. */
  readonly startedAt: number;
  readonly ms: number;
  /** While resting: when the endpoint may be asked again, ms since the epoch. */
  readonly probeAt: number | undefined;
  /** After the limit, where the answer is still read: what came in the end. */
  readonly late: Promise<TokenJudgement | undefined> | undefined;
}

export interface ExchangeRequest {
  readonly tokenUrl: string;
  readonly form: string;
  /** The texts in it that no message may repeat. */
  readonly secrets: readonly string[];
  /** Hears of a refresh token in the answer, also in a late or bad one, before anything is judged. Absent: no answer is read late. */
  readonly onRefreshToken?: (refreshToken: string) => void;
}

export interface TokenEndpoints {
  /** Never rejects. */
  exchange(request: ExchangeRequest): Promise<Exchange>;
  breakers(): readonly BreakerState[];
  /** Another relay found it failing and asks again in `leftMs`; undefined: it answers again. */
  heard(tokenUrl: string, leftMs: number | undefined): void;
  /** Longest time from a request to the end of its answer, ms. */
  readonly answerTimeoutMs: number;
  readonly lateMs: number;
  /** Cuts what is under way. */
  close(): Promise<void>;
}

/** A token answer has a few kilobytes; what is larger is something else. */
const MAX_ANSWER_OCTETS = 256 * 1024;

/** An answer as far as it came; `fault` where it was cut. */
interface Received {
  readonly answer: TokenAnswer;
  readonly clockOffsetMs: number | undefined;
}

export function createTokenEndpoints(
  deps: {
    readonly log: Log;
    readonly clock: Clock;
    /** It fails and is not asked for `restMs`; undefined: it answers again. */
    readonly onRest?: (tokenUrl: string, restMs: number | undefined) => void;
  },
  options: TokenEndpointOptions = {},
): TokenEndpoints {
  const { log, clock } = deps;
  const answerTimeoutMs = options.answerTimeoutMs ?? 20_000;
  const lateMs = options.lateMs ?? 60_000;
  const http =
    options.http ??
    createHttpPost({
      connectTimeoutMs: options.connectTimeoutMs ?? 5000,
      maxConnections: options.maxConnections ?? 64,
      env: options.env ?? process.env,
    });
  const breakers = new Map<string, Breaker<Exchange>>();
  const underWay = new Set<AbortController>();
  let closed = false;

  function breakerOf(tokenUrl: string): Breaker<Exchange> {
    const known = breakers.get(tokenUrl);
    if (known !== undefined) return known;
    const name = nameOf(tokenUrl);
    const made = createBreaker<Exchange>(
      name,
      ({ outcome }) =>
        !outcome.ok && outcome.failure.kind === 'provider_fault' && outcome.failure.scope === 'endpoint',
      (state) => {
        const fields = { event: 'token_endpoint_breaker', endpoint: name, state };
        if (state === 'open') log.warn(fields, 'token endpoint is failing: not asked for a while');
        else log.info(fields, 'token endpoint answers again');
        deps.onRest?.(tokenUrl, state === 'open' ? (made.probeAt() ?? clock.now()) - clock.now() : undefined);
      },
      { clock, ...options.breaker },
    );
    breakers.set(tokenUrl, made);
    return made;
  }

  /** The whole answer; rejects where none came, or it was cut or is too large. */
  async function receive(request: ExchangeRequest, signal: AbortSignal): Promise<Received> {
    const head = await post(request.tokenUrl, request.form, signal);
    const receivedAt = clock.now();
    const body = await readBody(head, (torn) => {
      const refreshToken = refreshTokenIn(head.status, torn);
      if (refreshToken !== undefined) request.onRefreshToken?.(refreshToken);
    });
    const date = Date.parse(head.header('date') ?? '');
    return {
      clockOffsetMs: Number.isNaN(date) ? undefined : date - receivedAt,
      answer: {
        status: head.status,
        retryAfter: head.header('retry-after'),
        contentType: head.header('content-type'),
        location: head.header('location'),
        body,
        receivedAt,
        secrets: [...request.secrets, ...(http.secrets ?? [])],
      },
    };
  }

  /** A kept-alive connection may have been closed by the other side just now: such a request goes out once more. */
  async function post(tokenUrl: string, form: string, signal: AbortSignal): Promise<FormAnswer> {
    try {
      return await http.post(tokenUrl, form, signal);
    } catch (error) {
      if (signal.aborted || !LOST_CONNECTION.has(codeOf(error) ?? '')) throw error;
      return http.post(tokenUrl, form, signal);
    }
  }

  async function send(request: ExchangeRequest): Promise<Exchange> {
    const startedAt = clock.now();
    const begun = clock.monotonic();
    const host = new URL(request.tokenUrl).host;
    const controller = new AbortController();
    underWay.add(controller);
    if (closed) controller.abort();
    let cancelLimit = (): void => undefined;
    let cancelEnd = (): void => undefined;
    const limit = new Promise<'limit'>((resume) => {
      cancelLimit = clock.after(answerTimeoutMs, () => resume('limit'));
    });
    const received = receive(request, controller.signal)
      .then(
        (came) => came,
        (error: unknown) => classifyNetworkFailure(codeOf(error), host, proxyWords(error)),
      )
      .finally(() => {
        cancelLimit();
        cancelEnd();
        underWay.delete(controller);
      });
    const outcomeOf = (came: Received | TokenFailure): TokenJudgement =>
      'kind' in came ? { ok: false, failure: came } : judgeTokenAnswer(came.answer);
    const done = (came: Received | TokenFailure, late: Exchange['late']): Exchange => ({
      outcome: outcomeOf(came),
      sent: true,
      clockOffsetMs: 'kind' in came ? undefined : came.clockOffsetMs,
      startedAt,
      ms: clock.monotonic() - begun,
      probeAt: undefined,
      late,
    });
    // Our own timer: a signal of AbortSignal.any can be collected before it fires.
    const first = await Promise.race([received, limit]);
    if (first !== 'limit') return done(first, undefined);
    const tooLate = classifyNetworkFailure('ABORT_ERR', host);
    if (request.onRefreshToken === undefined || closed) {
      controller.abort();
      return done(tooLate, undefined);
    }
    cancelEnd = clock.after(lateMs, () => controller.abort());
    const late = received.then((came) => ('kind' in came ? undefined : outcomeOf(came)));
    return done(tooLate, late);
  }

  return {
    answerTimeoutMs,
    lateMs,
    async exchange(request) {
      const breaker = breakerOf(request.tokenUrl);
      const startedAt = clock.now();
      const result = await breaker.run(() => send(request));
      return (
        result ?? {
          outcome: { ok: false, failure: endpointResting(new URL(request.tokenUrl).host) },
          sent: false,
          clockOffsetMs: undefined,
          startedAt,
          ms: 0,
          probeAt: breaker.probeAt(),
          late: undefined,
        }
      );
    },
    breakers: () => [...breakers.values()].map((b) => b.state()),
    heard(tokenUrl, leftMs) {
      breakerOf(tokenUrl).heard(leftMs);
    },
    async close() {
      closed = true;
      for (const controller of underWay) controller.abort();
      await http.close();
    },
  };
}

const LOST_CONNECTION: ReadonlySet<string> = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE']);

class AnswerTooLarge extends Error {
  readonly code = 'TOO_LARGE';
}

/** The whole body; `onText` hears what came before it is decided whether it is whole. */
async function readBody({ body }: FormAnswer, onText: (text: string) => void): Promise<string> {
  const chunks: Uint8Array[] = [];
  let octets = 0;
  try {
    for await (const chunk of body) {
      octets += chunk.length;
      chunks.push(chunk);
      // Leaving the loop destroys the stream and with it the connection.
      if (octets > MAX_ANSWER_OCTETS) throw new AnswerTooLarge();
    }
  } catch (error) {
    onText(Buffer.concat(chunks).toString());
    throw error;
  }
  const text = Buffer.concat(chunks).toString();
  onText(text);
  return text;
}

const proxyWords = (error: unknown): string | undefined =>
  error instanceof HttpProxyError ? error.message : undefined;

function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const { code, name, cause } = error as { code?: unknown; name?: unknown; cause?: unknown };
  if (name === 'TimeoutError' || name === 'AbortError') return 'ABORT_ERR';
  if (typeof code === 'string') return code;
  return cause === undefined ? undefined : codeOf(cause);
}

/** For people. A query may hold the endpoint's own key: its digest tells it from another. */
function nameOf(tokenUrl: string): string {
  const { origin, pathname, search } = new URL(tokenUrl);
  const query = search === '' ? '' : `?${createHash('sha256').update(search).digest('hex').slice(0, 8)}`;
  return `${origin}${pathname}${query}`;
}
