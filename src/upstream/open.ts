/**
 * Opens and authenticates one upstream connection. In: an account's endpoint and an access token.
 * Out: an `UpstreamConnection` ready for transactions, or an `UpstreamError` with its verdict.
 * nodemailer's SMTPConnection does DNS, TCP, TLS, EHLO and carries AUTH; then the socket is ours.
 * The one file that knows nodemailer's connection.
 */
import { hostname } from 'node:os';
import type { TLSSocket } from 'node:tls';
import { dnsCache } from 'nodemailer/lib/shared';
import SMTPConnection from 'nodemailer/lib/smtp-connection';
import type { Account, Endpoint } from '../accounts/account.ts';
import { parseReply } from '../protocol/reply-parser.ts';
import type { LossCause, Stage } from '../protocol/verdict.ts';
import { formatXoauth2 } from '../protocol/xoauth2.ts';
import type { AccessToken } from '../tokens/access-token.ts';
import { UpstreamConnection } from './connection.ts';
import { lossCause, lost, UpstreamError } from './failure.ts';

/** Silence during EHLO and AUTH. */
const LOGIN_TIMEOUT_MS = 30_000;

export interface OpenOptions {
  /** EHLO argument; default the host name. */
  readonly heloName?: string | undefined;
  /** Limit of DNS, TCP and TLS together, and of the greeting, ms; a client waits for this at MAIL (RFC 5321 §4.5.3.2.2 gives it 5 min). */
  readonly connectTimeoutMs: number;
  /** CA certificates (PEM) in place of the system's, for tests; NODE_EXTRA_CA_CERTS adds to the system's. */
  readonly ca?: string | undefined;
}

export type OpenConnection = (account: Account, token: AccessToken) => Promise<UpstreamConnection>;

/** What nodemailer puts on its errors. */
interface ConnectionError extends Error {
  readonly code?: string;
  readonly originalCode?: string;
  readonly response?: string;
  /** The step: CONN, EHLO, STARTTLS, AUTH XOAUTH2. */
  readonly command?: string;
}

/** The listeners SMTPConnection has on the socket it hands over. */
interface SocketListeners {
  readonly _onSocketData: () => void;
  readonly _onSocketError: () => void;
  readonly _onSocketClose: () => void;
  readonly _onSocketEnd: () => void;
  readonly _onSocketTimeout: () => void;
  readonly _onConnectionSocketError: () => void;
}

const endpointKey = (e: Endpoint): string => `${e.host}:${e.port}`;

/** A server may echo what it did not understand, and at AUTH that is the token. */
const ECHOED = /[\w+/=.~-]{60,}/g;

/** A refused or failed handshake as an `UpstreamError`; with the reply where the server gave one. */
function handshakeError(error: ConnectionError, stage: Stage, account: string): UpstreamError {
  const reply = typeof error.response === 'string' ? parseReply(error.response) : undefined;
  if (reply !== undefined && reply.code >= 400)
    return new UpstreamError({
      kind: 'reply',
      stage,
      reply: { ...reply, text: reply.text.replace(ECHOED, '[removed]') },
      reused: false,
      account,
    });
  let cause: LossCause = lossCause(error.originalCode ?? error.code);
  if (error.code === 'ETLS' || /certificate|self[- ]signed|altnames|TLS|SSL/i.test(error.message))
    cause = 'tls';
  else if (error.code === 'EDNS') cause = 'dns';
  else if (error.code === 'ETIMEDOUT') cause = 'timeout';
  else if (typeof error.response === 'string') cause = 'garbage';
  // nodemailer puts the server's words behind its own; here they are no SMTP and may be anything.
  const words = error.message.split(/: | response=/)[0] ?? cause;
  return lost(stage, cause, words.slice(0, 200), { reused: false, finalByteSent: false });
}

/** nodemailer closes on 421 without handing the reply on: it is the last thing the server said. */
function withLastReply(error: ConnectionError, last: unknown): ConnectionError {
  if (error.response !== undefined || typeof last !== 'string' || !last.startsWith('421')) return error;
  return Object.assign(error, { response: last });
}

/** Gives the socket its own life: nodemailer no longer listens on it. */
function takeSocket(connection: SMTPConnection): NonNullable<Exclude<SMTPConnection['_socket'], false>> {
  const socket = connection._socket;
  if (!socket) throw new Error('connection closed');
  const own = connection as unknown as SocketListeners;
  socket.removeListener('data', own._onSocketData);
  socket.removeListener('error', own._onSocketError);
  socket.removeListener('error', own._onConnectionSocketError);
  socket.removeListener('close', own._onSocketClose);
  socket.removeListener('end', own._onSocketEnd);
  socket.removeListener('timeout', own._onSocketTimeout);
  socket.setTimeout(0);
  return socket;
}

/** Makes `openConnection`; TLS sessions are kept per endpoint for resumption. */
export function createOpenConnection(options: OpenOptions): OpenConnection {
  const sessions = new Map<string, Buffer>();
  const heloName = options.heloName ?? hostname();

  return async function openConnection(account, token) {
    const { upstream } = account;
    const key = endpointKey(upstream);
    // A reconnect asks DNS afresh; the expired entry stays as the fallback should DNS fail.
    const remembered = dnsCache.get(upstream.host);
    if (remembered !== undefined) remembered.expires = 0;

    const session = sessions.get(key);
    const connection = new SMTPConnection({
      host: upstream.host,
      port: upstream.port,
      secure: upstream.tls === 'implicit',
      requireTLS: upstream.tls === 'starttls',
      name: heloName,
      connectionTimeout: options.connectTimeoutMs,
      greetingTimeout: options.connectTimeoutMs,
      socketTimeout: LOGIN_TIMEOUT_MS,
      logger: false,
      ...(account.localAddress === undefined ? {} : { localAddress: account.localAddress }),
      tls: {
        minVersion: 'TLSv1.2',
        rejectUnauthorized: true,
        ...(options.ca === undefined ? {} : { ca: options.ca }),
        ...(session === undefined ? {} : { session }),
      },
      customAuth: {
        // Always two steps: Gmail refuses an AUTH line of about 1000 octets, and a long token makes one.
        XOAUTH2: async (auth) => {
          let answer = await auth.sendCommand('AUTH XOAUTH2');
          if (answer.status === 334) {
            answer = await auth.sendCommand(formatXoauth2(account.user, token.reveal()));
            // 334 again carries the error as JSON; an empty line asks for the real reply. Never RSET or `*`.
            if (answer.status === 334) answer = await auth.sendCommand('');
          }
          if (answer.status !== 235) throw new Error('XOAUTH2 refused');
        },
      },
    });

    let connected = false;
    try {
      await new Promise<void>((resolve, reject) => {
        connection.once('error', reject);
        connection.once('end', () => reject(new Error('connection closed')));
        connection.connect((error?: Error | null) => {
          if (error) return reject(error);
          connected = true;
          connection.login({ user: account.user, method: 'XOAUTH2', oauth2: {} as never }, (refused) =>
            refused ? reject(refused) : resolve(),
          );
        });
      });
      const socket = takeSocket(connection);
      // The first tickets of TLS 1.3 came before there was anybody to hear of them.
      const ticket = (socket as TLSSocket).getSession();
      if (ticket !== undefined) sessions.set(key, ticket);
      (socket as TLSSocket).on('session', (later) => sessions.set(key, later));
      const taken = new UpstreamConnection(socket, account.id);
      // EHLO again: what the server offers after authentication (nodemailer does not say).
      const reply = await taken.ehlo(heloName, LOGIN_TIMEOUT_MS);
      if (reply.code !== 250) {
        taken.destroy();
        throw new UpstreamError({ kind: 'reply', stage: 'ehlo', reply, reused: false, account: account.id });
      }
      return taken;
    } catch (error) {
      // A late error of a connection given up must not become an unhandled 'error' event.
      connection.on('error', () => {});
      connection.close();
      if (error instanceof UpstreamError) throw error;
      const failed = withLastReply(error as ConnectionError, connection.lastServerResponse);
      const stage: Stage = connected
        ? 'auth'
        : failed.command === 'EHLO' || failed.command === 'STARTTLS'
          ? 'ehlo'
          : failed.response === undefined
            ? 'connect'
            : 'greeting';
      throw handshakeError(failed, stage, account.id);
    }
  };
}
