/**
 * Opens and authenticates one upstream connection. In: an account's endpoint and an access token.
 * Out: an `UpstreamConnection` ready for transactions, or an `UpstreamError` with its verdict, within
 * one absolute limit. The dialer reaches an address; nodemailer's SMTPConnection does TLS, EHLO and
 * carries AUTH on that stream; then the stream is ours.
 */
import { hostname } from 'node:os';
import type { TLSSocket } from 'node:tls';
import type { Account, Endpoint, SmtpProxy } from '../accounts/account.ts';
import { type Clock, systemClock } from '../clock.ts';
import { parseCapabilities } from '../protocol/capabilities.ts';
import { addressLiteral, isDottedHostName } from '../protocol/helo-name.ts';
import { createWatch, type Mask, secretsOfLogin } from '../protocol/masking.ts';
import type { Reply } from '../protocol/reply.ts';
import { parseReply } from '../protocol/reply-parser.ts';
import { chooseMechanism } from '../protocol/sasl.ts';
import { cleanText } from '../protocol/text.ts';
import type { LossCause, Stage } from '../protocol/verdict.ts';
import type { AccessToken } from '../tokens/access-token.ts';
import { UpstreamConnection } from './connection.ts';
import { createDialer, type Dial, type Dialed, within } from './dial.ts';
import { lossCause, lost, UpstreamError } from './failure.ts';
import {
  createHandshake,
  extensionsOf,
  type HandshakeError,
  hasGreeted,
  login,
  socketOf,
  takeSocket,
  withLastReply,
} from './nodemailer-seam.ts';
import { formatProxy } from './proxy.ts';
import { TlsSessions } from './tls-sessions.ts';

/** A provider that is well needs one second. */
const DEFAULT_LOGIN_MS = 15_000;
const DEFAULT_SILENT_ADDRESS_MS = 5_000;

export interface OpenOptions {
  /** EHLO argument where the account names none; default this host's name if it has a dot, else the address literal of the socket. */
  readonly heloName?: string | undefined;
  /** Limit of DNS and TCP, and another of TLS and greeting, ms each; a client waits for both at MAIL (RFC 5321 §4.5.3.2.2 gives it 5 min). */
  readonly connectTimeoutMs: number;
  /** All of it, up to the login, may take so much longer than one of them, ms; default 15,000. Octets that trickle in do not extend it. */
  readonly loginTimeoutMs?: number;
  /** Where a host has further addresses, one that has not greeted after this is left for the next, ms; default 5,000. */
  readonly silentAddressMs?: number;
  /** Where an account names none. */
  readonly proxy?: SmtpProxy | undefined;
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
  /** `path`: where the stream leads. */
  connected?(path: string): void;
  secured?(socket: TLSSocket): void;
  /** What the server offers before AUTH, one extension an entry. */
  greeted?(extensions: readonly string[]): void;
  /** A line of the dialogue, who said it; credentials are left out. */
  line?(who: 'C' | 'S', text: string): void;
}

/** `signal` ends the attempt at once, with its reason. `mask` takes out of all the server says what must not be told; default the token. */
interface OpenHow {
  readonly observer?: OpenObserver;
  readonly signal?: AbortSignal;
  readonly mask?: Mask;
}

/** `token`: while it is still to come all before AUTH is done; where it does not come the attempt ends with its error. */
export type OpenConnection = (
  account: Account,
  token: AccessToken | Promise<AccessToken>,
  how?: OpenHow,
) => Promise<UpstreamConnection>;

/** A server, also one that is spoken to without a login; `none`: in clear text. */
export interface OpenTarget extends Pick<Account, 'id' | 'heloName' | 'localAddress' | 'smtpProxy'> {
  readonly upstream: Pick<Endpoint, 'host' | 'port'> & { readonly tls: Endpoint['tls'] | 'none' };
}

interface Login {
  readonly user: string;
  readonly token: AccessToken | Promise<AccessToken>;
}

/** The absolute limit of an attempt is over. */
class OutOfTime extends Error {
  override readonly name = 'OutOfTime';
}

/** A server may echo what it did not understand, and at AUTH that is the token. */
const ECHOED = /[\w+/=.~-]{60,}/g;
const withoutEcho = (text: string): string => text.replace(ECHOED, '[removed]');

/** What the server said, as an `UpstreamError`. */
const refused = (stage: Stage, reply: Reply, account: string): UpstreamError =>
  new UpstreamError({
    kind: 'reply',
    stage,
    reply: { ...reply, text: withoutEcho(reply.text) },
    account,
  });

/** The words the book of causes knows this by. */
const noMechanism = (offered: readonly string[], account: string): UpstreamError =>
  refused(
    'auth',
    {
      code: 504,
      enhanced: '5.7.4',
      text: `no XOAUTH2 or OAUTHBEARER offered, but ${cleanText(offered.join(' '), 100) || 'no AUTH at all'}`,
    },
    account,
  );

/** A refused or failed handshake as an `UpstreamError`; with the reply where the server gave one. */
function handshakeError(error: HandshakeError, stage: Stage, account: string, mask: Mask): UpstreamError {
  const reply = typeof error.response === 'string' ? parseReply(error.response, mask) : undefined;
  if (reply !== undefined && reply.code >= 400) return refused(stage, reply, account);
  let cause: LossCause = lossCause(error.originalCode ?? error.code);
  if (error instanceof OutOfTime) cause = 'timeout';
  // Before TLS is spoken these words are parts of names.
  else if (
    error.code === 'ETLS' ||
    (stage !== 'connect' && /certificate|self[- ]signed|altnames|TLS|SSL/i.test(error.message))
  )
    cause = 'tls';
  else if (error.code === 'ETIMEDOUT') cause = 'timeout';
  else if (typeof error.response === 'string') cause = 'garbage';
  // nodemailer puts the server's words behind its own; here they are no SMTP and may be anything.
  const words = error.message.split(/: | response=/)[0] ?? cause;
  return lost(stage, cause, mask(words.slice(0, 200)), { reused: false, finalByteSent: false }, error);
}

/** Makes `openConnection`; TLS sessions are kept per endpoint for resumption. */
export function createOpenConnection(options: OpenOptions): OpenConnection {
  const open = createOpen(options);
  return (account, token, how) => open(account, { user: account.user, token }, how);
}

/** Up to the EHLO reply, without a login. */
export const openWithoutLogin = (
  target: OpenTarget,
  options: OpenOptions,
  how: OpenHow,
): Promise<UpstreamConnection> => createOpen(options)(target, undefined, how);

function createOpen(options: OpenOptions) {
  const {
    clock = systemClock,
    random = Math.random,
    connectTimeoutMs,
    loginTimeoutMs = DEFAULT_LOGIN_MS,
    silentAddressMs = DEFAULT_SILENT_ADDRESS_MS,
  } = options;
  const dial = options.dial ?? createDialer({ clock, random });
  const sessions = new TlsSessions(clock);
  const ownName = options.heloName ?? (isDottedHostName(hostname()) ? hostname() : undefined);

  /** One stream, from TLS to the last EHLO. `signal` ends it with its reason; `greeted` hears that the server is one. */
  async function authenticate(
    account: OpenTarget,
    as: { readonly user: string; token(): Promise<AccessToken> } | undefined,
    dialed: Dialed,
    observer: OpenObserver,
    signal: AbortSignal,
    mask: Mask,
    greeted: () => void,
  ): Promise<UpstreamConnection> {
    const { upstream } = account;
    const { stream } = dialed;
    const key = `${upstream.host}:${upstream.port}`;
    const session = sessions.of(key);
    const heloName = account.heloName ?? ownName ?? addressLiteral(stream.localAddress ?? '127.0.0.1');
    const { line } = observer;
    /** SASL mechanisms, in capitals. */
    let offered: readonly string[] = [];
    const connection = createHandshake({
      stream,
      ...upstream,
      heloName,
      ca: options.ca,
      session,
      line: line && ((who, text) => line(who, who === 'S' ? cleanText(withoutEcho(mask(text))) : text)),
      async authenticate(send) {
        if (as === undefined) return;
        const mechanism = chooseMechanism(offered);
        if (mechanism === undefined) throw noMechanism(offered, account.id);
        // Where it is still to come nothing but EHLO has been said.
        const access = await as.token();
        // Always two steps: Gmail refuses an AUTH line of about 1000 octets, and a long token makes one.
        let answer = await send(`AUTH ${mechanism.name}`);
        if (answer.status === 334) {
          answer = await send(mechanism.format(as.user, access.reveal(), upstream));
          // 334 again carries the error as JSON; an answer asks for the real reply. Never RSET or `*`.
          if (answer.status === 334) answer = await send(mechanism.afterError);
        }
        if (answer.status !== 235) throw new Error(`${mechanism.name} refused`);
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
          const socket = socketOf(connection);
          if (socket && upstream.tls !== 'none') observer.secured?.(socket as TLSSocket);
          const extensions = extensionsOf(connection).map((extension) => cleanText(mask(extension)));
          observer.greeted?.(extensions);
          offered = parseCapabilities(['', ...extensions]).authMechanisms;
          if (as === undefined) return resolve();
          login(connection, as.user, (error) => (error ? reject(error) : resolve()));
        });
      });
      const socket = takeSocket(connection);
      if (upstream.tls !== 'none') {
        // The first tickets of TLS 1.3 came before there was anybody to hear of them.
        const ticket = (socket as TLSSocket).getSession();
        if (ticket !== undefined) sessions.keep(key, ticket);
        (socket as TLSSocket).on('session', (later) => sessions.keep(key, later));
      }
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
      const failed = withLastReply(error as HandshakeError, connection);
      const stage: Stage = connected
        ? 'auth'
        : failed.command === 'EHLO' ||
            failed.command === 'STARTTLS' ||
            (hasGreeted(connection) && failed.response === undefined)
          ? 'ehlo'
          : 'greeting';
      if (!connected) dialed.judged(false);
      if (!connected && session !== undefined && failed.response === undefined) sessions.failed(key);
      throw handshakeError(failed, stage, account.id, mask);
    } finally {
      signal.removeEventListener('abort', endAttempt);
    }
  }

  return async function open(
    account: OpenTarget,
    as: Login | undefined,
    { observer = {}, signal: outer, mask: ofToken = createMaskOf(as?.token) }: OpenHow = {},
  ): Promise<UpstreamConnection> {
    const proxy = proxyOf(account, options.proxy);
    const mask = proxy === undefined ? ofToken : both(createWatch(secretsOf(proxy)), ofToken);
    const late =
      proxy === undefined
        ? { dialing: 'no answer in time', greeting: 'no answer in time' }
        : {
            dialing: `${formatProxy(proxy)} made no connection in time`,
            greeting: `no answer in time through ${formatProxy(proxy)}`,
          };
    const wholeMs = connectTimeoutMs + loginTimeoutMs;
    let startedAt = clock.monotonic();
    const leftMs = (): number => Math.max(0, wholeMs - (clock.monotonic() - startedAt));
    const coming = as === undefined ? NO_TOKEN : Promise.resolve(as.token);
    let isTokenAwaited = false;
    /** The endpoint is not blamed for the time the token takes, which has limits of its own. */
    async function awaited(extend: Extend): Promise<AccessToken> {
      const since = clock.monotonic();
      isTokenAwaited = true;
      extend('without end');
      const access = await coming;
      isTokenAwaited = false;
      startedAt += clock.monotonic() - since;
      extend(leftMs());
      return access;
    }
    for (;;) {
      const dialed = await limited(
        clock,
        Math.min(connectTimeoutMs, leftMs()),
        late.dialing,
        outer,
        (signal) =>
          dial({ ...account.upstream, localAddress: account.localAddress, proxy }, signal, observer),
      ).catch((error: HandshakeError | UpstreamError) => {
        if (error instanceof UpstreamError) throw error;
        throw handshakeError(error, 'connect', account.id, mask);
      });
      observer.connected?.(dialed.path);
      const greetingMs = Math.min(dialed.hasOthers ? silentAddressMs : connectTimeoutMs, leftMs());
      try {
        return await limited(clock, greetingMs, late.greeting, outer, (signal, extend) =>
          authenticate(
            account,
            as && { user: as.user, token: () => awaited(extend) },
            dialed,
            observer,
            signal,
            mask,
            () => extend(leftMs()),
          ),
        );
      } catch (error) {
        if (isTokenAwaited && outer?.aborted !== true) {
          // Closed while nobody could log in: no fault of the server, which is asked again when the token is there.
          await (outer === undefined ? coming : within(coming, outer));
          continue;
        }
        const event = error instanceof UpstreamError ? error.event : undefined;
        const isSilent = event?.kind === 'lost' && event.stage !== 'auth';
        if (!isSilent || !dialed.hasOthers || leftMs() === 0 || outer?.aborted === true) throw error;
      }
    }
  };
}

const NO_TOKEN = new Promise<never>(() => {});

const proxyOf = ({ smtpProxy }: OpenTarget, common: SmtpProxy | undefined): SmtpProxy | undefined =>
  smtpProxy === 'none' ? undefined : (smtpProxy ?? common);

const secretsOf = ({ login }: SmtpProxy): readonly string[] =>
  login === undefined ? [] : secretsOfLogin(login.user, login.password.reveal());

const both =
  (first: Mask, second: Mask): Mask =>
  (text) =>
    second(first(text));

/** Without the token, once it is there. */
function createMaskOf(token: AccessToken | Promise<AccessToken> | undefined): Mask {
  let mask: Mask = (text) => text;
  const know = (access: AccessToken): void => {
    mask = createWatch([access.reveal()]);
  };
  if (token instanceof Promise) token.then(know, () => {});
  else if (token !== undefined) know(token);
  return (text) => mask(text);
}

type Extend = (ms: number | 'without end') => void;

/** Runs `step` with a signal that aborts with `outer`, and in the words of `late` after `ms` or what `extend` gives from then on. */
async function limited<T>(
  clock: Clock,
  ms: number,
  late: string,
  outer: AbortSignal | undefined,
  step: (signal: AbortSignal, extend: Extend) => Promise<T>,
): Promise<T> {
  const abort = new AbortController();
  const end = (): void => abort.abort(new OutOfTime(late));
  const follow = (): void => abort.abort(outer?.reason);
  outer?.addEventListener('abort', follow);
  if (outer?.aborted === true) follow();
  let cancel = clock.after(ms, end);
  let isOver = false;
  try {
    return await step(abort.signal, (more) => {
      cancel();
      cancel = more === 'without end' || isOver ? () => {} : clock.after(more, end);
    });
  } finally {
    isOver = true;
    cancel();
    outer?.removeEventListener('abort', follow);
  }
}
