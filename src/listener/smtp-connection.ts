/**
 * One client connection: how commands are read, how replies leave, what time it may take. In: a socket, with
 * TLS and the steps of SASL by smtp-server. Out: lines to `Dialogue`, passwords to `ClientAuth`.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { type Clock, nap } from '../clock.ts';
import { eventLoop } from '../event-loop.ts';
import type { Heard } from '../protocol/esmtp.ts';
import { formatReplyText, type Reply, reply } from '../protocol/reply.ts';
import type { Accepted } from './accept.ts';
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
import { type Asked, Hearing } from './hearing.ts';
import { SeamConnection, type SeamServer } from './smtp-server-seam.ts';
import type { TurnShare } from './turn-share.ts';

export interface ConnectionHooks extends DialogueHooks {
  readonly auth: ClientAuth;
  readonly door: Door;
  readonly clock: Clock;
  authFailed(origin: Origin, user: string, verdict: Extract<AuthVerdict, { readonly refusal: Reply }>): void;
  socketError(error: Error): void;
}

/** What a session has of its server. */
interface SessionServer extends SeamServer<Accepted> {
  readonly hooks: ConnectionHooks;
  readonly share: TurnShare;
  readonly isDraining: boolean;
}

/** Replies that a client does not take off are not collected beyond this before they are written. */
const MAX_UNWRITTEN = 16 * 1024;
/** A reply to a client that is gone is answered by a reset sooner than this, ms. */
const RESET_MS = 1_000;
const INPUT_ENDED = reply(421, '4.4.2', 'Nothing more to read, closing connection');

/** Enhanced codes for the replies smtp-server's SASL steps make themselves. */
const SASL_ENHANCED: Readonly<Record<number, string>> = { 235: '2.7.0', 501: '5.5.2' };

export class RelayConnection extends SeamConnection {
  declare readonly _server: SessionServer;
  readonly #dialogue: Dialogue;
  readonly #admission: Admission;
  readonly #hearing = new Hearing();
  /** To whom the next write, if it goes through, shows that the client is not gone. */
  #shownByWrite: readonly Asked[] | undefined;
  #isBusy = false;
  #isDraining = false;
  #out = '';
  #isFlushPlanned = false;
  readonly #flushPlanned = () => this.#flush();
  /** When the client was last heard or answered, monotonic ms. */
  #lastActive: number;
  #stopIdle = (): void => {};
  #stopAuthTime = (): void => {};
  #stopHandshake = (): void => {};

  constructor(server: SessionServer, socket: Socket | TLSSocket, accepted: Accepted) {
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
    const refusal = this.#admission.refusal ?? (this._server.isDraining ? SHUTTING_DOWN : undefined);
    if (refusal === undefined) this.begin();
    else
      this.begin(() => {
        this.#say(refusal);
        this.close();
      });
  }

  /** Lets the transaction in progress finish, then says 421 and closes; at once where there is none. */
  drain(): void {
    this.#isDraining = true;
    this.#dialogue.drain();
    if (this.isUpgrading) this.destroy();
    else this.#leaveIfDrained();
  }

  /** A final reply that is awaited comes now, 421 "unknown" if need be; every other session is dismissed. */
  hurry(): void {
    this.#isDraining = true;
    if (!this.#dialogue.giveUp()) this.dismiss();
  }

  /** Ends whatever is under way with 421 and closes; what is not finished is not delivered. */
  dismiss(): void {
    this.#dialogue.reset();
    if (this.isUpgrading) this.destroy();
    else this.#say(SHUTTING_DOWN);
  }

  /** Closes without a word; what is not finished is not delivered. */
  cut(): void {
    this.#dialogue.reset();
    this.destroy();
  }

  /** Closes the session where a transaction takes longer than allowed and it is the client we wait for. */
  checkTransactionTime(now: number): void {
    const since = this.#dialogue.since();
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

  protected override createReader(): CommandReader {
    const { limits, bareLineEnds } = this._server.hooks.options;
    return new CommandReader({
      maxCommandOctets: limits.maxCommandOctets,
      bareLineEnds,
      share: this._server.share,
      onActive: () => {
        this.#lastActive = this._server.hooks.clock.monotonic();
        if (this.#hearing.isAsked) this.#hearing.came(this.socket.bytesRead);
      },
      onLine: (line, fault, done, rcptFollows) => this.#onLine(line, fault, done, rcptFollows),
      onInputEnd: () => (this.#hearing.isAsked ? this.#say(INPUT_ENDED) : this.close()),
      whenWritable: (next) => this.whenWritable(next),
    });
  }

  protected override saidBySasl(code: number, text: string): void {
    const cleaned = formatReplyText({ code, text });
    const enhanced = /^[245]\.\d+\.\d+ /.test(cleaned) ? undefined : SASL_ENHANCED[code];
    if (code === 501) this._server.hooks.authRefused(this.#admission.origin, reply(501, '5.5.2', cleaned));
    this.#write(code, `${code} ${enhanced === undefined ? '' : `${enhanced} `}${cleaned}\r\n`);
  }

  override close(): void {
    this.#flush();
    this.#dialogue.reset();
    super.close();
  }

  override upgrade(callback: () => void, secureCallback?: () => void): void {
    const { clock, options, hit } = this._server.hooks;
    this.#flush();
    this.#dialogue.forget();
    this.#stopHandshake = clock.after(options.limits.handshakeMs, () => {
      hit('handshake');
      this.destroy();
    });
    super.upgrade(callback, () => {
      this.#stopHandshake();
      this.#lastActive = clock.monotonic();
      secureCallback?.();
    });
  }

  protected override greet(): void {
    const { hostname, lmtp } = this._server.hooks.options;
    this.#write(220, `220 ${hostname} ${lmtp ? 'LMTP' : 'ESMTP'} xoauth2-relay\r\n`);
  }

  protected override left(): void {
    this.#stopIdle();
    this.#stopAuthTime();
    this.#stopHandshake();
    this.#dialogue.reset();
    this.#hearing.ended(this.socket.errored === null ? 'orderly' : 'broken');
    this.#admission.leave();
  }

  /** One timer a session: when it fires it looks how long the client has really been silent. */
  #armIdle(): void {
    const { clock, options } = this._server.hooks;
    const { idleTimeoutMs } = options.limits;
    const left = Math.max(0, this.#lastActive + idleTimeoutMs - clock.monotonic());
    this.#stopIdle = clock.after(left, () => {
      if (this.isClosing) return;
      const now = clock.monotonic();
      if (this.isUpgrading || this.#isOurTurn()) this.#lastActive = now;
      if (now - this.#lastActive >= idleTimeoutMs) {
        this._server.hooks.hit('idle');
        this.#say(reply(421, '4.4.2', 'Idle for too long, closing connection'));
      } else this.#armIdle();
    });
  }

  #authTimeIsOver(): void {
    if (this.isClosing || this.#dialogue.isAuthenticated()) return;
    this._server.hooks.hit('auth_time');
    if (this.isUpgrading) this.destroy();
    else this.#say(reply(421, '4.7.0', 'No login in time, closing connection'));
  }

  /** Undefined where the library has put another reader in its place. */
  get #commands(): CommandReader | undefined {
    const { reader } = this;
    return reader instanceof CommandReader ? reader : undefined;
  }

  #wire() {
    const connection = this;
    return {
      id: connection.id,
      origin: connection.#admission.origin,
      tls: () => (connection.secure ? describeTls(connection.socket) : undefined),
      mayBeGone: () => connection.#mayBeGone,
      isAhead: () => !connection.isClosing && connection.#isAhead(),
      heard: () => connection.#heard(),
      say: (r: Reply) => connection.#say(r),
      list(code: number, lines: readonly string[]) {
        const last = lines.length - 1;
        const text = lines.map((line, i) => `${code}${i < last ? '-' : ' '}${line}\r\n`);
        connection.#write(code, text.join(''));
      },
      close: () => connection.close(),
      startTls: (done: () => void) => connection.upgrade(done),
      startSasl: (line: string, done: () => void) => connection.startSasl(line, done),
      startBody(sink: BodySink) {
        const reader = connection.#commands;
        if (reader === undefined) return false;
        reader.startBody({
          body: sink.body,
          end: async () => {
            await sink.end();
            if (connection.#mayBeGone && connection.#hearing.isAsked) await connection.#untilReset();
            connection.#leaveIfDrained();
          },
        });
        return true;
      },
    };
  }

  #isAhead(): boolean {
    return this.#commands?.isAhead === true;
  }

  /** A script says all ahead, QUIT too, closes its side at once, and may well read on. */
  get #mayBeGone(): boolean {
    return this.socket.readableEnded || this.#isAhead();
  }

  /** Who said nothing ahead has left for certain. */
  #heard(): Promise<Heard> {
    const isSilent = this.socket.readableEnded && !this.#isAhead();
    return isSilent ? Promise.resolve('no') : this.#hearing.heard();
  }

  /** A reset is not seen while nothing is read: because that side is closed, or too much was said ahead. A write tells. */
  async #untilReset(): Promise<void> {
    await nap(this._server.hooks.clock, RESET_MS).over;
    if (this.socket.readableEnded) return;
    if (this.#isReadingPaused()) this.#shownByWrite = this.#hearing.pending;
    else this.#hearing.presume();
  }

  #isReadingPaused(): boolean {
    return this.#commands?.writableNeedDrain === true;
  }

  /** The client waits for us, not we for it. */
  #isOurTurn(): boolean {
    const reader: unknown = this.reader;
    return this.#isBusy || (reader instanceof CommandReader && reader.isSinkWaiting);
  }

  #leaveIfDrained(): void {
    if (this.#isDraining && !this.#isBusy && !this.#dialogue.isInTransaction() && !this.isClosing) {
      this.#say(SHUTTING_DOWN);
    }
  }

  #say(r: Reply): void {
    this.#write(r.code, `${r.code} ${formatReplyText(r)}\r\n`);
  }

  /** Collects; everything said in one go leaves in one write. */
  #write(code: number, text: string): void {
    this.#out += text;
    if (this.#out.length > MAX_UNWRITTEN) this.#flush();
    else if (!this.#isFlushPlanned) {
      this.#isFlushPlanned = true;
      // After the replies to all commands of this chunk: the answers to a pipelined group leave together.
      eventLoop.atTurnEnd(this.#flushPlanned);
    }
    if (code === 421) this.close();
  }

  #flush(): void {
    this.#isFlushPlanned = false;
    if (this.#out === '') return;
    const out = this.#out;
    this.#out = '';
    // While the handshake runs `_socket` is still the one below it: clear text would break the records.
    if (this.isUpgrading || !this.socket.writable) return;
    const shown = this.#shownByWrite;
    this.#shownByWrite = undefined;
    if (shown === undefined) this.socket.write(out);
    else
      this.socket.write(out, (error) => {
        if (!error) this.#hearing.presume(shown);
      });
    if (this.#hearing.isAsked)
      this.#hearing.written(this.#isReadingPaused() ? Number.POSITIVE_INFINITY : this.socket.bytesRead);
  }

  #onLine(line: string, fault: LineFault | undefined, next: () => void, rcptFollows: boolean): void {
    // What came in clear text behind STARTTLS is dropped unanswered.
    if (this.isUpgrading || this.isClosing) {
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
    const sasl = this.takeSaslStep();
    const answer = this.#admission.origin.isTrusted ? line.trimEnd() : line;
    if (fault !== undefined) {
      this.#dialogue.fault(fault);
      done();
    } else if (sasl === undefined) this.#dialogue.command(line, done, rcptFollows);
    else if (answer === '*' || isBase64(answer)) sasl(answer, done);
    else {
      this._server.hooks.authRefused(this.#admission.origin, NOT_BASE64);
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
