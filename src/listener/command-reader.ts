/**
 * The octets a client sends, cut into command lines and bodies. In: chunks, piped from the socket. Out:
 * one line at a time to `onLine`, or content to a `BodySink`; nothing more is read from the socket until
 * each has been dealt with. Owns what has not been dealt with: part of a line, at most one chunk.
 */
import { isUtf8 } from 'node:buffer';
import { type BareLineEnds, type BodyDecoder, createBodyDecoder } from '../protocol/body-decoder.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import { ChunkSink } from './chunk-sink.ts';
import type { Intake } from './intake.ts';
import { COSTLY_OCTETS, LINE_COST, type TurnShare } from './turn-share.ts';

/** Why a line cannot be a command. */
export type LineFault = 'too_long' | 'bare_line_end' | 'control_character' | 'not_utf8';

/** What the client hears of it. */
export const FAULTS: Readonly<Record<LineFault, Reply>> = {
  too_long: reply(500, '5.5.6', 'Line too long'),
  bare_line_end: reply(
    500,
    '5.5.2',
    'Lines end with CRLF (RFC 5321 section 2.3.8); --bare-line-ends normalize takes LF',
  ),
  control_character: reply(500, '5.5.2', 'Control character in command'),
  not_utf8: reply(500, '5.5.2', 'Command is not UTF-8'),
};

/** Where the octets of a body go. */
export interface BodySink {
  readonly body: Pick<Intake, 'bareLineEnds' | 'write' | 'fault' | 'sizeChanged'>;
  /** The body is complete. Resolves when the client has been answered. Never rejects. */
  end(): Promise<void>;
}

export interface CommandReaderOptions {
  readonly maxCommandOctets: number;
  readonly bareLineEnds: BareLineEnds;
  readonly share: TurnShare;
  /** The client has been heard. */
  readonly onActive: () => void;
  /**
   * `done` must be called once the command is dealt with; the next line comes then. `rcptFollows`: the
   * next line is there already, and it is a RCPT without fault.
   */
  readonly onLine: (
    line: string,
    fault: LineFault | undefined,
    done: () => void,
    rcptFollows: boolean,
  ) => void;
  /** The client has sent its last octet and everything before it has been dealt with. */
  readonly onInputEnd: () => void;
  /** Replies are not taken off fast enough: calls back when they are. */
  readonly whenWritable: (next: () => void) => void;
}

const LF = 0x0a;
const CR = 0x0d;
const RCPT = /^RCPT /i;
const NOT_PRINTABLE_ASCII = /[^ -~]/;
/** Not TAB: whether that may stand for a blank depends on the client. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: finding them is the purpose
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f]/;

export class CommandReader extends ChunkSink {
  /** Set by smtp-server when the session is over: what is left is dropped. */
  isClosed = false;
  readonly #options: CommandReaderOptions;
  #partial: Buffer | undefined;
  #isDiscarding = false;
  #sink: BodySink | undefined;
  #decoder: BodyDecoder | undefined;
  #isSinkWaiting = false;
  /** Octets of the chunk at hand, up to the end of the line or body that was emitted last. */
  #emitted = 0;

  constructor(options: CommandReaderOptions) {
    super();
    this.#options = options;
  }

  /** Whether it is us the client waits for: an upstream that takes no more, or the final reply. */
  get isSinkWaiting(): boolean {
    return this.#isSinkWaiting;
  }

  /** Whether anything has come behind the line or body that is being dealt with. */
  get isAhead(): boolean {
    return this.writableLength > this.#emitted;
  }

  /** What follows the current line is a body. Call before `done`. */
  startBody(sink: BodySink): void {
    this.#sink = sink;
    this.#decoder = createBodyDecoder(sink.body.bareLineEnds);
  }

  protected override take(chunk: Buffer, next: () => void): void {
    const { onActive, share } = this.#options;
    onActive();
    if (share.isFree) this.#take(chunk, 0, next);
    else share.whenLeft(() => this.#take(chunk, 0, next));
  }

  protected override ended(): void {
    if (!this.isClosed) this.#options.onInputEnd();
  }

  #take(chunk: Buffer, from: number, next: () => void): void {
    if (this.isClosed) next();
    else if (this.#sink !== undefined) this.#readBody(chunk, from, next);
    else this.#readLines(chunk, from, next);
  }

  #readLines(chunk: Buffer, from: number, next: () => void): void {
    const { share, whenWritable } = this.#options;
    let at = from;
    let isRunning = false;
    let isDone = true;
    // Lines dealt with at once are taken in a loop, so that a chunk full of them does not grow the stack.
    const run = (): void => {
      isRunning = true;
      while (isDone && !share.isSpent) {
        isDone = false;
        const lf = at < chunk.length ? chunk.indexOf(LF, at) : -1;
        if (this.isClosed || this.#sink !== undefined || lf < 0) {
          this.#leaveLines(chunk, at, next);
          return;
        }
        const start = at;
        at = lf + 1;
        share.spend(LINE_COST);
        this.#emitted = at;
        this.#emitLine(chunk, start, lf, done);
      }
      isRunning = false;
      if (isDone) share.whenLeft(run);
    };
    const done = (): void =>
      whenWritable(() => {
        isDone = true;
        if (!isRunning) share.whenLeft(run);
      });
    run();
  }

  #leaveLines(chunk: Buffer, at: number, next: () => void): void {
    if (this.#sink !== undefined && !this.isClosed) {
      this.#readBody(chunk, at, next);
      return;
    }
    this.#keepPartial(chunk, at);
    next();
  }

  #keepPartial(chunk: Buffer, at: number): void {
    if (at >= chunk.length || this.#isDiscarding) return;
    const rest = at === 0 ? chunk : chunk.subarray(at);
    this.#partial = this.#partial === undefined ? rest : Buffer.concat([this.#partial, rest]);
    if (this.#partial.length > this.#options.maxCommandOctets + 1) {
      this.#partial = undefined;
      this.#isDiscarding = true;
    }
  }

  #emitLine(chunk: Buffer, start: number, lf: number, done: () => void): void {
    const { onLine } = this.#options;
    if (this.#isDiscarding) {
      this.#isDiscarding = false;
      onLine('', 'too_long', done, false);
      return;
    }
    let line = chunk.subarray(start, lf);
    if (this.#partial !== undefined) {
      line = Buffer.concat([this.#partial, line]);
      this.#partial = undefined;
    }
    const isCrLf = line[line.length - 1] === CR;
    if (isCrLf) line = line.subarray(0, -1);
    const text = line.toString('latin1');
    const fault = this.#faultOf(line, text, isCrLf);
    if (fault !== undefined) onLine('', fault, done, false);
    else {
      const shown = NOT_PRINTABLE_ASCII.test(text) ? line.toString() : text;
      onLine(shown, undefined, done, this.#isRcpt(chunk, lf + 1));
    }
  }

  /** Whether a whole line without fault that begins with RCPT stands at `at`. */
  #isRcpt(chunk: Buffer, at: number): boolean {
    if (!RCPT.test(chunk.toString('latin1', at, at + 5))) return false;
    const lf = chunk.indexOf(LF, at);
    if (lf < 0 || lf - at > this.#options.maxCommandOctets || chunk[lf - 1] !== CR) return false;
    return !NOT_PRINTABLE_ASCII.test(chunk.toString('latin1', at, lf - 1));
  }

  /** A LF ends a line in any case, so that one refused for it is answered and not waited on. */
  #faultOf(line: Buffer, text: string, isCrLf: boolean): LineFault | undefined {
    if (line.length > this.#options.maxCommandOctets) return 'too_long';
    if (!isCrLf && this.#options.bareLineEnds === 'reject') return 'bare_line_end';
    if (!NOT_PRINTABLE_ASCII.test(text)) return undefined;
    if (CONTROL.test(text)) return 'control_character';
    return isUtf8(line) ? undefined : 'not_utf8';
  }

  #readBody(chunk: Buffer, from: number, next: () => void): void {
    const sink = this.#sink;
    const decoder = this.#decoder;
    if (sink === undefined || decoder === undefined) {
      next();
      return;
    }
    const pieces: Buffer[] = [];
    const hadFault = decoder.fault() !== undefined;
    const wasLonger = decoder.isLonger();
    const end = decoder.decode(chunk, from, pieces);
    // Judged whole before any of it is written on.
    const fault = decoder.fault();
    if (fault !== undefined) {
      pieces.length = 0;
      if (!hadFault) sink.body.fault(fault);
    }
    if (decoder.isLonger() && !wasLonger) sink.body.sizeChanged();
    const isPassedOn = pieces.length < 2 && pieces[0]?.buffer === chunk.buffer;
    if (!isPassedOn)
      this.#options.share.spend(Math.ceil(((end < 0 ? chunk.length : end) - from) / COSTLY_OCTETS));
    const finish = (): void => {
      if (end < 0) {
        next();
        return;
      }
      this.#sink = undefined;
      this.#decoder = undefined;
      this.#isSinkWaiting = true;
      this.#emitted = end;
      void sink.end().then(() => {
        this.#isSinkWaiting = false;
        this.#take(chunk, end, next);
      });
    };
    for (const [i, piece] of pieces.entries()) {
      const wait = sink.body.write(piece);
      if (wait !== undefined) {
        this.#isSinkWaiting = true;
        void this.#writeRest(wait, sink, pieces, i + 1).then(finish);
        return;
      }
    }
    finish();
  }

  async #writeRest(
    wait: Promise<void>,
    sink: BodySink,
    pieces: readonly Buffer[],
    from: number,
  ): Promise<void> {
    await wait;
    for (let i = from; i < pieces.length; i++) {
      const piece = pieces[i];
      if (piece !== undefined && !this.isClosed) await sink.body.write(piece);
    }
    this.#isSinkWaiting = false;
  }
}
