/**
 * Opens and authenticates one upstream connection. In: an account's endpoint and an access token.
 * Out: an `UpstreamConnection` ready for transactions, or an `UpstreamError` with its verdict, within
 * one absolute limit. The dialer reaches an address; nodemailer's SMTPConnection does TLS, EHLO and
 * carries AUTH on that stream; then the stream is ours. The one file that knows nodemailer's connection.
 */
import { hostname } from 'node:os';
import type { TLSSocket } from 'node:tls';
import SMTPConnection from 'nodemailer/lib/smtp-connection';
import type { Account } from '../accounts/account.ts';
import { type Clock, systemClock } from '../clock.ts';
import { addressLiteral, isDottedHostName } from '../protocol/helo-name.ts';
import { createWatch, type Mask } from '../protocol/masking.ts';
import type { Reply } from '../protocol/reply.ts';
import { parseReply } from '../protocol/reply-parser.ts';
import type { LossCause, Stage } from '../protocol/verdict.ts';
import { formatXoauth2 } from '../protocol/xoauth2.ts';
import type { AccessToken } from '../tokens/access-token.ts';
import { UpstreamConnection } from './connection.ts';
import { createDialer, type Dial, type Dialed } from './dial.ts';
import { lossCause, lost, UpstreamError } from './failure.ts';

/** A provider that is well needs one second. */
const DEFAULT_LOGIN_MS = 15_000;
const DEFAULT_SILENT_ADDRESS_MS = 5_000;
/** nodemailer's own limits; the absolute limit ends everything earlier. Node's timers reach no further. */
const NO_LIMIT_MS = 2 ** 31 - 1;

export interface OpenOptions {
  /** EHLO argument where the account names none; default this host's name if it has a dot, else the address literal of the socket. */
  readonly heloName?: string | undefined;
  /** Limit of DNS, TCP, TLS and the greeting together, ms; a client waits for this at MAIL (RFC 5321 §4.5.3.2.2 gives it 5 min). */
  readonly connectTimeoutMs: number;
  /** What EHLO and AUTH may take beyond that, ms; default 15,000. The sum is an absolute limit: octets that trickle in do not extend it. */
  readonly loginTimeoutMs?: number;
  /** Where a host has further addresses, one that has not greeted after this is left for the next, ms; default 5,000. */
  readonly silentAddressMs?: number;
  /** CA certificates (PEM) in place of the system's, for tests; NODE_EXTRA_CA_CERTS adds to the system's. */
  readonly ca?: string | undefined;
  /** Reaches the server; default TCP. */
  readonly dial?: Dial;
  readonly clock?: Clock;
  readonly random?: () => number;
}

/** Sees an attempt step by step: for people who look for what is wrong. */
export interface OpenObserver {
  resolved?(addresses: readonly string[]): void;
  connected?(address: string): void;
  secured?(socket: TLSSocket): void;
  /** What the server offers before AUTH, one extension an entry. */
  greeted?(extensions: readonly string[]): void;
  /** A line of the dialogue, who said it; credentials are left out. */
  line?(who: 'C' | 'S', text: string): void;
}

/** `signal` ends the attempt at once, with its reason. `mask` takes out of all the server says what must not be told; default the token. */
export type OpenConnection = (
  account: Account,
  token: AccessToken,
  how?: { readonly observer?: OpenObserver; readonly signal?: AbortSignal; readonly mask?: Mask },
) => Promise<UpstreamConnection>;

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

/** The absolute limit of an attempt is over. */
class OutOfTime extends Error {
  override readonly name = 'OutOfTime';
}

/** A server may echo what it did not understand, and at AUTH that is the token. */
const ECHOED = /[\w+/=.~-]{60,}/g;

/** What the server said, as an `UpstreamError`. */
const refused = (stage: Stage, reply: Reply, account: string): UpstreamError =>
  new UpstreamError({
    kind: 'reply',
    stage,
    reply: { ...reply, text: reply.text.replace(ECHOED, '[removed]') },
    reused: false,
    account,
  });

/** A refused or failed handshake as an `UpstreamError`; with the reply where the server gave one. */
function handshakeError(error: ConnectionError, stage: Stage, account: string, mask: Mask): UpstreamError {
  const reply = typeof error.response === 'string' ? parseReply(error.response, mask) : undefined;
  if (reply !== undefined && reply.code >= 400) return refused(stage, reply, account);
  let cause: LossCause = lossCause(error.originalCode ?? error.code);
  if (error instanceof OutOfTime) cause = 'timeout';
  else if (error.code === 'ETLS' || /certificate|self[- ]signed|altnames|TLS|SSL/i.test(error.message))
    cause = 'tls';
  else if (error.code === 'ETIMEDOUT') cause = 'timeout';
  else if (typeof error.response === 'string') cause = 'garbage';
  // nodemailer puts the server's words behind its own; here they are no SMTP and may be anything.
  const words = error.message.split(/: | response=/)[0] ?? cause;
  return lost(stage, cause, mask(words.slice(0, 200)), { reused: false, finalByteSent: false }, error);
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

/** nodemailer's log, of which only the lines of the dialogue are wanted; it leaves credentials out itself. */
function dialogueLog(line: NonNullable<OpenObserver['line']>, mask: Mask): Record<string, unknown> {
  const hear = (entry: { readonly tnx?: string }, text: unknown): void => {
    if (entry.tnx === 'client') line('C', String(text).replace('/* secret */', '(access token)'));
    else if (entry.tnx === 'server')
      for (const part of String(text).split(/\r?\n/)) line('S', mask(part).replace(ECHOED, '[removed]'));
  };
  const drop = (): void => {};
  return { level: drop, trace: drop, debug: hear, info: drop, warn: drop, error: drop, fatal: drop };
}

/** Makes `openConnection`; TLS sessions are kept per endpoint for resumption. */
export function createOpenConnection(options: OpenOptions): OpenConnection {
  const {
    clock = systemClock,
    random = Math.random,
    connectTimeoutMs,
    loginTimeoutMs = DEFAULT_LOGIN_MS,
    silentAddressMs = DEFAULT_SILENT_ADDRESS_MS,
  } = options;
  const dial = options.dial ?? createDialer({ clock, random });
  const sessions = new Map<string, Buffer>();
  const ownName = options.heloName ?? (isDottedHostName(hostname()) ? hostname() : undefined);

  /** One stream, from TLS to the last EHLO. `signal` ends it with its reason; `greeted` hears that the server is one. */
  async function authenticate(
    account: Account,
    token: AccessToken,
    dialed: Dialed,
    observer: OpenObserver,
    signal: AbortSignal,
    mask: Mask,
    greeted: () => void,
  ): Promise<UpstreamConnection> {
    const { upstream } = account;
    const { stream } = dialed;
    const key = `${upstream.host}:${upstream.port}`;
    const session = sessions.get(key);
    const heloName = account.heloName ?? ownName ?? addressLiteral(stream.localAddress ?? '127.0.0.1');
    const connection = new SMTPConnection({
      connection: stream,
      host: upstream.host,
      port: upstream.port,
      secure: upstream.tls === 'implicit',
      requireTLS: upstream.tls === 'starttls',
      name: heloName,
      connectionTimeout: NO_LIMIT_MS,
      greetingTimeout: NO_LIMIT_MS,
      socketTimeout: NO_LIMIT_MS,
      socketCloseTimeout: 0,
      ...(observer.line === undefined
        ? { logger: false }
        : { logger: dialogueLog(observer.line, mask) as never, debug: true }),
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
    let taken: UpstreamConnection | undefined;
    let endAttempt = (): void => {};
    try {
      await new Promise<void>((resolve, reject) => {
        endAttempt = () => {
          taken?.destroy();
          reject(signal.reason);
        };
        signal.addEventListener('abort', endAttempt);
        if (signal.aborted) return endAttempt();
        connection.once('error', reject);
        connection.once('end', () => reject(new Error('connection closed')));
        connection.connect((error?: Error | null) => {
          if (error) return reject(error);
          connected = true;
          dialed.judged(true);
          greeted();
          const socket = connection._socket;
          if (socket) observer.secured?.(socket as TLSSocket);
          observer.greeted?.(extensionsOf(connection.lastServerResponse).map(mask));
          connection.login({ user: account.user, method: 'XOAUTH2', oauth2: {} as never }, (error) =>
            error ? reject(error) : resolve(),
          );
        });
      });
      const socket = takeSocket(connection);
      // The first tickets of TLS 1.3 came before there was anybody to hear of them.
      const ticket = (socket as TLSSocket).getSession();
      if (ticket !== undefined) sessions.set(key, ticket);
      (socket as TLSSocket).on('session', (later) => sessions.set(key, later));
      taken = new UpstreamConnection(socket, account.id, { clock, random });
      // EHLO again: what the server offers after authentication (nodemailer does not say).
      const reply = await taken.ehlo(heloName, loginTimeoutMs).catch((error: unknown) => {
        throw signal.aborted ? signal.reason : error;
      });
      if (reply.code !== 250) throw refused('ehlo', { ...reply, text: mask(reply.text) }, account.id);
      taken.mask = mask;
      return taken;
    } catch (error) {
      taken?.destroy();
      // A late error of a connection given up must not become an unhandled 'error' event.
      connection.on('error', () => {});
      connection.close();
      stream.destroy();
      if (error instanceof UpstreamError) throw error;
      const failed = withLastReply(error as ConnectionError, connection.lastServerResponse);
      const isGreeted = typeof connection.lastServerResponse === 'string';
      const stage: Stage = connected
        ? 'auth'
        : failed.command === 'EHLO' ||
            failed.command === 'STARTTLS' ||
            (isGreeted && failed.response === undefined)
          ? 'ehlo'
          : 'greeting';
      if (!connected) dialed.judged(false);
      throw handshakeError(failed, stage, account.id, mask);
    } finally {
      signal.removeEventListener('abort', endAttempt);
    }
  }

  return async function openConnection(
    account,
    token,
    { observer = {}, signal: outer, mask = createWatch([token.reveal()]) } = {},
  ) {
    const wholeMs = connectTimeoutMs + loginTimeoutMs;
    const startedAt = clock.monotonic();
    const leftMs = (): number => Math.max(0, wholeMs - (clock.monotonic() - startedAt));
    for (;;) {
      const dialed = await limited(clock, Math.min(connectTimeoutMs, leftMs()), outer, (signal) =>
        dial({ ...account.upstream, localAddress: account.localAddress }, signal, observer),
      ).catch((error: ConnectionError) => {
        throw handshakeError(error, 'connect', account.id, mask);
      });
      observer.connected?.(dialed.address);
      const greetingMs = Math.min(dialed.hasOthers ? silentAddressMs : connectTimeoutMs, leftMs());
      try {
        return await limited(clock, greetingMs, outer, (signal, extend) =>
          authenticate(account, token, dialed, observer, signal, mask, () => extend(leftMs())),
        );
      } catch (error) {
        const event = error instanceof UpstreamError ? error.event : undefined;
        const isSilent = event?.kind === 'lost' && event.stage !== 'auth';
        if (!isSilent || !dialed.hasOthers || leftMs() === 0 || outer?.aborted === true) throw error;
      }
    }
  };
}

/** Runs `step` with a signal that aborts with `outer`, and after `ms` or what `extend` gives from then on. */
async function limited<T>(
  clock: Clock,
  ms: number,
  outer: AbortSignal | undefined,
  step: (signal: AbortSignal, extend: (ms: number) => void) => Promise<T>,
): Promise<T> {
  const abort = new AbortController();
  const end = (): void => abort.abort(new OutOfTime('no answer in time'));
  const follow = (): void => abort.abort(outer?.reason);
  outer?.addEventListener('abort', follow);
  if (outer?.aborted === true) follow();
  let cancel = clock.after(ms, end);
  try {
    return await step(abort.signal, (more) => {
      cancel();
      cancel = clock.after(more, end);
    });
  } finally {
    cancel();
    outer?.removeEventListener('abort', follow);
  }
}

/** The extensions of an EHLO reply as nodemailer keeps it: all lines but the first, codes taken off. */
function extensionsOf(reply: string | false): readonly string[] {
  if (typeof reply !== 'string') return [];
  return reply
    .split(/\r?\n/)
    .slice(1)
    .map((line) => line.replace(/^\d+[ -]/, '').trim());
}
