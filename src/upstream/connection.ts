/**
 * One authenticated upstream connection. In: flights (commands that travel together). Out: their
 * replies, matched in order. Owns the socket; knows itself whether it can be used again. Anything
 * out of step closes it, so that no reply can reach another message.
 */
import type { Socket } from 'node:net';
import type { AccountLimits } from '../accounts/account.ts';
import { type Clock, systemClock } from '../clock.ts';
import { eventLoop } from '../event-loop.ts';
import { type Capabilities, parseCapabilities } from '../protocol/capabilities.ts';
import type { Mask } from '../protocol/masking.ts';
import { createReplyParser, type ParsedReply } from '../protocol/reply-parser.ts';
import type { LossCause } from '../protocol/verdict.ts';
import { lossCause } from './failure.ts';
import { isFarewell } from './reply-kinds.ts';

/** The connection went away (or was closed by us for breaking the protocol) while replies were awaited. */
export class ConnectionLost extends Error {
  override readonly name = 'ConnectionLost';
  readonly how: LossCause;
  /** What had been answered of the flight. */
  readonly replies: readonly ParsedReply[];
  constructor(how: LossCause, detail: string, replies: readonly ParsedReply[]) {
    super(detail);
    this.how = how;
    this.replies = replies;
  }
}

interface Flight {
  readonly isComplete: (replies: readonly ParsedReply[]) => boolean;
  readonly replies: ParsedReply[];
  readonly resolve: (replies: ParsedReply[]) => void;
  readonly reject: (error: ConnectionLost) => void;
  /** When whoever waits gives up, monotonic, and how long that is, ms. */
  limit: { readonly at: number; readonly ms: number } | undefined;
}

/** QUIT is a courtesy; nobody waits longer for its reply. */
export const QUIT_TIMEOUT_MS = 2_000;

/** When it must be usable: a while is what it takes to be replaced before it is closed. */
export type Usable = 'now' | 'in a while';
/** With this little time left, or this share of its idle time. */
const REPLACE_AHEAD_MS = 15_000;
const REPLACE_AHEAD_SHARE = 1 / 4;

const NOTHING_OFFERED: Capabilities = {
  chunking: false,
  pipelining: false,
  enhancedStatusCodes: false,
  eightBitMime: false,
  binaryMime: false,
  smtpUtf8: false,
  dsn: false,
  size: undefined,
  authMechanisms: [],
};

let opened = 0;

export class UpstreamConnection {
  readonly id: string;
  capabilities: Capabilities = NOTHING_OFFERED;
  /** The EHLO reply as it came, lines joined with LF; empty before it. */
  greeting = '';
  /** What we said in EHLO. */
  heloName = '';
  /** How long its answer took, ms. */
  ehloMs = 0;
  /** Enhanced codes of its first 2xx to MAIL, RCPT and a body: how late replies are told from those awaited. */
  readonly said: { mail?: string; rcpt?: string; end?: string } = {};
  /** Takes secrets out of what the server says. Set once it is in use: what it needs costs an idle connection nothing. */
  mask: Mask = (text) => text;
  /** Messages the upstream took or refused on this connection. */
  messages = 0;
  /** The last transaction was given up half-way: the next flight starts with RSET. */
  needsReset = false;
  /** It answered more than it was asked: whose each of its last replies is, nobody can tell. */
  saidTooMuch = false;
  /** Called once when the connection can no longer be used. */
  onDead: (() => void) | undefined;
  /** Connections opened together do not all run out together. */
  readonly #ageShare: number;
  readonly #clock: Clock;
  readonly #openedAt: number;
  #lastUsedAt: number;
  #heardAt: number;
  readonly #socket: Socket;
  readonly #parser = createReplyParser((text) => this.mask(text));
  readonly #flights: Flight[] = [];
  readonly #uncork = () => this.#socket.uncork();
  /** When it is looked whether a wait is over. */
  #watch: { readonly at: number; readonly stop: () => void } | undefined;
  #dead: { readonly how: LossCause; readonly detail: string } | undefined;
  /** The server announced that it closes (421). */
  #leaving = false;

  constructor(
    socket: Socket,
    accountId: string,
    { clock = systemClock, random = Math.random }: { clock?: Clock; random?: () => number } = {},
  ) {
    this.id = `${accountId}#${++opened}`;
    this.#socket = socket;
    this.#clock = clock;
    this.#openedAt = clock.monotonic();
    this.#lastUsedAt = this.#openedAt;
    this.#heardAt = this.#openedAt;
    this.#ageShare = 0.9 + random() / 10;
    socket.on('data', (chunk) => this.#onData(chunk));
    socket.on('error', (error: NodeJS.ErrnoException) =>
      this.#die(lossCause(error.code), error.code ?? 'socket error'),
    );
    socket.on('end', () => this.#die('eof', 'closed by the upstream'));
    socket.on('close', () => this.#die('eof', 'closed'));
    socket.resume();
  }

  get dead(): boolean {
    return this.#dead !== undefined;
  }

  /** Monotonic, ms. */
  get now(): number {
    return this.#clock.monotonic();
  }

  /** ms since it was authenticated. */
  get ageMs(): number {
    return this.#clock.monotonic() - this.#openedAt;
  }

  /** ms since it answered, or was authenticated. */
  get quietMs(): number {
    return this.#clock.monotonic() - this.#heardAt;
  }

  /** ms since something was written to it. */
  get idleMs(): number {
    return this.#clock.monotonic() - this.#lastUsedAt;
  }

  /** Whether a new message may start on it. */
  isUsable(limits: AccountLimits, usable: Usable = 'now'): boolean {
    const aheadMs = usable === 'now' ? 0 : Math.min(REPLACE_AHEAD_MS, limits.idleMs * REPLACE_AHEAD_SHARE);
    const then = this.#clock.monotonic() + aheadMs;
    return (
      this.#dead === undefined &&
      !this.#leaving &&
      this.#flights.length === 0 &&
      this.messages < limits.messagesPerConnection &&
      then - this.#openedAt < limits.maxAgeMs * this.#ageShare &&
      then - this.#lastUsedAt < limits.idleMs
    );
  }

  /** Writes `parts` in one go and waits for `expected` replies. Rejects with `ConnectionLost`. */
  flight(parts: readonly (string | Buffer)[], expected: number, timeoutMs: number): Promise<ParsedReply[]> {
    return this.flightUntil(parts, (replies) => replies.length === expected, timeoutMs);
  }

  /** The same, where the replies themselves show that they are all there. */
  flightUntil(
    parts: readonly (string | Buffer)[],
    isComplete: Flight['isComplete'],
    timeoutMs: number,
  ): Promise<ParsedReply[]> {
    const replies = this.#await(isComplete, timeoutMs);
    this.write(parts);
    return replies;
  }

  /** Waits for `expected` replies to what is being written; without `timeoutMs` as long as it takes. Rejects with `ConnectionLost`. */
  expect(expected: number, timeoutMs: number | undefined): Promise<ParsedReply[]> {
    return this.#await((replies) => replies.length === expected, timeoutMs);
  }

  #await(isComplete: Flight['isComplete'], timeoutMs: number | undefined): Promise<ParsedReply[]> {
    return new Promise((resolve, reject) => {
      if (this.#dead !== undefined) {
        reject(new ConnectionLost(this.#dead.how, this.#dead.detail, []));
        return;
      }
      this.#flights.push({ isComplete, replies: [], resolve, reject, limit: undefined });
      if (timeoutMs !== undefined) this.limitWait(timeoutMs);
    });
  }

  /** Limits the wait for the reply expected last, from now on. */
  limitWait(timeoutMs: number): void {
    const flight = this.#flights.at(-1);
    if (flight === undefined) return;
    const at = this.#clock.monotonic() + timeoutMs;
    flight.limit = { at, ms: timeoutMs };
    if (this.#watch === undefined || this.#watch.at > at) this.#watchUntil(at);
  }

  /** Not one for each flight: nearly all are over long before. */
  #watchUntil(at: number): void {
    this.#watch?.stop();
    const stop = this.#clock.after(at - this.#clock.monotonic(), () => {
      this.#watch = undefined;
      this.#endWaits();
    });
    this.#watch = { at, stop };
  }

  #endWaits(): void {
    const limits = this.#flights.flatMap(({ limit }) => (limit === undefined ? [] : [limit]));
    const [first] = limits.sort((a, b) => a.at - b.at);
    if (first === undefined) return;
    if (first.at > this.#clock.monotonic()) this.#watchUntil(first.at);
    else this.#die('timeout', `no reply within ${Number((first.ms / 1000).toFixed(1))} s`);
  }

  /** Writes without waiting; false: wait for `drained()` before writing more. */
  write(parts: readonly (string | Buffer)[]): boolean {
    if (this.#dead !== undefined) return true;
    this.#lastUsedAt = this.#clock.monotonic();
    const [only] = parts;
    if (parts.length === 1 && only !== undefined) return this.#socket.write(only);
    if (this.#socket.writableCorked === 0) {
      this.#socket.cork();
      eventLoop.atTurnEnd(this.#uncork);
    }
    for (const part of parts) this.#socket.write(part);
    if (!this.#socket.writableNeedDrain) return true;
    this.#uncork();
    return false;
  }

  /** Resolves when the socket takes more, or is gone; an upstream that takes nothing for `timeoutMs` is given up. */
  drained(timeoutMs: number): Promise<void> {
    if (this.#dead !== undefined || !this.#socket.writableNeedDrain) return Promise.resolve();
    return new Promise((resolve) => {
      const stop = this.#clock.after(timeoutMs, () =>
        this.#die('timeout', `took no data for ${timeoutMs / 1000} s`),
      );
      const done = (): void => {
        stop();
        this.#socket.off('drain', done);
        this.#socket.off('close', done);
        resolve();
      };
      this.#socket.on('drain', done);
      this.#socket.on('close', done);
    });
  }

  /** EHLO: reads what the server offers; resolves with whatever it answered. Rejects with `ConnectionLost`. */
  async ehlo(name: string, timeoutMs: number): Promise<ParsedReply> {
    const since = this.#clock.monotonic();
    const [reply] = await this.flight([`EHLO ${name}\r\n`], 1, timeoutMs);
    this.ehloMs = this.#clock.monotonic() - since;
    if (reply === undefined) throw new ConnectionLost('garbage', 'no reply to EHLO', []);
    if (reply.code === 250) {
      this.heloName = name;
      this.greeting = reply.lines.join('\n');
      this.capabilities = parseCapabilities(reply.lines);
    }
    return reply;
  }

  /** Says QUIT and closes. Resolves when the socket is gone; never rejects. */
  async quit(): Promise<void> {
    if (this.#dead !== undefined) return;
    this.onDead = undefined;
    await this.flight(['QUIT\r\n'], 1, QUIT_TIMEOUT_MS).catch(() => {});
    this.destroy();
  }

  /** Cuts the connection: nothing more is sent, an unfinished body stays unfinished. */
  destroy(): void {
    this.#die('eof', 'closed by the relay');
  }

  #onData(chunk: Buffer): void {
    let replies: ParsedReply[];
    try {
      replies = this.#parser.feed(chunk);
    } catch (error) {
      this.#die('garbage', error instanceof Error ? `upstream sent ${error.message}` : 'no SMTP');
      return;
    }
    const complete: Flight[] = [];
    if (replies.length > 0) this.#heardAt = this.#clock.monotonic();
    for (const reply of replies) {
      if (isFarewell(reply)) this.#leaving = true;
      const flight = this.#flights[0];
      if (flight === undefined) {
        for (const { resolve, replies } of complete) resolve(replies);
        this.saidTooMuch = !isFarewell(reply);
        // Said to nobody: the server ends an idle session, or is out of step. Either way it is over.
        this.#die(reply.code >= 400 ? 'eof' : 'garbage', 'upstream spoke unasked');
        return;
      }
      flight.replies.push(reply);
      if (flight.isComplete(flight.replies)) {
        this.#flights.shift();
        complete.push(flight);
      } else if (reply.code === 354) {
        // DATA stands last (RFC 2920 §3.1): what was said behind something else is read as a body.
        this.#die('garbage', 'upstream answered out of step');
        break;
      }
    }
    for (const flight of complete) flight.resolve(flight.replies);
    // Part of a reply that nobody waits for.
    if (this.#flights.length === 0 && this.#parser.unfinished) this.#die('garbage', 'upstream spoke unasked');
    // The server closes: commands pipelined behind its last word get no reply of their own.
    const last = replies.at(-1);
    if (last !== undefined && isFarewell(last)) this.#die('eof', `closed by the upstream with ${last.code}`);
  }

  #die(how: LossCause, detail: string): void {
    if (this.#dead !== undefined) return;
    this.#dead = { how, detail };
    this.#socket.destroy();
    this.#watch?.stop();
    for (const flight of this.#flights.splice(0))
      flight.reject(new ConnectionLost(how, detail, flight.replies));
    this.onDead?.();
    this.onDead = undefined;
  }
}
