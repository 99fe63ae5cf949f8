/**
 * smtp-server, and all that is used of its insides; the one file that imports it. From it come sockets, TLS
 * and the steps of SASL. Each member below says what breaks if the library changes: its types show a member
 * that is gone, smtp-server-seam.test.ts one that does something else.
 */
import type { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { SMTPServer, type SMTPServerSession } from 'smtp-server';
import { SMTPConnection } from 'smtp-server/lib/smtp-connection.js';
import type { SMTPStream } from 'smtp-server/lib/smtp-stream.js';

/** A client that closes its side in a handshake is gone: half open nothing can come of it. */
function endWith(socket: Socket, isInHandshake: () => boolean): void {
  socket.once('end', () => {
    if (isInHandshake()) socket.destroy();
  });
}

/** What a pipe asks of that into which it leads. */
type Piped = EventEmitter & { write(chunk: Buffer): boolean; end(): unknown };

export abstract class SeamConnection extends SMTPConnection {
  /** The TLS socket from the start of its handshake, else the accepted one. */
  #topmost: Socket | undefined;

  /** What octets are piped into; made anew for TLS. Called by the constructor of the library. */
  protected abstract createReader(): Piped;
  /** Says the greeting. */
  protected abstract greet(): void;
  /** The socket is closed. Called once or more. */
  protected abstract left(): void;
  /** A reply of the library's own steps of SASL. */
  protected abstract saidBySasl(code: number, text: string): void;

  /** Not made through here, the library reads commands itself: nothing of the dialogue would be ours. It pipes into it and sets `isClosed`, that is all. */
  override _createParser(): SMTPStream {
    return this.createReader() as unknown as SMTPStream;
  }

  override _sendGreeting(): void {
    this.greet();
  }

  /** Times are kept by the clock; not called for each new socket, a handshake would be cut from underneath, which can take the process with it. */
  override _armTimeout(socket: Socket = this._socket): void {
    this.#topmost = socket;
    if (socket !== this._socket) endWith(socket, () => this._upgrading);
  }

  /** Not called when the socket closes, sessions would be counted for ever. */
  override _onClose(): void {
    this.left();
    super._onClose();
  }

  /** Not called by the steps of SASL, their replies would overtake ours that wait to be written. */
  override send(code: number, text?: string | string[] | null): void {
    this.saidBySasl(code, typeof text === 'string' ? text : '');
  }

  /** Wires the socket and greets. smtp-server's `init` waits 100 ms for clients that talk before the greeting: none that does harm is told apart by that, and every other one waits. */
  protected begin(ready: () => void = () => this.connectionReady()): void {
    this._setListeners(ready);
  }

  /** Another name, and commands would be answered after the end. */
  protected get isClosing(): boolean {
    return this._closing;
  }

  /** Another name, and clear text would break the records of a handshake, or run as commands after it. */
  protected get isUpgrading(): boolean {
    return this._upgrading;
  }

  /** Another name, and nothing would be written. While the handshake runs it is still the one below it. */
  protected get socket(): Socket | TLSSocket {
    return this._socket;
  }

  protected get reader(): unknown {
    return this._parser;
  }

  /** Another name, and replies to a client that does not read would pile up. */
  protected whenWritable(next: () => void): void {
    this._whenWritable(next);
  }

  /** `AUTH mechanism [initial]`. Not there, nobody could log in. */
  protected startSasl(line: string, done: () => void): void {
    this.handler_AUTH(Buffer.from(line), done);
  }

  /** What takes the next line, where a step of SASL waits for it; asked once a line. Elsewhere, and passwords would be read as commands. */
  protected takeSaslStep(): ((line: string, done: () => void) => void) | undefined {
    const step = this._nextHandler;
    this._nextHandler = false;
    return step ? (line, done) => step.call(this, Buffer.from(line), done) : undefined;
  }

  /** From the top: a socket destroyed underneath a TLS handshake can take the process with it. */
  protected destroy(): void {
    (this.#topmost ?? this._socket).destroy();
  }
}

export interface ServerCertificate {
  readonly key: string;
  readonly cert: string;
}

export interface SeamServerOptions {
  readonly hostname: string;
  readonly tls: 'none' | 'starttls' | 'implicit';
  readonly lmtp: boolean;
  readonly certificate: ServerCertificate | undefined;
}

/** `Accepted` is what a session begins with, made before it. */
export abstract class SeamServer<Accepted> extends SMTPServer {
  constructor({ hostname, tls, lmtp, certificate }: SeamServerOptions) {
    super({
      name: hostname,
      secure: tls === 'implicit',
      hideSTARTTLS: tls !== 'starttls',
      // Our own check (loopback only) stands before it.
      allowInsecureAuth: true,
      authMethods: ['PLAIN', 'LOGIN'],
      disableReverseLookup: true,
      lmtp,
      // A client may close its side after the last command and still read the replies.
      allowHalfOpen: true,
      noDelay: true,
      minVersion: 'TLSv1.2',
      logger: false,
      onConnect: (_session, callback) => callback(),
      onSecure: (_socket, _session, callback) => callback(),
      ...(certificate === undefined ? {} : certificate),
    });
    this.onAuth = (auth, session, callback) =>
      void this.authenticate(auth.username ?? '', auth.password, session).then((refusal) =>
        refusal === undefined
          ? callback(null, { user: auth.username ?? '' })
          : callback(null, { responseCode: refusal.code, message: refusal.text }),
      );
  }

  /** False where the connection is refused and closed; else what to call when its session takes over. */
  protected abstract accept(socket: Socket, isHandshake: boolean): (() => void) | false;
  /** What comes before the session and its handshake. */
  protected abstract readHeader(
    socket: Socket,
    callback: (error: Error | null, accepted?: Accepted) => void,
  ): void;
  protected abstract openSession(socket: Socket | TLSSocket, accepted: Accepted): SeamConnection;
  /** Never rejects. */
  protected abstract authenticate(
    user: string,
    password: unknown,
    session: SMTPServerSession,
  ): Promise<{ readonly code: number; readonly text: string } | undefined>;

  /** Not called for each connection, first of all: nobody would be counted, refused or timed out. */
  override _acceptSocket(socket: Socket, isHandshake: boolean): (() => void) | false {
    return this.accept(socket, isHandshake);
  }

  /** Not called for each connection, between accept and handshake: PROXY headers would be read as commands. What it calls back with must reach `connect`. */
  override _handleProxy(socket: Socket, callback: Parameters<SMTPServer['_handleProxy']>[1]): void {
    this.readHeader(socket, callback as Parameters<typeof this.readHeader>[1]);
  }

  /** Not called for each handshake of implicit TLS, or without its socket among the pending ones, a client that leaves in it would be kept until its time is over. */
  override _upgrade(socket: Socket, callback: Parameters<SMTPServer['_upgrade']>[1]): void {
    super._upgrade(socket, callback);
    const top = this._pendingSockets.get(socket);
    if (top !== undefined) endWith(top, () => this._pendingSockets.has(socket));
  }

  override connect(socket: Socket | TLSSocket, accepted: unknown): void {
    const connection = this.openSession(socket, accepted as Accepted);
    this.connections.add(connection);
    connection.on('error', (error: Error) => this.emit('error', error));
    connection.init();
  }

  /** Accepted, without a session yet, to the topmost socket: the library puts the one of a handshake in. Elsewhere, and those could not be ended from the top. */
  get pendingSockets(): Map<Socket, Socket> {
    return this._pendingSockets;
  }
}
