/**
 * A tunnel to a server through a proxy. In: a stream to the proxy. Out: the same stream, with the server at its
 * other end and every octet of it still to be read. HTTP CONNECT (RFC 9110 §9.3.6) by Node's HTTP client, SOCKS
 * (RFC 1928, RFC 1929) by `socks`; the name of the server is resolved by the proxy. No error holds the login.
 */
import { request } from 'node:http';
import { isIPv6, type Socket } from 'node:net';
import { SocksClient } from 'socks';
import type { SmtpProxy } from '../accounts/account.ts';

/** The proxy cannot be reached, or makes no tunnel. Words of ours alone. */
export class ProxyError extends Error {
  override readonly name = 'ProxyError';
}

export interface TunnelTarget {
  readonly host: string;
  readonly port: number;
}

const bracketed = (host: string): string => (isIPv6(host) ? `[${host}]` : host);
/** For people, without the login. */
export const formatProxy = ({ kind, host, port }: SmtpProxy): string =>
  `${kind}://${bracketed(host)}:${port}`;

/** Whoever ends the wait destroys the stream. Rejects with a `ProxyError`. */
export function openTunnel(stream: Socket, proxy: SmtpProxy, target: TunnelTarget): Promise<void> {
  return proxy.kind === 'http' ? connectByHttp(stream, proxy, target) : connectBySocks(stream, proxy, target);
}

function connectByHttp(stream: Socket, proxy: SmtpProxy, target: TunnelTarget): Promise<void> {
  const authority = `${bracketed(target.host)}:${target.port}`;
  const { login } = proxy;
  const basic = login && Buffer.from(`${login.user}:${login.password.reveal()}`).toString('base64');
  return new Promise((resolve, reject) => {
    const asked = request({
      method: 'CONNECT',
      path: authority,
      headers: {
        host: authority,
        ...(basic === undefined ? {} : { 'proxy-authorization': `Basic ${basic}` }),
      },
      createConnection: () => stream,
    });
    asked.once('connect', ({ statusCode = 0 }, _socket, head) => {
      if (statusCode < 200 || statusCode > 299)
        return reject(new ProxyError(`${formatProxy(proxy)} answered HTTP ${statusCode}`));
      // The server may have spoken already.
      if (head.length > 0) stream.unshift(head);
      resolve();
    });
    asked.once('response', () => reject(new ProxyError(`${formatProxy(proxy)} is no HTTP proxy`)));
    asked.on('error', (error: NodeJS.ErrnoException) =>
      reject(
        new ProxyError(
          error.code?.startsWith('HPE_') === true
            ? `${formatProxy(proxy)} is no HTTP proxy`
            : `${formatProxy(proxy)} closed the connection`,
        ),
      ),
    );
    asked.end();
  });
}

function connectBySocks(stream: Socket, proxy: SmtpProxy, target: TunnelTarget): Promise<void> {
  const { host, port, login } = proxy;
  return new Promise((resolve, reject) => {
    const client = new SocksClient({
      proxy: {
        host,
        port,
        type: 5,
        ...(login === undefined ? {} : { userId: login.user, password: login.password.reveal() }),
      },
      command: 'connect',
      destination: target,
      // The end of the wait is the dialer's; this timer runs on and holds the stream, whatever comes.
      timeout: 5 * 60_000,
    });
    client.once('established', () =>
      takeBack(stream, () => {
        // Its end came while nobody listened, and comes but once.
        if (stream.destroyed) reject(new ProxyError(`${formatProxy(proxy)} closed the connection`));
        else resolve();
      }),
    );
    // Its error carries the options, and with them the password: nothing but the words goes on.
    client.once('error', (error) =>
      reject(new ProxyError(`${formatProxy(proxy)} ${describeRefusal(error.message)}`)),
    );
    client.connect(stream);
  });
}

/** The library's words for what the proxy said (RFC 1928 §3, §6). */
function describeRefusal(words: string): string {
  if (/authentication failed/i.test(words)) return 'refused the login';
  if (/socks version/i.test(words)) return 'is no SOCKS5 proxy';
  if (/no accepted authentication type|initial handshake/i.test(words)) return 'wants another login';
  const [, said] = /rejected connection - \(?(\w+)\)?/i.exec(words) ?? [];
  if (said === 'undefined') return 'is no SOCKS5 proxy';
  return said === undefined ? 'closed the connection' : `made no connection (${said})`;
}

/**
 * The library emits what came with the proxy's last answer in the next turn and lets the stream flow then: a
 * greeting that nobody listens to yet would be lost. It is put back, and the stream stands as a new one does.
 */
function takeBack(stream: Socket, done: () => void): void {
  const early: Buffer[] = [];
  const keep = (chunk: Buffer): void => void early.push(chunk);
  stream.on('data', keep);
  setImmediate(() => {
    stream.removeListener('data', keep);
    const wait = (): void => {};
    // A listener of this kind that comes and goes leaves a stream neither flowing nor paused.
    stream.on('readable', wait);
    stream.removeListener('readable', wait);
    if (early.length > 0) stream.unshift(Buffer.concat(early));
    process.nextTick(done);
  });
}
