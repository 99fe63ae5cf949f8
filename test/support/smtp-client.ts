/** A line-oriented SMTP client for tests: sends what it is told, octet for octet, and reads replies. */
import { connect, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { within } from './wait-for.ts';

/** One reply, multi-line ones joined. */
export interface ClientReply {
  readonly code: number;
  /** Lines as they came, codes included. */
  readonly lines: readonly string[];
  /** All of it, lines joined with LF. */
  readonly text: string;
}

export interface SmtpClient {
  /** Writes octets as they are; resolves when the kernel has them. */
  raw(bytes: string | Buffer): Promise<void>;
  /** The next reply; rejects when none comes in time (default 10 s) or the server has closed. */
  reply(timeoutMs?: number): Promise<ClientReply>;
  /** Sends a line (CRLF added) and reads its reply. */
  send(line: string): Promise<ClientReply>;
  /** The same, and fails unless the reply begins with `code`. */
  expect(line: string | undefined, code: string | number): Promise<ClientReply>;
  /** Sends a body with dot-stuffing and the final dot, and reads the verdict. */
  body(bytes: string | Buffer): Promise<ClientReply>;
  /** STARTTLS and the handshake; `ca` as PEM. */
  startTls(ca?: string): Promise<void>;
  /** AUTH XOAUTH2 in two steps; the final reply, with Gmail's challenge answered. */
  xoauth2(user: string, token: string): Promise<ClientReply>;
  /** Resolves when the server has closed the connection; how. */
  closed(timeoutMs?: number): Promise<'end' | 'error'>;
  readonly socket: Socket;
  /** FIN without a word. */
  end(): void;
  /** RST. */
  reset(): void;
}

export interface SmtpClientOptions {
  readonly host?: string;
  readonly tls?: boolean;
  readonly ca?: string;
}

/** The blob of XOAUTH2, base64. */
export const xoauth2Blob = (user: string, token: string): string =>
  Buffer.from(`user=${user}\x01auth=Bearer ${token}\x01\x01`).toString('base64');

/** Dot-stuffed, CRLF at the end made sure of, final dot included. */
export function dotStuffed(body: string | Buffer): Buffer {
  const text = Buffer.from(body).toString('latin1');
  const ended = text === '' || text.endsWith('\r\n') ? text : `${text}\r\n`;
  return Buffer.from(`${ended.replace(/(^|\r\n)\./g, '$1..')}.\r\n`, 'latin1');
}

/** Connects; the greeting is the first `reply()`. */
export async function smtpClient(port: number, options: SmtpClientOptions = {}): Promise<SmtpClient> {
  const host = options.host ?? '127.0.0.1';
  const ca = options.ca === undefined ? {} : { ca: options.ca };
  const tcp =
    options.tls === true
      ? tlsConnect({ host, port, servername: 'localhost', ...ca })
      : connect({ host, port });
  let socket: Socket = tcp;
  let buffered = '';
  let lines: string[] = [];
  const replies: ClientReply[] = [];
  const waiting: { resolve: (r: ClientReply) => void; reject: (e: Error) => void }[] = [];
  let over: 'end' | 'error' | undefined;
  const overWaiters: (() => void)[] = [];

  const finish = (how: 'end' | 'error'): void => {
    over ??= how;
    for (const w of waiting.splice(0)) w.reject(new Error(`server closed the connection (${over})`));
    for (const wake of overWaiters.splice(0)) wake();
  };
  const onData = (chunk: Buffer): void => {
    buffered += chunk.toString('utf8');
    for (let lf = buffered.indexOf('\n'); lf >= 0; lf = buffered.indexOf('\n')) {
      const line = buffered.slice(0, lf).replace(/\r$/, '');
      buffered = buffered.slice(lf + 1);
      lines.push(line);
      if (/^\d{3}-/.test(line)) continue;
      const reply: ClientReply = { code: Number(line.slice(0, 3)), lines, text: lines.join('\n') };
      lines = [];
      const waiter = waiting.shift();
      if (waiter === undefined) replies.push(reply);
      else waiter.resolve(reply);
    }
  };
  const listen = (to: Socket): void => {
    to.on('data', onData)
      .on('end', () => finish('end'))
      .on('close', () => finish('end'))
      .on('error', () => finish('error'));
  };
  listen(tcp);
  await new Promise<void>((resolve, reject) => {
    tcp.once(options.tls === true ? 'secureConnect' : 'connect', resolve);
    tcp.once('error', reject);
  });
  tcp.setNoDelay(true);

  const client: SmtpClient = {
    raw: (bytes) =>
      new Promise((resolve) => {
        if (!socket.writable) resolve();
        else socket.write(bytes, () => resolve());
      }),
    reply: (timeoutMs = 10_000) => {
      const ready = replies.shift();
      if (ready !== undefined) return Promise.resolve(ready);
      if (over !== undefined) return Promise.reject(new Error(`server closed the connection (${over})`));
      const next = new Promise<ClientReply>((resolve, reject) => waiting.push({ resolve, reject }));
      return within(next, timeoutMs, 'reply');
    },
    async send(line) {
      await client.raw(`${line}\r\n`);
      return client.reply();
    },
    async expect(line, code) {
      const reply = line === undefined ? await client.reply() : await client.send(line);
      if (!reply.text.startsWith(String(code))) {
        throw new Error(`${line ?? 'greeting'} was answered ${JSON.stringify(reply.text)}, wanted ${code}`);
      }
      return reply;
    },
    async body(bytes) {
      await client.raw(dotStuffed(bytes));
      return client.reply(60_000);
    },
    async startTls(pem) {
      await client.expect('STARTTLS', 220);
      socket.removeAllListeners('data');
      const secure = tlsConnect({
        socket,
        servername: 'localhost',
        ...(pem === undefined ? {} : { ca: pem }),
      });
      listen(secure);
      await new Promise<void>((resolve, reject) => {
        secure.once('secureConnect', resolve);
        secure.once('error', reject);
      });
      socket = secure;
    },
    async xoauth2(user, token) {
      await client.expect('AUTH XOAUTH2', 334);
      const reply = await client.send(xoauth2Blob(user, token));
      return reply.code === 334 ? client.send('') : reply;
    },
    closed: (timeoutMs = 10_000) => {
      if (over !== undefined) return Promise.resolve(over);
      const gone = new Promise<'end' | 'error'>((resolve) => overWaiters.push(() => resolve(over ?? 'end')));
      return within(gone, timeoutMs, 'close');
    },
    get socket() {
      return socket;
    },
    end: () => void socket.end(),
    reset: () => {
      // A socket that was TLS from the start, or is closing, cannot send a reset of its own.
      if (options.tls === true || over !== undefined) socket.destroy();
      else tcp.resetAndDestroy();
    },
  };
  return client;
}
