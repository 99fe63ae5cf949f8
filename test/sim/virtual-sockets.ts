/**
 * Sockets of `node:net` and `node:tls` over the world's network, for libraries that open their own:
 * smtp-server's server and nodemailer's connections. TLS is not simulated: a TLS socket is a plain one
 * that says it is secure. Installed once per process.
 */
import { EventEmitter } from 'node:events';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { Duplex } from 'node:stream';
import { type End, type Network, SILENT } from './network.ts';
import { inhabited } from './virtual-time.ts';
import type { Scheduled } from './world.ts';

const require = createRequire(import.meta.url);
let network: Network | undefined;

export function useNetwork(used: Network): void {
  network = used;
}

function net(): Network {
  if (network === undefined) throw new Error('no network');
  return network;
}

type Done = (error?: Error | null) => void;

class VirtualSocket extends Duplex {
  readonly encrypted: boolean;
  readonly authorized = true;
  readonly remoteAddress: string;
  readonly remotePort = 25;
  readonly localAddress = '127.0.0.1';
  readonly localPort = 25;
  connecting: boolean;
  timeout = 0;
  bytesRead = 0;
  #end: End;
  #lastActive = 0;
  #idle: Scheduled | undefined;
  #isFinHeard = false;
  /** The TLS socket that took the connection over. */
  #secured: VirtualSocket | undefined;
  /** Octets written before the connection was there. */
  #early: (() => void)[] = [];

  constructor(
    end: End | undefined,
    options: { readonly allowHalfOpen: boolean; readonly secure: boolean; readonly place?: string },
  ) {
    super({ allowHalfOpen: options.allowHalfOpen, emitClose: true, decodeStrings: true });
    this.encrypted = options.secure;
    this.connecting = end === undefined;
    this.remoteAddress = '127.0.0.1';
    this.#end = end ?? net().dial(inhabited().current, options.place ?? '', SILENT);
    this.#listen();
  }

  #listen(): void {
    this.#end.ears = {
      connected: () => {
        this.connecting = false;
        this.#touch();
        for (const send of this.#early.splice(0)) send();
        this.emit('connect');
        if (this.encrypted) this.emit('secureConnect');
        this.emit('ready');
      },
      refused: (code) => this.destroy(systemError(code, 'connect')),
      octets: (chunk) => {
        this.#touch();
        this.bytesRead += chunk.length;
        return this.push(chunk);
      },
      fin: () => {
        this.#isFinHeard = true;
        this.push(null);
        // A paused socket learns of the end all the same, as with a real one.
        if (this.readableFlowing === null) this.read(0);
      },
      reset: () => this.destroy(systemError('ECONNRESET', 'read')),
    };
  }

  /** A TLS socket over this one, which is done with. */
  secure(): VirtualSocket {
    const secured = new VirtualSocket(this.#end, { allowHalfOpen: false, secure: true });
    this.#idle?.cancel();
    const early: Buffer | null = this.read();
    if (early !== null) secured.push(early);
    this.#secured = secured;
    const isGone = this.#isFinHeard && early === null;
    if (this.#isFinHeard && !isGone) secured.#end.ears.fin();
    inhabited().after(this.#end.actor, 0, () => {
      if (secured.destroyed) return;
      if (isGone) secured.destroy(systemError('ECONNRESET', 'handshake'));
      else secured.emit('secureConnect');
    });
    return secured;
  }

  get readyState(): string {
    if (this.connecting) return 'opening';
    return this.readable && this.writable ? 'open' : this.writable ? 'writeOnly' : 'readOnly';
  }

  override _read(): void {
    this.#end.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#whenConnected(() => {
      this.#touch();
      this.#end.send(chunk, () => {
        this.#touch();
        done();
      });
    });
  }

  override _writev(chunks: { chunk: Buffer }[], done: Done): void {
    this._write(Buffer.concat(chunks.map((c) => c.chunk)), 'utf8', done);
  }

  override _final(done: Done): void {
    this.#whenConnected(() => {
      this.#end.finish();
      done();
    });
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#idle?.cancel();
    this.#early = [];
    this.connecting = false;
    if (this.#secured === undefined) this.#end.close();
    else this.#secured.destroy();
    done(error);
  }

  setTimeout(ms: number, listener?: () => void): this {
    if (this.destroyed) return this;
    this.timeout = ms;
    this.#idle?.cancel();
    this.#idle = undefined;
    if (ms > 0) {
      if (listener !== undefined) this.once('timeout', listener);
      this.#touch();
      this.#arm(ms);
    } else if (listener !== undefined) this.off('timeout', listener);
    return this;
  }

  #arm(ms: number): void {
    this.#idle = inhabited().after(
      this.#end.actor,
      ms,
      () => {
        const quiet = inhabited().now - this.#lastActive;
        if (quiet < this.timeout) this.#arm(this.timeout - quiet);
        else {
          this.#touch();
          this.#arm(this.timeout);
          this.emit('timeout');
        }
      },
      'socket timeout',
    );
  }

  #touch(): void {
    this.#lastActive = inhabited().now;
  }

  #whenConnected(task: () => void): void {
    if (this.connecting) this.#early.push(task);
    else task();
  }

  resetAndDestroy(): this {
    this.#end.abort();
    return this.destroy();
  }
  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }
  address(): object {
    return { address: this.localAddress, port: this.localPort, family: 'IPv4' };
  }
  setNoDelay(): this {
    return this;
  }
  setKeepAlive(): this {
    return this;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
  getSession(): undefined {
    return undefined;
  }
  getProtocol(): string {
    return 'TLSv1.3';
  }
  getCipher(): object {
    return { name: 'TLS_AES_256_GCM_SHA384', standardName: 'TLS_AES_256_GCM_SHA384', version: 'TLSv1.3' };
  }
}

function systemError(code: string, syscall: string): Error {
  return Object.assign(new Error(`${syscall} ${code}`), { code, syscall, errno: -1 });
}

interface ListenOptions {
  readonly socket?: VirtualSocket;
  readonly port?: number;
  readonly host?: string;
  readonly path?: string;
}

/** `net.Server` as far as a listener needs it. */
class VirtualServer extends EventEmitter {
  listening = false;
  readonly #options: { readonly allowHalfOpen?: boolean };
  #close: (() => void) | undefined;
  #place = '';
  #open = 0;
  #whenEmpty: (() => void) | undefined;

  constructor(options: { readonly allowHalfOpen?: boolean }, accept: (socket: VirtualSocket) => void) {
    super();
    this.#options = options;
    this.on('connection', accept);
  }

  listen(first: number | string | ListenOptions, ...rest: unknown[]): this {
    const callback = rest.find((r): r is () => void => typeof r === 'function');
    if (callback !== undefined) this.once('listening', callback);
    const { current } = inhabited();
    const port = typeof first === 'object' ? first.port : first;
    this.#place = `${current.name}:${port}`;
    this.#close = net().listen(this.#place, current, (end) => {
      this.#open += 1;
      const socket = new VirtualSocket(end, {
        allowHalfOpen: this.#options.allowHalfOpen ?? false,
        secure: false,
      });
      socket.once('close', () => {
        this.#open -= 1;
        this.#checkEmpty();
      });
      this.emit('connection', socket);
    });
    this.listening = true;
    process.nextTick(() => this.emit('listening'));
    return this;
  }

  close(callback?: () => void): this {
    if (callback !== undefined) this.once('close', callback);
    this.#close?.();
    this.#close = undefined;
    this.listening = false;
    this.#whenEmpty = () => this.emit('close');
    process.nextTick(() => this.#checkEmpty());
    return this;
  }

  #checkEmpty(): void {
    if (this.#open > 0 || this.#whenEmpty === undefined) return;
    const closed = this.#whenEmpty;
    this.#whenEmpty = undefined;
    closed();
  }

  address(): object {
    return { address: '127.0.0.1', port: Number(this.#place.split(':').at(-1)), family: 'IPv4' };
  }
  getConnections(callback: (error: Error | null, count: number) => void): void {
    process.nextTick(callback, null, this.#open);
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
}

function connect(secure: boolean) {
  return (options: ListenOptions, ...rest: unknown[]): VirtualSocket => {
    const callback = rest.find((r): r is () => void => typeof r === 'function');
    if (options.socket !== undefined) {
      const secured = options.socket.secure();
      if (callback !== undefined) secured.once('secureConnect', callback);
      return secured;
    }
    const socket = new VirtualSocket(undefined, {
      allowHalfOpen: false,
      secure,
      place: `${options.host}:${options.port}`,
    });
    if (callback !== undefined) socket.once(secure ? 'secureConnect' : 'connect', callback);
    return socket;
  };
}

export function installVirtualSockets(): void {
  Object.assign(require('node:net'), {
    createServer: (options: object, accept: (socket: VirtualSocket) => void) =>
      new VirtualServer(options, accept),
    connect: connect(false),
    createConnection: connect(false),
  });
  Object.assign(require('node:tls'), { connect: connect(true) });
  syncBuiltinESMExports();
}
