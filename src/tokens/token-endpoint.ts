/**
 * The way to token endpoints; the one file that knows undici. In: a form for a URL. Out: a judged
 * answer, never a rejection. Owns the kept-alive connections and one breaker per URL, fed by the
 * endpoint's own faults only. Redirects are not followed: a form carries credentials.
 */
import { Agent, type Dispatcher, EnvHttpProxyAgent, request } from 'undici';
import { type Breaker, type BreakerOptions, type BreakerState, createBreaker } from '../breaker.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { classifyNetworkFailure, endpointResting, type TokenFailure } from '../protocol/token-failure.ts';
import { judgeTokenAnswer, type TokenGrant } from '../protocol/token-response.ts';

export interface TokenEndpointOptions {
  /** TCP and TLS, ms. Default 5,000. */
  readonly connectTimeoutMs?: number;
  /** From the request to the last byte of the answer, ms. Default 20,000; Microsoft has been seen to take 10 s. */
  readonly answerTimeoutMs?: number;
  /** Connections per endpoint. Default 64: a little more than a full pre-cache round. */
  readonly maxConnections?: number;
  readonly breaker?: BreakerOptions;
  /** Where HTTP_PROXY, HTTPS_PROXY and NO_PROXY are looked up. Default: the process environment. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface Exchange {
  readonly outcome:
    | { readonly ok: true; readonly grant: TokenGrant }
    | { readonly ok: false; readonly failure: TokenFailure };
  /** False where the breaker was open: nothing went out. */
  readonly sent: boolean;
  /** Provider's clock minus ours, ms; undefined where the answer had no Date. */
  readonly clockOffsetMs: number | undefined;
  /** When the request went out, ms since the epoch. */
  readonly startedAt: number;
  readonly ms: number;
  /** While resting: when the endpoint may be asked again, ms since the epoch. */
  readonly probeAt: number | undefined;
}

export interface TokenEndpoints {
  /** Posts `form`; `secrets` are the texts in it that no message may repeat. Never rejects. */
  exchange(tokenUrl: string, form: string, secrets: readonly string[]): Promise<Exchange>;
  breakers(): readonly BreakerState[];
  /** Cuts what is under way. */
  close(): Promise<void>;
}

/** A token answer has a few kilobytes; what is larger is something else. */
const MAX_ANSWER_OCTETS = 256 * 1024;

export function createTokenEndpoints(
  deps: { readonly log: Log; readonly clock: Clock },
  options: TokenEndpointOptions = {},
): TokenEndpoints {
  const { log, clock } = deps;
  const answerTimeoutMs = options.answerTimeoutMs ?? 20_000;
  const dispatcher = createDispatcher(options, answerTimeoutMs);
  const breakers = new Map<string, Breaker<Exchange>>();
  const closing = new AbortController();

  function breakerOf(tokenUrl: string): Breaker<Exchange> {
    const known = breakers.get(tokenUrl);
    if (known !== undefined) return known;
    const made = createBreaker<Exchange>(
      tokenUrl,
      ({ outcome }) =>
        !outcome.ok && outcome.failure.kind === 'provider_fault' && outcome.failure.scope === 'endpoint',
      (state) => {
        const fields = { event: 'token_endpoint_breaker', endpoint: tokenUrl, state };
        if (state === 'open') log.warn(fields, 'token endpoint is failing: not asked for a while');
        else log.info(fields, 'token endpoint answers again');
      },
      options.breaker,
    );
    breakers.set(tokenUrl, made);
    return made;
  }

  async function send(tokenUrl: string, form: string, secrets: readonly string[]): Promise<Exchange> {
    const startedAt = clock.now();
    const begun = performance.now();
    const done = (outcome: Exchange['outcome'], clockOffsetMs?: number | undefined): Exchange => ({
      outcome,
      sent: true,
      clockOffsetMs,
      startedAt,
      ms: performance.now() - begun,
      probeAt: undefined,
    });
    try {
      const { statusCode, headers, body } = await post(tokenUrl, form);
      const text = await readBounded(body);
      const receivedAt = clock.now();
      const judged = judgeTokenAnswer({
        status: statusCode,
        retryAfter: single(headers['retry-after']),
        contentType: single(headers['content-type']),
        location: single(headers.location),
        body: text,
        receivedAt,
        secrets,
      });
      const date = Date.parse(single(headers.date) ?? '');
      return done(judged, Number.isNaN(date) ? undefined : date - receivedAt);
    } catch (error) {
      return done({ ok: false, failure: classifyNetworkFailure(codeOf(error), new URL(tokenUrl).host) });
    }
  }

  /** A kept-alive connection may have been closed by the other side just now: such a request goes out once more. */
  async function post(tokenUrl: string, form: string): Promise<Dispatcher.ResponseData> {
    const once = (): Promise<Dispatcher.ResponseData> =>
      request(tokenUrl, {
        dispatcher,
        method: 'POST',
        headers: {
          'content-type': 'application/x-www-form-urlencoded',
          accept: 'application/json',
          'user-agent': 'xoauth2-relay',
        },
        body: form,
        signal: AbortSignal.any([closing.signal, AbortSignal.timeout(answerTimeoutMs)]),
      });
    try {
      return await once();
    } catch (error) {
      if (!LOST_CONNECTION.has(codeOf(error) ?? '')) throw error;
      return once();
    }
  }

  return {
    async exchange(tokenUrl, form, secrets) {
      const breaker = breakerOf(tokenUrl);
      const startedAt = clock.now();
      const result = await breaker.run(() => send(tokenUrl, form, secrets));
      return (
        result ?? {
          outcome: { ok: false, failure: endpointResting(new URL(tokenUrl).host) },
          sent: false,
          clockOffsetMs: undefined,
          startedAt,
          ms: 0,
          probeAt: breaker.probeAt(),
        }
      );
    },
    breakers: () => [...breakers.values()].map((b) => b.state()),
    async close() {
      closing.abort();
      for (const breaker of breakers.values()) breaker.close();
      await dispatcher.destroy();
    },
  };
}

const LOST_CONNECTION: ReadonlySet<string> = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE']);

function createDispatcher(options: TokenEndpointOptions, answerTimeoutMs: number): Dispatcher {
  const env = options.env ?? process.env;
  const settings = {
    connections: options.maxConnections ?? 64,
    connect: { timeout: options.connectTimeoutMs ?? 5000 },
    headersTimeout: answerTimeoutMs,
    bodyTimeout: answerTimeoutMs,
    // Longer than a pre-cache round, shorter than what load balancers keep.
    keepAliveTimeout: 30_000,
  };
  const httpProxy = env.http_proxy ?? env.HTTP_PROXY;
  const httpsProxy = env.https_proxy ?? env.HTTPS_PROXY;
  if (!httpProxy && !httpsProxy) return new Agent(settings);
  return new EnvHttpProxyAgent({
    ...settings,
    httpProxy: httpProxy ?? '',
    httpsProxy: httpsProxy ?? '',
    noProxy: env.no_proxy ?? env.NO_PROXY ?? '',
  });
}

class AnswerTooLarge extends Error {
  readonly code = 'TOO_LARGE';
}

async function readBounded(body: Dispatcher.ResponseData['body']): Promise<string> {
  const chunks: Buffer[] = [];
  let octets = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    octets += chunk.length;
    // Leaving the loop destroys the stream and with it the connection.
    if (octets > MAX_ANSWER_OCTETS) throw new AnswerTooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const { code, name, cause } = error as { code?: unknown; name?: unknown; cause?: unknown };
  if (name === 'TimeoutError' || name === 'AbortError') return 'ABORT_ERR';
  if (typeof code === 'string') return code;
  return cause === undefined ? undefined : codeOf(cause);
}
