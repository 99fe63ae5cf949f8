/** HTTP POST of a form; the one file that knows undici. Redirects are not followed: a form carries credentials. */
import { Agent, type Dispatcher, EnvHttpProxyAgent, request } from 'undici';

export interface FormAnswer {
  readonly status: number;
  /** First value of a header, lower-cased name. */
  header(name: string): string | undefined;
  readonly body: AsyncIterable<Uint8Array>;
}

export interface HttpPost {
  /** Resolves with the head of the answer. Rejects with a system's or undici's `code`; when `signal` aborts, at once. */
  post(url: string, form: string, signal: AbortSignal): Promise<FormAnswer>;
  close(): Promise<void>;
}

export interface HttpPostOptions {
  /** TCP and TLS, ms. */
  readonly connectTimeoutMs: number;
  /** Connections per endpoint. */
  readonly maxConnections: number;
  /** Where HTTP_PROXY, HTTPS_PROXY and NO_PROXY are looked up. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

export function createHttpPost(options: HttpPostOptions): HttpPost {
  const dispatcher = createDispatcher(options);
  return {
    async post(url, form, signal) {
      const { statusCode, headers, body } = await request(url, {
        dispatcher,
        method: 'POST',
        headers: {
          'content-type': 'application/x-www-form-urlencoded',
          accept: 'application/json',
          'user-agent': 'xoauth2-relay',
        },
        body: form,
        signal,
      });
      return {
        status: statusCode,
        header(name) {
          const value = headers[name];
          return Array.isArray(value) ? value[0] : value;
        },
        body: body as AsyncIterable<Uint8Array>,
      };
    },
    close: () => dispatcher.destroy(),
  };
}

function createDispatcher({ connectTimeoutMs, maxConnections, env }: HttpPostOptions): Dispatcher {
  const settings = {
    connections: maxConnections,
    connect: { timeout: connectTimeoutMs },
    // How long an answer may take is for the caller to say.
    headersTimeout: 0,
    bodyTimeout: 0,
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
