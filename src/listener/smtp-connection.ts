/**
 * One client connection and the server that accepts them; the only file that knows smtp-server. From it
 * come sockets, TLS, the PROXY header and the steps of SASL; how commands are read, what is answered and
 * how replies leave are our own. In: sockets. Out: lines to `Dialogue`, passwords to `ClientAuth`.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { SMTPServer, type SMTPServerAuthentication, type SMTPServerSession } from 'smtp-server';
import { SMTPConnection, type SMTPConnectionOptions } from 'smtp-server/lib/smtp-connection.js';
import type { SMTPStream } from 'smtp-server/lib/smtp-stream.js';
import type { Clock } from '../clock.ts';
import { formatReplyText, type Reply, reply } from '../protocol/reply.ts';
import { type Accepted, acceptSocket, readProxyHeader } from './accept.ts';
import type { AuthVerdict, ClientAuth } from './client-auth.ts';
import { type BodySink, CommandReader, type LineFault } from './command-reader.ts';
import {
  createDialogue,
  type Dialogue,
  type DialogueHooks,
  isBase64,
  NOT_BASE64,
  SHUTTING_DOWN,
} from './dialogue.ts';
import type { Admission, Door, Origin } from './door.ts';

export interface ConnectionHooks extends DialogueHooks {
  readonly auth: ClientAuth;
  readonly door: Door;
  readonly clock: Clock;
  authFailed(origin: Origin, user: string, verdict: Extract<AuthVerdict, { readonly refusal: Reply }>): void;
  socketError(error: Error): void;
}

/** Replies that a client does not take off are not collected beyond this before they are written. */
const MAX_UNWRITTEN = 16 * 1024;

/** Enhanced codes for the replies smtp-server's SASL steps make themselves. */
const SASL_ENHANCED: Readonly<Record<number, string>> = { 235: '2.7.0', 501: '5.5.2' };

export class RelayConnection extends SMTPConnection {
  declare readonly _server: RelayServer;
  readonly #dialogue: Dialogue;
  readonly #admission: Admission;
  #isBusy = false;
  #isDraining = false;
  /** The TLS socket from the start of its handshake, else the accepted one. */
  #topmost: Socket | undefined;
  #out = '';
  #isFlushPlanned = false;
  /** When the client was last heard or answered, monotonic ms. */
  #lastActive: number;
  #stopIdle = (): void => {};
  #stopAuthTime = (): void => {};
  #stopHandshake = (): void => {};

  constructor(server: RelayServer, socket: Socket | TLSSocket, accepted: Accepted) {
    super(server, socket, accepted);
    const { hooks } = server;
    this.#admission = accepted.admission;
    this.#lastActive = hooks.clock.monotonic();
    this.#dialogue = createDialogue(this.#wire(), hooks);
    if (this.#dialogue.needsAuth) {
      const left = accepted.at + hooks.options.limits.authMs - this.#lastActive;
      this.#stopAuthTime = hooks.clock.after(left, () => this.#authTimeIsOver());
    }
    this.#armIdle();
  }

  override init(): void {
    const { refusal } = this.#admission;
    this._setListeners(() => {
      if (refusal === undefined) {
        // smtp-server waits 100 ms here for clients that talk before the greeting. None that does harm is
        // told apart by that, and every other one waits.
        this.connectionReady();
        return;
      }
      this.#say(refusal);
      this.close();
    });
  }

  /** Lets the transaction in progress finish, then says 421 and closes; at once where there is none. */
  drain(): void {
    this.#isDraining = true;
    this.#dialogue.drain();
    if (this._upgrading) this.#destroy();
    else this.#leaveIfDrained();
  }

  /** A final reply that is awaited comes now, "unknown" if need be, and 421 after it; every other session is dismissed. */
  hurry(): void {
    this.#isDraining = true;
    if (!this.#dialogue.giveUp()) this.dismiss();
  }

  /** Ends whatever is under way with 421 and closes; what is not finished is not delivered. */
  dismiss(): void {
    this.#dialogue.reset('the relay is stopping');
    if (this._upgrading) this.#destroy();
    else this.#say(SHUTTING_DOWN);
  }

  /** Closes without a word; what is not finished is not delivered. */
  cut(): void {
    this.#dialogue.reset('the relay is stopping');
    this.#destroy();
  }

  /** Closes the session where a transaction takes longer than allowed and it is the client we wait for. */
  checkTransactionTime(now: number): void {
    const { since } = this.#dialogue;
    const { transactionTimeoutMs } = this._server.hooks.options.limits;
    if (since === undefined || now - since < transactionTimeoutMs || this.#isOurTurn()) return;
    this._server.hooks.hit('transaction_time');
    this.#say(reply(421, '4.4.2', 'Transaction takes too long, closing connection'));
  }

  /** AUTH with the right password; else the refusal. */
  async authenticate(user: string, password: string): Promise<Reply | undefined> {
    const { hooks } = this._server;
    const { origin } = this.#admission;
    const result = await hooks.auth.check(user, password, origin);
    if ('account' in result) {
      this.#stopAuthTime();
      this.#dialogue.authenticated(user, result.account);
      return undefined;
    }
    hooks.authFailed(origin, user, result);
    return result.refusal;
  }

  override _createParser(): SMTPStream {
    const { limits, bareLineEnds } = this._server.hooks.options;
    const reader = new CommandReader({
      maxCommandOctets: limits.maxCommandOctets,
      bareLineEnds,
      onActive: () => {
        this.#lastActive = this._server.hooks.clock.monotonic();
      },
      onLine: (line, fault, done, rcptFollows) => this.#onLine(line, fault, done, rcptFollows),
      onInputEnd: () => this.close(),
      whenWritable: (next) => this._whenWritable(next),
    });
    reader.on('error', () => this.#destroy());
    // Stands in for SMTPStream: smtp-server pipes into it and sets `isClosed`, and that is all.
    return reader as unknown as SMTPStream;
  }

  /** Collects; everything said in one go leaves in one write. smtp-server's own steps come here too. */
  override send(code: number, text?: string | string[] | null): void {
    const cleaned = formatReplyText({ code, text: typeof text === 'string' ? text : '' });
    const enhanced = /^[245]\.\d+\.\d+ /.test(cleaned) ? undefined : SASL_ENHANCED[code];
    this.#write(code, `${code} ${enhanced === undefined ? '' : `${enhanced} `}${cleaned}\r\n`);
  }

  override close(): void {
    this.#flush();
    this.#dialogue.reset('the session ended');
    super.close();
  }

  override upgrade(callback: () => void, secureCallback?: () => void): void {
    const { clock, options, hit } = this._server.hooks;
    this.#flush();
    this.#dialogue.forget();
    this.#stopHandshake = clock.after(options.limits.handshakeMs, () => {
      hit('handshake');
      this.#destroy();
    });
    super.upgrade(callback, () => {
      this.#stopHandshake();
      this.#lastActive = clock.monotonic();
      secureCallback?.();
    });
  }

  override _sendGreeting(): void {
    const { hostname, lmtp } = this._server.hooks.options;
    this.#write(220, `220 ${hostname} ${lmtp ? 'LMTP' : 'ESMTP'} xoauth2-relay\r\n`);
  }

  /** Times are kept by the clock; smtp-server's own would be the socket's. */
  override _armTimeout(socket: Socket = this._socket): void {
    this.#topmost = socket;
  }

  override _onClose(): void {
    this.#stopIdle();
    this.#stopAuthTime();
    this.#stopHandshake();
    this.#dialogue.reset('the client left');
    this.#admission.leave();
    super._onClose();
  }

  /** One timer a session: when it fires it looks how long the client has really been silent. */
  #armIdle(): void {
    const { clock, options } = this._server.hooks;
    const { idleTimeoutMs } = options.limits;
    const left = Math.max(0, this.#lastActive + idleTimeoutMs - clock.monotonic());
    this.#stopIdle = clock.after(left, () => {
      if (this._closing) return;
      const now = clock.monotonic();
      if (this._upgrading || this.#isOurTurn()) this.#lastActive = now;
      if (now - this.#lastActive >= idleTimeoutMs) {
        this._server.hooks.hit('idle');
        this.#say(reply(421, '4.4.2', 'Idle for too long, closing connection'));
      } else this.#armIdle();
    });
  }

  #authTimeIsOver(): void {
    if (this._closing || this.#dialogue.isAuthenticated) return;
    this._server.hooks.hit('auth_time');
    if (this._upgrading) this.#destroy();
    else this.#say(reply(421, '4.7.0', 'No login in time, closing connection'));
  }

  #wire() {
    const connection = this;
    return {
      id: connection.id,
      origin: connection.#admission.origin,
      get tls() {
        return connection.secure ? describeTls(connection._socket) : undefined;
      },
      say: (r: Reply) => connection.#say(r),
      list(code: number, lines: readonly string[]) {
        const last = lines.length - 1;
        const text = lines.map((line, i) => `${code}${i < last ? '-' : ' '}${line}\r\n`);
        connection.#write(code, text.join(''));
      },
      close: () => connection.close(),
      startTls: (done: () => void) => connection.upgrade(done),
      startSasl: (line: string, done: () => void) => connection.handler_AUTH(Buffer.from(line), done),
      startBody(sink: BodySink) {
        const reader: unknown = connection._parser;
        if (!(reader instanceof CommandReader)) return false;
        reader.startBody({
          ...sink,
          async end() {
            await sink.end();
            connection.#leaveIfDrained();
          },
        });
        return true;
      },
    };
  }

  /** From the top: a socket destroyed underneath a TLS handshake can take the process with it. */
  #destroy(): void {
    (this.#topmost ?? this._socket).destroy();
  }

  /** The client waits for us, not we for it. */
  #isOurTurn(): boolean {
    const reader: unknown = this._parser;
    return this.#isBusy || (reader instanceof CommandReader && reader.isSinkWaiting);
  }

  #leaveIfDrained(): void {
    if (this.#isDraining && !this.#isBusy && !this.#dialogue.isInTransaction && !this._closing) {
      this.#say(SHUTTING_DOWN);
    }
  }

  #say(r: Reply): void {
    this.#write(r.code, `${r.code} ${formatReplyText(r)}\r\n`);
  }

  #write(code: number, text: string): void {
    this.#out += text;
    if (this.#out.length > MAX_UNWRITTEN) this.#flush();
    else if (!this.#isFlushPlanned) {
      this.#isFlushPlanned = true;
      // A tick planned by a microtask runs when all microtasks have: after the replies to all commands of
      // this chunk that only wait for settled promises. So the answers to a pipelined group leave together.
      queueMicrotask(() => process.nextTick(() => this.#flush()));
    }
    if (code === 421) this.close();
  }

  #flush(): void {
    this.#isFlushPlanned = false;
    if (this.#out === '') return;
    const out = this.#out;
    this.#out = '';
    // While the handshake runs `_socket` is still the one below it: clear text would break the records.
    if (!this._upgrading && this._socket.writable) this._socket.write(out);
  }

  #onLine(line: string, fault: LineFault | undefined, next: () => void, rcptFollows: boolean): void {
    // What came in clear text behind STARTTLS is dropped unanswered.
    if (this._upgrading || this._closing) {
      next();
      return;
    }
    const done = (): void => {
      this.#isBusy = false;
      this.#lastActive = this._server.hooks.clock.monotonic();
      this.#leaveIfDrained();
      next();
    };
    this.#isBusy = true;
    const sasl = this._nextHandler;
    this._nextHandler = false;
    const answer = this.#admission.origin.isTrusted ? line.trimEnd() : line;
    if (fault !== undefined) {
      this.#dialogue.fault(fault);
      done();
    } else if (!sasl) this.#dialogue.command(line, done, rcptFollows);
    else if (answer === '*' || isBase64(answer)) sasl.call(this, Buffer.from(answer), done);
    else {
      this.#dialogue.bad(NOT_BASE64);
      done();
    }
  }
}

/** `TLSv1.3 TLS_AES_256_GCM_SHA384`. */
function describeTls(socket: Socket | TLSSocket): string {
  if (!('getProtocol' in socket)) return 'TLS';
  return `${socket.getProtocol() ?? 'TLS'} ${socket.getCipher()?.standardName ?? ''}`.trim();
}

export interface ServerCertificate {
  readonly key: string;
  readonly cert: string;
}

export class RelayServer extends SMTPServer {
  readonly hooks: ConnectionHooks;

  constructor(hooks: ConnectionHooks, certificate: ServerCertificate | undefined) {
    const { options } = hooks;
    super({
      name: options.hostname,
      secure: options.tls === 'implicit',
      hideSTARTTLS: options.tls !== 'starttls',
      // Our own check (loopback only) stands before it.
      allowInsecureAuth: true,
      authMethods: ['PLAIN', 'LOGIN'],
      disableReverseLookup: true,
      lmtp: options.lmtp,
      // A client may close its side after the last command and still read the replies.
      allowHalfOpen: true,
      noDelay: true,
      minVersion: 'TLSv1.2',
      logger: false,
      onConnect: (_session, callback) => callback(),
      onSecure: (_socket, _session, callback) => callback(),
      ...(certificate === undefined ? {} : certificate),
    });
    this.hooks = hooks;
    this.onAuth = (auth, session, callback) => this.#authenticate(auth, session, callback);
    this.on('error', (error) => hooks.socketError(error));
  }

  override connect(socket: Socket | TLSSocket, accepted: SMTPConnectionOptions): void {
    const known = accepted as Accepted;
    // Gone between being accepted and now: there will be no event to count it out by.
    if (socket.destroyed) {
      known.admission.leave();
      return;
    }
    const connection = new RelayConnection(this, socket, known);
    this.connections.add(connection);
    connection.on('error', (error: Error) => this.hooks.socketError(error));
    connection.init();
  }

  override _acceptSocket(socket: Socket, isHandshake: boolean): (() => void) | false {
    return acceptSocket(socket, isHandshake, this.hooks, this._pendingSockets);
  }

  override _handleProxy(socket: Socket, callback: Parameters<SMTPServer['_handleProxy']>[1]): void {
    readProxyHeader(socket, callback);
  }

  /** Every open connection. */
  relayConnections(): RelayConnection[] {
    return [...this.connections].filter((c) => c instanceof RelayConnection);
  }

  #authenticate(
    auth: SMTPServerAuthentication,
    session: SMTPServerSession,
    callback: (
      error: Error | null,
      response?: { user?: string; responseCode?: number; message?: string },
    ) => void,
  ): void {
    const connection = this.relayConnections().find((c) => c.session === session);
    const { username = '', password } = auth;
    if (connection === undefined || typeof password !== 'string') {
      callback(null, { responseCode: 454, message: '4.7.0 Temporary authentication failure' });
      return;
    }
    void connection.authenticate(username, password).then((refusal) => {
      if (refusal === undefined) callback(null, { user: username });
      else callback(null, { responseCode: refusal.code, message: formatReplyText(refusal) });
    });
  }
}
