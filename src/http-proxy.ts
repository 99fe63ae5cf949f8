/**
 * The way to web hosts: direct, or by the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name. In: limits and an
 * environment. Out: undici's dispatcher. Trouble with the proxy is a `HttpProxyError`, which names it without its login.
 */
import { Agent, type Dispatcher, EnvHttpProxyAgent, Pool } from 'undici';
import { secretsOfLogin } from './protocol/masking.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** No connection came about. The message is for people: `proxy http://host:3128 answered HTTP 407`. */
export class HttpProxyError extends Error {
  override readonly name = 'HttpProxyError';
  readonly code: 'PROXY_REFUSED' | 'PROXY_UNREACHABLE';
  constructor(code: HttpProxyError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/** What the variable holds is no proxy. The message never quotes it: it may hold a password. */
export class HttpProxySettingError extends Error {
  override readonly name = 'HttpProxySettingError';
}

export interface DispatcherOptions {
  /** TCP and TLS, and a proxy's answer to CONNECT, ms. */
  readonly connectTimeoutMs: number;
  /** Per origin. */
  readonly maxConnections: number;
  readonly keepAliveMs: number;
  readonly ca?: string | undefined;
  readonly env: Environment;
}

/** Throws a `HttpProxySettingError`. */
export function createDispatcher({ env, ...options }: DispatcherOptions): Dispatcher {
  const connect = {
    timeout: options.connectTimeoutMs,
    ...(options.ca === undefined ? {} : { ca: options.ca }),
  };
  const settings = {
    connections: options.maxConnections,
    connect,
    keepAliveTimeout: options.keepAliveMs,
    // The end of a wait is the caller's, by its clock.
    headersTimeout: 0,
    bodyTimeout: 0,
  };
  const { http, https } = proxiesOf(env);
  if (http === undefined && https === undefined) return new Agent(settings);
  return new EnvHttpProxyAgent({
    ...settings,
    requestTls: connect,
    proxyTls: connect,
    clientFactory: (origin, own) => createProxyPool(origin, { ...own, headersTimeout: connect.timeout }),
    httpProxy: http?.href ?? '',
    httpsProxy: https?.href ?? '',
    noProxy: env.no_proxy ?? env.NO_PROXY ?? '',
  });
}

/** What no answer may repeat of the proxies' logins. */
export const proxySecrets = (env: Environment): readonly string[] =>
  Object.values(proxiesOf(env)).flatMap((url) =>
    url?.password ? secretsOfLogin(decodeURIComponent(url.username), decodeURIComponent(url.password)) : [],
  );

const proxiesOf = (env: Environment) => ({
  http: parseProxy('HTTP_PROXY', env.http_proxy ?? env.HTTP_PROXY),
  https: parseProxy('HTTPS_PROXY', env.https_proxy ?? env.HTTPS_PROXY),
});

function parseProxy(name: string, text = ''): URL | undefined {
  if (text === '') return undefined;
  const whole = text.includes('://') ? text : `http://${text}`;
  const url = URL.canParse(whole) ? new URL(whole) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.hostname === '')
    throw new HttpProxySettingError(
      `${name} is no HTTP proxy: expected http://host:3128 (user:password@ before the host); SOCKS serves smtp_proxy alone`,
    );
  try {
    decodeURIComponent(`${url.username}:${url.password}`);
  } catch {
    throw new HttpProxySettingError(
      `user and password in ${name} are percent-encoded: % stands there as %25, @ as %40`,
    );
  }
  return url;
}

/** Connections to a proxy. undici asks again and again where one is closed before it answers, unless it hears another error. */
function createProxyPool(origin: URL, options: Pool.Options): Pool {
  const pool = new Pool(origin, options);
  const connect = pool.connect.bind(pool) as (params: unknown) => Promise<Dispatcher.ConnectData>;
  const name = `proxy ${origin.origin}`;
  async function tunnel(params: unknown): Promise<Dispatcher.ConnectData> {
    const answer = await connect(params).catch((error: NodeJS.ErrnoException) => {
      throw error.code === 'UND_ERR_DESTROYED' || error.code === 'UND_ERR_CLOSED'
        ? error
        : new HttpProxyError('PROXY_UNREACHABLE', `${name} ${describe(error)}`);
    });
    if (answer.statusCode === 200) return answer;
    answer.socket.on('error', () => {}).destroy();
    throw new HttpProxyError('PROXY_REFUSED', `${name} answered HTTP ${answer.statusCode}`);
  }
  pool.connect = tunnel as typeof pool.connect;
  return pool;
}

function describe({ code, name }: NodeJS.ErrnoException): string {
  if (name === 'HTTPParserError') return 'is no HTTP proxy';
  switch (code) {
    case 'UND_ERR_HEADERS_TIMEOUT':
      return 'made no connection in time';
    case 'UND_ERR_SOCKET':
    case 'ECONNRESET':
    case 'EPIPE':
      return 'closed the connection';
    case 'UND_ERR_CONNECT_TIMEOUT':
      return 'cannot be reached (ETIMEDOUT)';
    default:
      return `cannot be reached (${code ?? 'no connection'})`;
  }
}
