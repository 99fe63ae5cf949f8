/**
 * One client connection and the server that accepts them; the only file that knows smtp-server. From it
 * come sockets, TLS, the PROXY header and the steps of SASL; command reading, the dialogue and the way
 * replies leave are replaced. In: sockets. Out: calls to `MailSession` and `ClientAuth`, replies.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { SMTPServer, type SMTPServerAuthentication, type SMTPServerSession } from 'smtp-server';
import { SMTPConnection, type SMTPConnectionOptions } from 'smtp-server/lib/smtp-connection.js';
import type { SMTPStream } from 'smtp-server/lib/smtp-stream.js';
import type { Account } from '../accounts/account.ts';
import { isLoopbackAddress } from '../protocol/cidr.ts';
import { formatReplyText, type Reply, reply } from '../protocol/reply.ts';
import type { ClientAuth } from './client-auth.ts';
import { CommandReader, type LineFault } from './command-reader.ts';
import type { LimitName } from './counts.ts';
import { type ClientFacts, isIntake, type MailSession } from './mail-session.ts';
import type { ListenerOptions } from './options.ts';

export interface ConnectionHooks {
  readonly options: ListenerOptions;
  readonly auth: ClientAuth;
  openMail(client: () => ClientFacts): MailSession;
  /** Counts the session in; a reply refuses it. */
  admit(remoteAddress: string): Reply | undefined;
  /** Counts it out; called once for each `admit`. */
  left(remoteAddress: string): void;
  /** May use accounts without a password. */
  isTrusted(remoteAddress: string): boolean;
  /** EHLO keywords that do not depend on the state of the connection. */
  keywords(account: Account | undefined): readonly string[];
  /** AUTH is worth offering. */
  offersAuth(): boolean;
  hit(limit: LimitName): void;
  authFailed(remoteAddress: string): void;
  /** Whether this peer sends a PROXY header first. */
  expectsProxyHeader(remoteAddress: string): boolean;
  socketError(error: Error): void;
}

const OK = reply(250, '2.0.0', 'OK');
const SHUTTING_DOWN = reply(421, '4.3.2', 'Shutting down, try again later');
const NOT_HERE = reply(502, '5.5.1', 'Command not implemented');
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
/** A browser made to talk to a mail server; the first line gives it away. */
const HTTP_REQUEST = / HTTP\/\d(?:\.\d)?$/i;
/** RFC 5321 §4.5.3.1.2. */
const MAX_DOMAIN_OCTETS = 255;
/** Replies that a client does not take off are not collected beyond this before they are written. */
const MAX_UNWRITTEN = 16 * 1024;

const FAULTS: Readonly<Record<LineFault, Reply>> = {
  too_long: reply(500, '5.5.6', 'Line too long'),
  bare_line_end: reply(500, '5.5.2', 'Lines end with CRLF (RFC 5321 section 2.3.8)'),
  control_character: reply(500, '5.5.2', 'Control character in command'),
  not_utf8: reply(500, '5.5.2', 'Command is not UTF-8'),
};

/** Enhanced codes for the replies smtp-server's SASL steps make themselves. */
const OWN_ENHANCED: Readonly<Record<number, string>> = {
  235: '2.7.0',
  501: '5.5.2',
  503: '5.5.1',
  504: '5.5.4',
};

export class RelayConnection extends SMTPConnection {
  declare readonly _server: RelayServer;
  #auth: ClientFacts['auth'];
  #helo = '';
  #isEsmtp = false;
  #mail: MailSession | undefined;
  #isBusy = false;
  #isDraining = false;
  #isCounted = false;
  #hasLeft = false;
  #badCommands = 0;
  #unauthenticated = 0;
  #out = '';
  #isFlushPlanned = false;

  /** Whether a message is on its way or a command being dealt with. */
  get isBusy(): boolean {
    return this.#isBusy || this.#mail?.isInTransaction === true;
  }

  override init(): void {
    const refusal = this._server.hooks.admit(this.remoteAddress);
    this.#isCounted = true;
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
    if (this._upgrading) this._socket.destroy();
    else this.#leaveIfDraining();
  }

  /** Closes without a word; what is not finished is not delivered. */
  cut(): void {
    this.#mail?.reset('the relay is stopping');
    this._socket.destroy();
  }

  /** Closes the session where a transaction takes longer than allowed and it is the client we wait for. */
  checkTransactionTime(now: number): void {
    const since = this.#mail?.since;
    const { transactionMs } = this._server.hooks.options.limits;
    if (since === undefined || now - since < transactionMs || this.#isOurTurn()) return;
    this._server.hooks.hit('transaction_time');
    this.#say(reply(421, '4.4.2', 'Transaction takes too long, closing connection'));
  }

  override _createParser(): SMTPStream {
    const { limits, bareLineEnds } = this._server.hooks.options;
    const reader = new CommandReader({
      maxCommandOctets: limits.maxCommandOctets,
      bareLineEnds,
      onLine: (line, fault, done) => this.#onLine(line, fault, done),
      onInputEnd: () => this.close(),
      whenWritable: (next) => this._whenWritable(next),
    });
    reader.on('error', () => this._socket.destroy());
    // Stands in for SMTPStream: smtp-server pipes into it and sets `isClosed`, and that is all.
    return reader as unknown as SMTPStream;
  }

  /** Collects; everything said in one go leaves in one write. */
  override send(code: number, data?: string | string[] | null, context?: string | false): void {
    const lines = (Array.isArray(data) ? data : [data ?? '']).map((line) => {
      const text = formatReplyText({ code, text: line });
      const own = OWN_ENHANCED[code];
      const isBare = context === false || own === undefined || /^[245]\.\d+\.\d+ /.test(text);
      return isBare ? text : `${own} ${text}`;
    });
    const last = lines.length - 1;
    for (const [i, line] of lines.entries()) this.#out += `${code}${i < last ? '-' : ' '}${line}\r\n`;
    if (this.#out.length > MAX_UNWRITTEN) this.#flush();
    else this.#planFlush();
    if (code === 421) this.close();
  }

  override close(): void {
    this.#flush();
    this.#mail?.reset('the session ended');
    super.close();
  }

  override upgrade(callback: () => void, secureCallback?: () => void): void {
    this.#flush();
    // RFC 3207 §4.2: nothing learned before TLS counts after it.
    this.#mail?.reset('STARTTLS');
    this.#helo = '';
    this.#isEsmtp = false;
    this.#auth = undefined;
    super.upgrade(callback, secureCallback);
  }

  override _sendGreeting(): void {
    const { hostname, lmtp } = this._server.hooks.options;
    this.send(220, `${hostname} ${lmtp ? 'LMTP' : 'ESMTP'} xoauth2-relay`, false);
  }

  override _armTimeout(socket: Socket = this._socket): void {
    socket.setTimeout(this._server.hooks.options.limits.idleMs, () => this._onTimeout());
  }

  override _onTimeout(): void {
    if (this._closing || this._upgrading) {
      this._socket.destroy();
      return;
    }
    if (this.#isOurTurn()) {
      this._armTimeout();
      return;
    }
    this._server.hooks.hit('idle');
    this.#say(reply(421, '4.4.2', 'Idle for too long, closing connection'));
  }

  override _onClose(): void {
    if (!this.#hasLeft) {
      this.#hasLeft = true;
      this.#mail?.reset('the client left');
      if (this.#isCounted) this._server.hooks.left(this._originalRemoteAddress);
    }
    super._onClose();
  }

  /** The client waits for us, not we for it. */
  #isOurTurn(): boolean {
    const reader: unknown = this._parser;
    return this.#isBusy || (reader instanceof CommandReader && reader.isSinkWaiting);
  }

  #leaveIfDraining(): void {
    if (this.#isDraining && !this.isBusy && !this._closing) this.#say(SHUTTING_DOWN);
  }

  #say(r: Reply): void {
    this.send(r.code, formatReplyText(r), false);
  }

  /** After everything that can be answered without waiting has been. */
  #planFlush(): void {
    if (this.#isFlushPlanned) return;
    this.#isFlushPlanned = true;
    // A tick planned by a microtask runs when all microtasks have: after the replies to all commands of
    // this chunk that only wait for settled promises.
    queueMicrotask(() => process.nextTick(() => this.#flush()));
  }

  #flush(): void {
    this.#isFlushPlanned = false;
    if (this.#out === '') return;
    const out = this.#out;
    this.#out = '';
    // While the handshake runs `_socket` is still the one below it: clear text would break the records.
    if (!this._upgrading && this._socket.writable) this._socket.write(out);
  }

  #facts(): ClientFacts {
    return {
      id: this.id,
      remoteAddress: this.remoteAddress,
      helo: this.#helo,
      esmtp: this.#isEsmtp,
      tls: this.secure ? describeTls(this._socket) : undefined,
      auth: this.#auth,
      isTrusted: this._server.hooks.isTrusted(this.remoteAddress),
    };
  }

  #session(): MailSession {
    this.#mail ??= this._server.hooks.openMail(() => this.#facts());
    return this.#mail;
  }

  #onLine(line: string, fault: LineFault | undefined, done: () => void): void {
    // What came in clear text behind STARTTLS is dropped unanswered.
    if (this._upgrading || this._closing) {
      done();
      return;
    }
    const proceed = (): void => {
      this.#isBusy = false;
      this.#leaveIfDraining();
      done();
    };
    this.#isBusy = true;
    if (fault !== undefined) {
      this._nextHandler = false;
      if (fault === 'too_long') this._server.hooks.hit('command_octets');
      this.#bad(FAULTS[fault]);
      proceed();
      return;
    }
    if (this._nextHandler) {
      this.#continueAuth(line, proceed);
      return;
    }
    const space = line.indexOf(' ');
    const verb = (space < 0 ? line : line.slice(0, space)).toUpperCase();
    const argument = space < 0 ? '' : line.slice(space + 1).trim();
    if (HTTP_REQUEST.test(line)) {
      this.#say(reply(421, '4.7.0', 'This is not a web server'));
      proceed();
      return;
    }
    if (!this.#countUnauthenticated(verb)) {
      proceed();
      return;
    }
    this.#command(verb, argument, line, proceed);
  }

  #command(verb: string, argument: string, line: string, done: () => void): void {
    switch (verb) {
      case 'MAIL':
      case 'RCPT':
        this.#path(verb, argument, done);
        return;
      case 'DATA':
        this.#data(argument, done);
        return;
      case 'AUTH':
        this.#startAuth(line, argument, done);
        return;
      case 'STARTTLS':
        this.#startTls(argument, done);
        return;
      case 'QUIT':
        this.#say(reply(221, '2.0.0', 'Bye'));
        this.close();
        done();
        return;
      default:
        this.#simple(verb, argument);
        done();
    }
  }

  /** Commands answered at once. */
  #simple(verb: string, argument: string): void {
    switch (verb) {
      case 'EHLO':
      case 'HELO':
      case 'LHLO':
        this.#greet(verb, argument);
        return;
      case 'RSET':
        this.#mail?.reset('RSET');
        this.#say(OK);
        return;
      case 'NOOP':
        this.#say(OK);
        return;
      case 'VRFY':
        // RFC 5321 §7.3: a server that does not verify says 252.
        if (argument === '') this.#bad(reply(501, '5.5.4', 'Syntax: VRFY address'));
        else this.#say(reply(252, '2.1.5', 'Cannot verify, but will take mail'));
        return;
      case 'HELP':
        this.#say(reply(214, '2.0.0', 'RFC 5321; EHLO lists the extensions'));
        return;
      case 'EXPN':
      case 'ETRN':
      case 'TURN':
      case 'ATRN':
      case 'SEND':
      case 'SOML':
      case 'SAML':
      case 'BDAT':
        this.#bad(NOT_HERE);
        return;
      default:
        this.#bad(reply(500, '5.5.1', 'Command not recognized'));
    }
  }

  #greet(verb: string, argument: string): void {
    const { hostname, lmtp } = this._server.hooks.options;
    if (lmtp !== (verb === 'LHLO')) {
      this.#bad(reply(500, '5.5.1', lmtp ? 'This is LMTP: send LHLO' : 'This is SMTP: send EHLO'));
      return;
    }
    if (argument === '' || argument.includes(' ') || Buffer.byteLength(argument) > MAX_DOMAIN_OCTETS) {
      this.#bad(reply(501, '5.5.4', `Syntax: ${verb} hostname`));
      return;
    }
    this.#mail?.reset(verb);
    this.#helo = argument;
    this.#isEsmtp = verb !== 'HELO';
    if (verb === 'HELO') {
      this.send(250, hostname, false);
      return;
    }
    const lines = [hostname, ...this._server.hooks.keywords(this.#auth?.account)];
    if (this._server.hooks.options.tls === 'starttls' && !this.secure) lines.push('STARTTLS');
    if (this.#auth === undefined && this.#mayAuth() && this._server.hooks.offersAuth()) {
      lines.push('AUTH PLAIN LOGIN');
    }
    this.send(250, lines, false);
  }

  #path(verb: 'MAIL' | 'RCPT', argument: string, done: () => void): void {
    const keyword = verb === 'MAIL' ? 'FROM:' : 'TO:';
    if (this.#helo === '') {
      this.#bad(reply(503, '5.5.1', this._server.hooks.options.lmtp ? 'Send LHLO first' : 'Send EHLO first'));
      done();
      return;
    }
    if (!argument.toUpperCase().startsWith(keyword)) {
      this.#bad(reply(501, '5.5.4', `Syntax: ${verb} ${keyword}<address>`));
      done();
      return;
    }
    const mail = this.#session();
    const path = argument.slice(keyword.length);
    const answer =
      verb === 'MAIL' && this.#isDraining
        ? Promise.resolve(SHUTTING_DOWN)
        : verb === 'MAIL'
          ? mail.mail(path)
          : mail.rcpt(path);
    void answer.then((r) => {
      this.#say(r);
      done();
    });
  }

  #data(argument: string, done: () => void): void {
    if (argument !== '') {
      this.#bad(reply(501, '5.5.4', 'Syntax: DATA'));
      done();
      return;
    }
    const mail = this.#session();
    void mail.data().then((answer) => {
      if (!isIntake(answer)) {
        this.#say(answer);
        done();
        return;
      }
      const replies = this._server.hooks.options.lmtp ? mail.recipients : 1;
      const reader: unknown = this._parser;
      if (reader instanceof CommandReader) {
        reader.startBody({
          write: answer.write,
          end: async (hasBareLineEnd) => {
            const final = await answer.end(hasBareLineEnd);
            // RFC 2033 §4.2: LMTP answers for every recipient that was accepted.
            for (let i = 0; i < replies; i++) this.#say(final);
            if (final.code < 300) this.#badCommands = 0;
            this.#leaveIfDraining();
          },
        });
      } else answer.cut('the client left');
      this.send(354, 'End data with <CR><LF>.<CR><LF>', false);
      done();
    });
  }

  #startTls(argument: string, done: () => void): void {
    const refusal =
      this._server.hooks.options.tls !== 'starttls'
        ? NOT_HERE
        : this.secure
          ? reply(503, '5.5.1', 'TLS is already active')
          : argument !== ''
            ? reply(501, '5.5.4', 'Syntax: STARTTLS')
            : undefined;
    if (refusal !== undefined) {
      this.#bad(refusal);
      done();
      return;
    }
    this.#say(reply(220, '2.0.0', 'Ready to start TLS'));
    this.upgrade(done);
  }

  /** AUTH in clear text never leaves this host. */
  #mayAuth(): boolean {
    return this.secure || this.remoteAddress === '' || isLoopbackAddress(this.remoteAddress);
  }

  #startAuth(line: string, argument: string, done: () => void): void {
    const [mechanism = '', initial] = argument.split(' ');
    let refusal: Reply | undefined;
    if (this.#helo === '') refusal = reply(503, '5.5.1', 'Send EHLO or HELO first');
    else if (this.#auth !== undefined) refusal = reply(503, '5.5.1', 'Already authenticated');
    else if (this.#mail?.isInTransaction) refusal = reply(503, '5.5.1', 'A transaction is in progress');
    else if (!this.#mayAuth()) refusal = reply(538, '5.7.11', 'Encryption required: send STARTTLS first');
    else if (!/^(?:PLAIN|LOGIN)$/i.test(mechanism)) {
      refusal = reply(504, '5.5.4', 'Mechanism not supported: use PLAIN or LOGIN');
    } else if (initial !== undefined && initial !== '=' && !BASE64.test(initial)) {
      refusal = reply(501, '5.5.2', 'Not base64');
    }
    if (refusal !== undefined) {
      this.#bad(refusal);
      done();
      return;
    }
    this.handler_AUTH(Buffer.from(line), done);
  }

  #continueAuth(line: string, done: () => void): void {
    const handler = this._nextHandler;
    this._nextHandler = false;
    if (!handler || (line !== '*' && !BASE64.test(line))) {
      this.#bad(reply(501, '5.5.2', 'Not base64'));
      done();
      return;
    }
    handler.call(this, Buffer.from(line), done);
  }

  /** Called by the server's `onAuth`. */
  async authenticate(user: string, password: string): Promise<Reply | undefined> {
    const result = await this._server.hooks.auth.check(user, password, this.remoteAddress);
    if ('account' in result) {
      this.#auth = { user, account: result.account };
      return undefined;
    }
    if (result.locked) this._server.hooks.hit('auth_lockout');
    else this._server.hooks.authFailed(this.remoteAddress);
    return result.refusal;
  }

  /** A refusal for something only a mistaken or hostile client sends; too many of them end the session. */
  #bad(r: Reply): void {
    this.#badCommands += 1;
    if (this.#badCommands < this._server.hooks.options.limits.maxBadCommands) {
      this.#say(r);
      return;
    }
    this._server.hooks.hit('bad_commands');
    this.#say(reply(421, '4.7.0', 'Too many bad commands'));
  }

  #countUnauthenticated(verb: string): boolean {
    const { authRequired, limits } = this._server.hooks.options;
    if (!authRequired || this.#auth !== undefined || verb === 'AUTH' || verb === 'QUIT') return true;
    this.#unauthenticated += 1;
    if (this.#unauthenticated <= limits.maxUnauthenticatedCommands) return true;
    this._server.hooks.hit('unauthenticated_commands');
    this.#say(reply(421, '4.7.0', 'Too many commands without AUTH'));
    return false;
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
      // Handshakes and PROXY headers under way; sessions are counted by the hooks.
      maxClients: options.limits.maxSessions,
      socketTimeout: options.limits.handshakeMs,
      logger: false,
      onConnect: (_session, callback) => callback(),
      onSecure: (_socket, _session, callback) => callback(),
      ...(certificate === undefined ? {} : certificate),
    });
    this.hooks = hooks;
    this.onAuth = (auth, session, callback) => this.#authenticate(auth, session, callback);
    this.on('error', (error) => hooks.socketError(error));
  }

  override connect(socket: Socket | TLSSocket, socketOptions?: SMTPConnectionOptions): void {
    const connection = new RelayConnection(this, socket, socketOptions);
    this.connections.add(connection);
    connection.on('error', (error: Error) => this.hooks.socketError(error));
    connection.init();
  }

  override _expectsProxyHeader(socket: Socket): boolean {
    return this.hooks.expectsProxyHeader(socket.remoteAddress ?? '');
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
