/**
 * Requests to a web API over kept-alive connections. In: a request. Out: the whole answer, or how the
 * request was lost and whether it can have reached the other side; never a rejection. Honours
 * HTTP_PROXY, HTTPS_PROXY and NO_PROXY. Redirects are not followed: a request carries a token. HTTP/1.1 on purpose: one
 * connection that breaks leaves one request unclear, with HTTP/2 it would leave every request of every mailbox on it so.
 */
import { type Dispatcher, request } from 'undici';
import { type Clock, systemClock } from './clock.ts';
import { createDispatcher, type Environment, HttpProxyError, proxySecrets } from './http-proxy.ts';
import { createJsonShortener } from './protocol/json-shortening.ts';

export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  /** From now to the last octet of the answer, ms. */
  readonly timeoutMs: number;
}

export type HttpAnswer =
  | {
      readonly kind: 'answer';
      readonly status: number;
      /** Names in lower case; of a repeated one the first. */
      readonly headers: Readonly<Record<string, string>>;
      /** Where it is longer than 64 KiB the first 8 KiB of each text in quotes; cut where that is longer than 4 MiB, or all answers under way hold 64 MiB. */
      readonly body: string;
    }
  | {
      readonly kind: 'lost';
      /** False only where it is certain that nothing of the request went out: there was no connection for it. */
      readonly maybeSent: boolean;
      /** Error code such as `ECONNREFUSED`; `TIMEOUT` where our time was up. */
      readonly code: string;
      /** What there is to tell beyond the code. */
      readonly detail?: string;
    };

export interface Http {
  /** What no answer may repeat: of the logins of proxies. */
  readonly secrets: readonly string[];
  /** Never rejects. */
  request(request: HttpRequest): Promise<HttpAnswer>;
  /** Cuts what is under way. */
  close(): Promise<void>;
}

export interface HttpOptions {
  /** TCP and TLS, ms. Default 5,000. */
  readonly connectTimeoutMs?: number;
  /** Connections per origin. Default 128. */
  readonly maxConnections?: number;
  /** An idle connection is closed after this, ms. Default 20,000: below what load balancers keep. */
  readonly keepAliveMs?: number;
  /** Certificate authority to trust, PEM; default the system's. */
  readonly ca?: string;
  /** Where the proxy variables are looked up. Default: the process environment. */
  readonly env?: Environment;
}

/** A draft is answered with its whole text in JSON, where an octet may take six. */
const MAX_READ_OCTETS = 24 * 1024 * 1024;
/** Answers up to this are kept as they are. */
const SHORT_OCTETS = 64 * 1024;
/** Of a text in a longer one nobody reads more. */
const TEXT_OCTETS = 8 * 1024;
/** Kept of one: 20 messages found, each with 500 recipients. */
const MAX_KEPT_OCTETS = 4 * 1024 * 1024;
/** Kept of all that are being read, but for the short ones. */
const MAX_TOGETHER_OCTETS = 64 * 1024 * 1024;

export function createHttp(options: HttpOptions = {}, clock: Clock = systemClock): Http {
  const env = options.env ?? process.env;
  const dispatcher = createDispatcher({
    connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
    maxConnections: options.maxConnections ?? 128,
    keepAliveMs: options.keepAliveMs ?? 20_000,
    ca: options.ca,
    env,
  });
  const closing = new AbortController();
  const underWay = new Set<AbortController>();
  /** Octets kept of long answers that are being read. */
  let together = 0;

  /** Reads everything so that the connection can be used again, keeps what can be of use. */
  async function readBounded(body: Dispatcher.ResponseData['body']): Promise<string> {
    let kept: Buffer[] = [];
    let octets = 0;
    let long = 0;
    let shorten: ((piece: Buffer) => Buffer) | undefined;
    const keep = (piece: Buffer): void => {
      kept.push(piece);
      if (shorten === undefined) return;
      long += piece.length;
      together += piece.length;
    };
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) {
        octets += chunk.length;
        if (octets > MAX_READ_OCTETS) break;
        if (shorten === undefined && octets > SHORT_OCTETS) {
          shorten = createJsonShortener(TEXT_OCTETS);
          for (const piece of kept.splice(0)) keep(shorten(piece));
        }
        keep(shorten?.(chunk) ?? chunk);
        if (long > MAX_KEPT_OCTETS || together > MAX_TOGETHER_OCTETS) break;
      }
      return Buffer.concat(kept).toString();
    } finally {
      kept = [];
      together -= long;
    }
  }

  return {
    secrets: proxySecrets(env),
    async request({ method, url, headers, body, timeoutMs }) {
      const cut = new AbortController();
      let isLate = false;
      /** A connection was found for it: it may go out from now on. */
      let isBegun = false;
      const cancel = clock.after(timeoutMs, () => {
        isLate = true;
        cut.abort();
      });
      underWay.add(cut);
      try {
        if (closing.signal.aborted) return { kind: 'lost', maybeSent: false, code: 'CLOSED' };
        const answered = request(url, {
          dispatcher: telling(dispatcher, () => {
            isBegun = true;
          }),
          method,
          headers,
          body: body ?? null,
          signal: cut.signal,
        });
        // undici looks at the signal only once there is a connection; until then nobody else ends the wait.
        const answer = await Promise.race([answered, aborted(cut.signal)]);
        const text = await readBounded(answer.body);
        const flat: Record<string, string> = {};
        for (const [name, value] of Object.entries(answer.headers)) {
          const first = Array.isArray(value) ? value[0] : value;
          if (first !== undefined) flat[name] = first;
        }
        return { kind: 'answer', status: answer.statusCode, headers: flat, body: text };
      } catch (error) {
        const code = isLate ? 'TIMEOUT' : codeOf(error);
        const detail = error instanceof HttpProxyError ? { detail: error.message } : {};
        return { kind: 'lost', maybeSent: isBegun, code, ...detail };
      } finally {
        cancel();
        underWay.delete(cut);
      }
    },
    async close() {
      closing.abort();
      for (const cut of underWay) cut.abort();
      await dispatcher.destroy();
    },
  };
}

const aborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_resolve, reject) => {
    const abort = (): void => reject(new DOMException('cut', 'AbortError'));
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });

/** The dispatcher for one request; `begun` is called before anything of the request is written to a connection. */
const telling = (dispatcher: Dispatcher, begun: () => void): Dispatcher =>
  dispatcher.compose((dispatch) => (options, handler) => {
    const start = handler.onRequestStart?.bind(handler);
    handler.onRequestStart = (controller, context) => {
      begun();
      start?.(controller, context);
    };
    return dispatch(options, handler);
  });

function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null) return 'UNKNOWN';
  const { code, cause } = error as { code?: unknown; cause?: unknown };
  if (typeof code === 'string' && code !== 'UND_ERR_ABORTED') return code;
  return cause === undefined ? (typeof code === 'string' ? code : 'UNKNOWN') : codeOf(cause);
}
