/** HTTP POST of a form. Redirects are not followed: a form carries credentials. */
import { request } from 'undici';
import { createDispatcher, type Environment, proxySecrets } from '../http-proxy.ts';

export interface FormAnswer {
  readonly status: number;
  /** First value of a header, lower-cased name. */
  header(name: string): string | undefined;
  readonly body: AsyncIterable<Uint8Array>;
}

export interface HttpPost {
  /** What no answer may repeat: of the logins of proxies. */
  readonly secrets?: readonly string[];
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
  readonly env: Environment;
}

export function createHttpPost(options: HttpPostOptions): HttpPost {
  // Kept longer than a pre-cache round, shorter than what load balancers keep.
  const dispatcher = createDispatcher({ ...options, keepAliveMs: 30_000 });
  return {
    secrets: proxySecrets(options.env),
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
