/** Proxies for SMTP as an operator writes them. In: a URL. Out: `SmtpProxy`. Errors never quote the text: it may hold a password. Pure. */
import type { SmtpProxy } from './account.ts';
import { Secret } from './credential.ts';
import { isParsed } from './smtp-url.ts';

const DEFAULT_PORTS: Readonly<Record<SmtpProxy['kind'], number>> = { http: 80, socks5: 1080 };
const KINDS: Readonly<Record<string, SmtpProxy['kind']>> = {
  'http:': 'http',
  'socks5:': 'socks5',
  'socks5h:': 'socks5',
};
const FORM = 'expected http://host:3128, socks5://host:1080 (user:password@ before the host) or none';
/** RFC 1929 §2: a length is one octet. */
const MAX_SOCKS_OCTETS = 255;

/** `none`: no proxy, also where the provider or the relay has one. Throws a `SyntaxError`. */
export function parseSmtpProxy(text: string): SmtpProxy | 'none' {
  if (text === 'none') return 'none';
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const kind = url && KINDS[url.protocol];
  if (url === undefined || kind === undefined || url.hostname === '') throw new SyntaxError(FORM);
  if (!['', '/'].includes(url.pathname) || url.search !== '' || url.hash !== '') throw new SyntaxError(FORM);
  const [user, password] = [url.username, url.password].map(decode) as [string, string];
  if (kind === 'socks5' && [user, password].some((part) => Buffer.byteLength(part) > MAX_SOCKS_OCTETS))
    throw new SyntaxError('user and password of a SOCKS proxy have at most 255 octets');
  return {
    kind,
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? DEFAULT_PORTS[kind] : Number(url.port),
    ...(user === '' && password === '' ? {} : { login: { user, password: new Secret(password) } }),
  };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new SyntaxError('user and password are percent-encoded: % stands there as %25, @ as %40');
  }
}

export const isSmtpProxy = isParsed(parseSmtpProxy);

/** The proxy of the setting. */
export function proxyOfSetting(setting: { reveal(): string } | undefined): SmtpProxy | undefined {
  const proxy = setting && parseSmtpProxy(setting.reveal());
  return proxy === 'none' ? undefined : proxy;
}
