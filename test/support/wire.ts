/**
 * One SMTP server's side of a socket: buffered reading by line, by count and by dot-terminated body;
 * replies that leave together when more input is needed. Counts flights.
 */
import type { Socket } from 'node:net';

/** Held input above which the socket is paused, octets. */
const PAUSE_ABOVE = 1024 * 1024;
const CRLF_DOT = Buffer.from('\r\n.');

interface Chunk {
  bytes: Buffer;
  /** How many reply bursts had been written when it arrived. */
  readonly epoch: number;
}

/** How replies reach the socket. */
export interface WireTiming {
  /** Replies are held this long before they are written, ms: the round trip of a distant server. */
  latencyMs: number;
  /** Replies go out one octet per event-loop turn. */
  splitReplies: boolean;
}

/** The peer has gone, or the server has: no more input will come. */
export class WireClosed extends Error {
  override readonly name = 'WireClosed';
}

export class Wire {
  /** Client bursts that began after a burst of replies: round trips. */
  flights = 0;
  socket: Socket;
  readonly #tcp: Socket;
  readonly #timing: WireTiming;
  #input: Chunk[] = [];
  #held = 0;
  #epoch = 0;
  #countedEpoch = -1;
  #output: Buffer[] = [];
  #ended = false;
  #wake: (() => void) | undefined;
  #writing: Promise<void> = Promise.resolve();
  #isHolding = false;

  constructor(socket: Socket, timing: WireTiming) {
    this.socket = socket;
    this.#tcp = socket;
    this.#timing = timing;
    this.attach(socket);
  }

  /** Goes on over another socket (after STARTTLS); input already held is dropped (RFC 3207 §4.2). */
  attach(socket: Socket): void {
    this.socket = socket;
    this.#input = [];
    this.#held = 0;
    socket.on('data', (bytes: Buffer) => {
      if (this.#ended) return;
      this.#input.push({ bytes, epoch: this.#epoch });
      this.#held += bytes.length;
      if (this.#held > PAUSE_ABOVE) socket.pause();
      this.#notify();
    });
    const over = (): void => {
      if (this.socket !== socket) return;
      this.#ended = true;
      this.#notify();
    };
    socket.on('end', over).on('close', over).on('error', over);
  }

  detach(): void {
    this.socket.removeAllListeners('data');
    this.socket.removeAllListeners('end');
  }

  get ended(): boolean {
    return this.#ended;
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  /** Writes what is waiting, then waits for more input. Throws `WireClosed` when none will come. */
  async #more(): Promise<void> {
    this.flush();
    if (this.#ended) throw new WireClosed('the peer has gone');
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  /** One octet each `everyMs` until the peer has gone. */
  async drip(everyMs: number): Promise<void> {
    while (!this.#ended) {
      this.say(Buffer.from('2'));
      await this.flush();
      await new Promise((resolve) => setTimeout(resolve, everyMs));
    }
  }

  /** Resolves when the peer has gone. */
  async gone(): Promise<void> {
    while (!this.#ended) {
      this.#drop();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #drop(): void {
    this.#input = [];
    this.#held = 0;
    if (this.socket.isPaused()) this.socket.resume();
  }

  /** Takes the first `count` octets of what is held; `count` may not exceed the first chunk. */
  #take(count: number): Buffer {
    const first = this.#input[0];
    if (first === undefined) return Buffer.alloc(0);
    const taken = first.bytes.subarray(0, count);
    if (count >= first.bytes.length) this.#input.shift();
    else first.bytes = first.bytes.subarray(count);
    this.#held -= taken.length;
    if (this.#held <= PAUSE_ABOVE && this.socket.isPaused()) this.socket.resume();
    return taken;
  }

  /** A command or a body begins with the next octet: counts a flight if it came after replies. */
  #beginUnit(): void {
    const epoch = this.#input[0]?.epoch;
    if (epoch === undefined || epoch === this.#countedEpoch) return;
    this.#countedEpoch = epoch;
    this.flights += 1;
  }

  /** The next line without its CRLF or LF, octets as latin1 so that nothing is lost. */
  async line(maxOctets = 65_536): Promise<string> {
    while (this.#input.length === 0) await this.#more();
    this.#beginUnit();
    let line = '';
    for (;;) {
      while (this.#input.length === 0) await this.#more();
      const first = this.#input[0]?.bytes ?? Buffer.alloc(0);
      const lf = first.indexOf(0x0a);
      line += this.#take(lf < 0 ? first.length : lf + 1).toString('latin1');
      if (lf >= 0) return line.replace(/\r?\n$/, '');
      if (line.length > maxOctets) throw new WireClosed('endless line');
    }
  }

  /** Exactly `count` octets, handed over as they come. */
  async octets(count: number, sink: (bytes: Buffer) => void): Promise<void> {
    for (let left = count; left > 0; ) {
      while (this.#input.length === 0) await this.#more();
      const part = this.#take(Math.min(left, this.#input[0]?.bytes.length ?? 0));
      left -= part.length;
      sink(part);
    }
  }

  /** A body up to CRLF.CRLF, dot-stuffing removed (RFC 5321 §4.5.2); only exactly CRLF ends a line. */
  async dotted(sink: (bytes: Buffer) => void): Promise<void> {
    while (this.#input.length === 0) await this.#more();
    this.#beginUnit();
    // The line end before the body is a virtual one: it makes a dot in the first line special too.
    let pending: Buffer = Buffer.from('\r\n');
    let skip = 2;
    const emit = (bytes: Buffer): void => {
      const cut = Math.min(skip, bytes.length);
      skip -= cut;
      if (bytes.length > cut) sink(bytes.subarray(cut));
    };
    for (;;) {
      while (this.#input.length === 0) await this.#more();
      const epoch = this.#input[0]?.epoch ?? this.#epoch;
      const chunk = this.#take(this.#input[0]?.bytes.length ?? 0);
      const bytes = Buffer.concat([pending, chunk]);
      let from = 0;
      for (;;) {
        const at = bytes.indexOf(CRLF_DOT, from);
        if (at < 0) {
          const keep = bytes.length - from >= 2 && bytes.at(-2) === 0x0d && bytes.at(-1) === 0x0a ? 2 : 1;
          const end = Math.max(from, bytes.length - keep);
          emit(bytes.subarray(from, end));
          pending = bytes.subarray(end);
          break;
        }
        if (at + 5 > bytes.length) {
          emit(bytes.subarray(from, at));
          pending = bytes.subarray(at);
          break;
        }
        emit(bytes.subarray(from, at + 2));
        if (bytes[at + 3] === 0x0d && bytes[at + 4] === 0x0a) {
          const rest = bytes.subarray(at + 5);
          if (rest.length > 0) {
            this.#input.unshift({ bytes: rest, epoch });
            this.#held += rest.length;
          }
          return;
        }
        from = at + 3;
      }
    }
  }

  /** Writes what is waiting; replies from now on come so much later, ms. */
  async holdReplies(ms: number): Promise<void> {
    await this.flush();
    this.#isHolding = true;
    setTimeout(() => {
      this.#isHolding = false;
      void this.flush();
    }, ms);
  }

  /** Adds to the replies of this burst. */
  say(bytes: string | Buffer): void {
    this.#output.push(typeof bytes === 'string' ? Buffer.from(`${bytes}\r\n`, 'utf8') : bytes);
  }

  /** Writes the waiting replies as one burst; resolves when the socket has taken them. */
  flush(): Promise<void> {
    if (this.#output.length === 0 || this.#isHolding) return this.#writing;
    const bytes = Buffer.concat(this.#output);
    this.#output = [];
    const socket = this.socket;
    const { latencyMs, splitReplies } = this.#timing;
    const due = Date.now() + latencyMs;
    if (latencyMs === 0 && !splitReplies) {
      this.#put(socket, bytes);
      return this.#writing;
    }
    this.#writing = this.#writing.then(async () => {
      const wait = due - Date.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      if (!splitReplies) {
        this.#put(socket, bytes);
        return;
      }
      for (let i = 0; i < bytes.length; i++) {
        this.#put(socket, bytes.subarray(i, i + 1));
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    return this.#writing;
  }

  #put(socket: Socket, bytes: Buffer): void {
    this.#epoch += 1;
    if (socket.writable) socket.write(bytes);
  }

  /** Writes what is waiting, then FIN; nothing that comes later is read as a command. */
  async close(): Promise<void> {
    this.#ended = true;
    await this.flush();
    this.socket.end();
    // Drained until the peer's FIN: destroying with unread input would turn the close into a reset.
    this.#drop();
    this.#notify();
  }

  /** RST, whatever runs on top of the TCP connection. */
  reset(): void {
    this.#tcp.resetAndDestroy();
    this.socket.destroy();
    this.#ended = true;
    this.#notify();
  }
}
