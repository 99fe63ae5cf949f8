/**
 * A connection between being accepted and its session: the PROXY header is read, the handshake of implicit
 * TLS runs. In: sockets. Out: what the session needs to know. Owns the time this may take.
 */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import type { Clock } from '../clock.ts';
import { plainAddress } from '../protocol/cidr.ts';
import { parseProxyHeader } from '../protocol/proxy-header.ts';
import type { LimitName } from './counts.ts';
import type { Admission, Door } from './door.ts';
import type { ListenerOptions } from './options.ts';

/** What a session begins with. */
export interface Accepted {
  readonly id: string;
  readonly admission: Admission;
  /** When the connection was accepted, monotonic ms. */
  readonly at: number;
}

export interface AcceptDeps {
  readonly door: Door;
  readonly clock: Clock;
  readonly options: ListenerOptions;
  hit(limit: LimitName): void;
}

interface Waiting extends Accepted {
  readonly expectsHeader: boolean;
}

/** Connections that have no session yet. */
const waiting = new WeakMap<Socket, Waiting>();

/**
 * Counts a connection in. False where it was refused and is closed; a refusal that can be said waits for
 * the session. Else what to call when the session takes over; until then it has `handshakeMs`.
 */
export function acceptSocket(
  socket: Socket,
  isHandshake: boolean,
  { door, clock, options, hit }: AcceptDeps,
  pending: Map<Socket, Socket>,
): (() => void) | false {
  const peer = plainAddress(socket.remoteAddress ?? '');
  // Gone before it could be asked who it was: not to be taken for a UNIX socket's client, who is trusted. An address
  // of our own only TCP has: a descriptor handed over may be either.
  const isUnix =
    options.path !== undefined || (options.fd !== undefined && socket.localAddress === undefined);
  if (peer === '' && !isUnix) {
    socket.on('error', () => {});
    socket.destroy();
    return false;
  }
  const header = door.proxyHeader(peer);
  const admission = door.admit(peer);
  // From here on somebody must count it out: the session, or the end of a connection that never has one.
  const leave = (): void => admission.leave();
  socket.once('close', leave);
  if (admission.refusal !== undefined && (isHandshake || header !== 'none')) {
    socket.on('error', () => {});
    socket.destroy();
    return false;
  }
  const id = BigInt(`0x${randomBytes(10).toString('hex')}`)
    .toString(32)
    .padStart(16, '0');
  waiting.set(socket, { id, admission, at: clock.monotonic(), expectsHeader: header === 'expected' });
  if (!isHandshake && header === 'none') return () => void socket.off('close', leave);
  pending.set(socket, socket);
  const stop = clock.after(options.limits.handshakeMs, () => {
    hit('handshake');
    // From the top: a socket destroyed underneath a TLS handshake can take the process with it.
    (pending.get(socket) ?? socket).destroy();
  });
  const release = (): void => {
    stop();
    pending.delete(socket);
  };
  socket.once('close', release);
  return () => {
    release();
    socket.off('close', release);
  };
}

/** Reads the PROXY header where one must come, and not an octet more. */
export function readProxyHeader(
  socket: Socket,
  callback: (error: Error | null, accepted?: Accepted) => void,
): void {
  const accepted = waiting.get(socket);
  if (accepted === undefined) {
    socket.destroy();
    callback(new Error('not accepted'));
    return;
  }
  if (!accepted.expectsHeader) {
    setImmediate(() => {
      if (!socket.destroyed) callback(null, accepted);
      else {
        // Ended meanwhile, by a stop. TLS on top of a closed socket takes the process with it: it is asked after its protocol.
        accepted.admission.leave();
        callback(new Error('closed'));
      }
    });
    return;
  }
  let octets = Buffer.alloc(0);
  const stop = (): void => {
    socket.off('readable', read).off('close', fail).off('end', fail).off('error', fail);
  };
  function fail(): void {
    stop();
    socket.on('error', () => {});
    socket.destroy();
    callback(new Error('no valid PROXY header'));
  }
  function read(): void {
    for (;;) {
      const header = parseProxyHeader(octets);
      if (header.state === 'invalid') {
        fail();
        return;
      }
      if (header.state === 'complete') {
        stop();
        accepted?.admission.told(header.source === undefined ? undefined : plainAddress(header.source));
        callback(null, accepted);
        return;
      }
      const more: Buffer | null = socket.read(header.needs - octets.length);
      if (more === null) return;
      octets = Buffer.concat([octets, more]);
    }
  }
  socket.on('readable', read).on('close', fail).on('end', fail).on('error', fail);
  read();
}
