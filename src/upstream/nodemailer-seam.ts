/**
 * nodemailer's SMTPConnection, and what is used of its insides; the one file that imports it. It does TLS, EHLO
 * and carries AUTH on a stream that is given to it; then the socket is ours. Each function says what breaks if
 * the library changes; nodemailer-seam.test.ts fails then.
 */
import type { Socket } from 'node:net';
import { createSecureContext, type SecureContext } from 'node:tls';
import SMTPConnection from 'nodemailer/lib/smtp-connection';
import { orMake } from '../or-make.ts';

/** What nodemailer puts on its errors. Other names: a refusal would be told as a lost connection, without its reply. */
export interface HandshakeError extends Error {
  readonly code?: string;
  readonly originalCode?: string;
  readonly response?: string;
  /** The step: CONN, EHLO, STARTTLS, AUTH XOAUTH2. */
  readonly command?: string;
}

export type Handshake = SMTPConnection;

/** nodemailer's own limits; an absolute one ends everything earlier. Node's timers reach no further. */
const NO_LIMIT_MS = 2 ** 31 - 1;

export interface HandshakeOptions {
  readonly stream: Socket;
  readonly host: string;
  readonly port: number;
  readonly tls: 'starttls' | 'implicit' | 'none';
  readonly heloName: string;
  readonly ca?: string | undefined;
  /** TLS session to resume. */
  readonly session?: Buffer | undefined;
  /** Hears the lines of the dialogue, credentials left out by nodemailer itself. */
  readonly line?: ((who: 'C' | 'S', text: string) => void) | undefined;
  /** SASL, by commands one after the other. Rejects where it is refused. */
  readonly authenticate: (send: (line: string) => Promise<{ readonly status: number }>) => Promise<void>;
}

const contexts = new Map<string | undefined, SecureContext>();
/** One for all connections: Node would make one for each, a third of what its TLS costs. */
const contextOf = (ca: string | undefined): SecureContext =>
  orMake(contexts, ca, () =>
    createSecureContext({ minVersion: 'TLSv1.2', ...(ca === undefined ? {} : { ca }) }),
  );

/** Begins nothing yet: `connect`, then `login`. */
export function createHandshake(options: HandshakeOptions): Handshake {
  const { stream, host, port, tls, heloName, ca, session, line } = options;
  return new SMTPConnection({
    connection: stream,
    host,
    port,
    secure: tls === 'implicit',
    requireTLS: tls === 'starttls',
    ignoreTLS: tls === 'none',
    name: heloName,
    connectionTimeout: NO_LIMIT_MS,
    greetingTimeout: NO_LIMIT_MS,
    socketTimeout: NO_LIMIT_MS,
    socketCloseTimeout: 0,
    ...(line === undefined ? { logger: false } : { logger: dialogueLog(line) as never, debug: true }),
    tls: {
      secureContext: contextOf(ca),
      rejectUnauthorized: true,
      ...(session === undefined ? {} : { session }),
    },
    customAuth: { XOAUTH2: (auth) => options.authenticate((text) => auth.sendCommand(text)) },
  });
}

/** Runs `authenticate`. Without an `oauth2` nodemailer would ask for a password before it looks at `customAuth`. */
export const login = (handshake: Handshake, user: string, done: (error?: Error | null) => void): void =>
  handshake.login({ user, method: 'XOAUTH2', oauth2: {} as never }, done);

/** nodemailer closes on 421 without handing the reply on: it is the last thing the server said. */
export function withLastReply(error: HandshakeError, handshake: Handshake): HandshakeError {
  const last: unknown = handshake.lastServerResponse;
  if (error.response !== undefined || typeof last !== 'string' || !last.startsWith('421')) return error;
  return Object.assign(error, { response: last });
}

/** Whether the server has said anything at all. */
export const hasGreeted = (handshake: Handshake): boolean => typeof handshake.lastServerResponse === 'string';

/** The extensions of the EHLO reply, as nodemailer keeps it as the last that was said: all lines but the first, codes taken off. */
export function extensionsOf({ lastServerResponse }: Handshake): readonly string[] {
  if (typeof lastServerResponse !== 'string') return [];
  return lastServerResponse
    .split(/\r?\n/)
    .slice(1)
    .map((line) => line.replace(/^\d+[ -]/, '').trim());
}

/** The listeners SMTPConnection has on the socket it hands over, and for what. */
const LISTENERS = [
  ['data', '_onSocketData'],
  ['error', '_onSocketError'],
  ['error', '_onConnectionSocketError'],
  ['close', '_onSocketClose'],
  ['end', '_onSocketEnd'],
  ['timeout', '_onSocketTimeout'],
] as const;

/** What it speaks on now: after its EHLO the TLS socket. Another name: nothing is told of the certificate, and `takeSocket` throws. */
export const socketOf = (handshake: Handshake): Handshake['_socket'] => handshake._socket;

/** Gives the socket its own life: nodemailer no longer listens on it. A listener left there would read replies to our transactions as its own and close the connection over them. */
export function takeSocket(handshake: Handshake): NonNullable<Exclude<Handshake['_socket'], false>> {
  const socket = socketOf(handshake);
  if (!socket) throw new Error('connection closed');
  const own = handshake as unknown as Readonly<Record<string, () => void>>;
  for (const [event, name] of LISTENERS) {
    const listener = own[name];
    if (typeof listener !== 'function') throw new Error(`nodemailer has no ${name} any more`);
    socket.removeListener(event, listener);
  }
  socket.setTimeout(0);
  return socket;
}

/** nodemailer's log, of which only the lines of the dialogue are wanted. */
function dialogueLog(line: (who: 'C' | 'S', text: string) => void): Record<string, unknown> {
  const hear = (entry: { readonly tnx?: string }, text: unknown): void => {
    if (entry.tnx === 'client') line('C', String(text).replace('/* secret */', '(access token)'));
    else if (entry.tnx === 'server') for (const part of String(text).split(/\r?\n/)) line('S', part);
  };
  const drop = (): void => {};
  return { level: drop, trace: drop, debug: hear, info: drop, warn: drop, error: drop, fatal: drop };
}
