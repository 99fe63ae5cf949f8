/**
 * Who may come in. In: connections as they are accepted, and what a PROXY header says of them later.
 * Out: a refusal or none, and what is known of the client. Owns the count of sessions, in all and per
 * address, from the accepted connection on: handshakes and headers that never come count, too.
 */
import type { Log } from '../log.ts';
import { isLoopbackAddress, parseRanges } from '../protocol/cidr.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import type { Tally } from './counts.ts';
import { trustsSomebody } from './exposure.ts';
import { lockoutKey } from './lockout.ts';
import type { ListenerOptions } from './options.ts';

/** What is known of a client by its connection. */
export interface Origin {
  /** Empty for a UNIX socket. */
  readonly remoteAddress: string;
  /** A program of this machine. Never one that a PROXY header tells of. */
  readonly isLocal: boolean;
  /** As trustworthy as this machine: local to a listener only this machine reaches, or named in `allow`. */
  readonly isTrusted: boolean;
  /** AUTH in clear text leaves no machine that is not trusted anyway. */
  readonly mayAuthInClear: boolean;
}

/** One connection from the moment it is accepted. */
export interface Admission {
  readonly refusal: Reply | undefined;
  readonly origin: Origin;
  /** A PROXY header came: from now on the client is this address; undefined where the proxy told none. */
  told(address: string | undefined): void;
  /** Counts it out. Idempotent. */
  leave(): void;
}

export interface Door {
  /** Counts the connection in; a refused one as well, until it leaves. */
  admit(peer: string): Admission;
  /** What has to come first from this peer; `refused` where a header would be needed and is not believed. */
  proxyHeader(peer: string): 'none' | 'expected' | 'refused';
  readonly sessions: number;
  /** No more; calls back when the last one has left. */
  close(whenEmpty: () => void): void;
}

export interface DoorDeps {
  readonly tally: Tally;
  readonly log: Log;
}

/** Throws a `RangeError` naming a range that is none. */
export function createDoor({ tally, log }: DoorDeps, options: ListenerOptions): Door {
  const { limits, proxyProtocol } = options;
  const isAllowed = parseRanges(options.allow);
  const mayTell = parseRanges(options.proxyFrom);
  const isProxy = typeof proxyProtocol === 'boolean' ? () => proxyProtocol : parseRanges(proxyProtocol);
  const perAddress = new Map<string, number>();
  let sessions = 0;
  let whenEmpty: (() => void) | undefined;

  const count = (key: string, by: 1 | -1): number => {
    const next = (perAddress.get(key) ?? 0) + by;
    if (next === 0) perAddress.delete(key);
    else perAddress.set(key, next);
    return next;
  };

  function originOf(remoteAddress: string, via: 'itself' | 'header' | 'silent header'): Origin {
    const isNamed = options.allow.length > 0 && isAllowed(remoteAddress) && via !== 'silent header';
    const isHere = via === 'itself' && (remoteAddress === '' || isLoopbackAddress(remoteAddress));
    const isTrusted = isNamed || (isHere && trustsSomebody(options));
    return {
      remoteAddress,
      isLocal: isHere,
      isTrusted,
      mayAuthInClear: isHere || (isTrusted && (via === 'itself' || !isLoopbackAddress(remoteAddress))),
    };
  }

  function refusalOf(origin: Origin, fromThere: number, isTold: boolean): Reply | undefined {
    if (whenEmpty !== undefined) return reply(421, '4.3.2', 'Shutting down, try again later');
    // A proxy that tells no address asks whether we are there; it may not send.
    const isSubject = options.allow.length > 0 && origin.remoteAddress !== '' && isTold;
    if (isSubject && !isAllowed(origin.remoteAddress)) {
      tally.hit('not_allowed');
      return reply(554, '5.7.1', 'Your address may not send here');
    }
    if (sessions > limits.maxSessions) {
      tally.hit('sessions');
      return reply(421, '4.3.2', 'Too many sessions, try again later');
    }
    if (fromThere > limits.maxSessionsPerAddress) {
      tally.hit('sessions_per_address');
      return reply(421, '4.7.0', 'Too many sessions from your address');
    }
    return undefined;
  }

  function proxyHeader(peer: string): 'none' | 'expected' | 'refused' {
    if (!isProxy(peer)) return 'none';
    return options.proxyFrom.length === 0 || peer === '' || mayTell(peer) ? 'expected' : 'refused';
  }

  return {
    get sessions() {
      return sessions;
    },
    proxyHeader,
    admit(peer) {
      let key = lockoutKey(peer);
      let origin = originOf(peer, 'itself');
      let isIn = true;
      let refusal: Reply | undefined;
      const refuse = (r: Reply | undefined): void => {
        if (r === undefined || refusal !== undefined) return;
        refusal = r;
        tally.refusedTotal += 1;
        log.warn(
          { event: 'session_refused', client: origin.remoteAddress, reply: r.text },
          'session refused',
        );
      };
      sessions += 1;
      tally.sessionsTotal += 1;
      const header = proxyHeader(peer);
      const fromThere = count(key, 1);
      if (header === 'refused') {
        tally.hit('not_allowed');
        refuse(reply(554, '5.7.1', 'Your address may not speak for others'));
      } else refuse(refusalOf(origin, fromThere, header === 'none'));
      return {
        get refusal() {
          return refusal;
        },
        get origin() {
          return origin;
        },
        told(address) {
          if (!isIn) return;
          count(key, -1);
          origin = address === undefined ? originOf(peer, 'silent header') : originOf(address, 'header');
          key = lockoutKey(origin.remoteAddress);
          refuse(refusalOf(origin, count(key, 1), address !== undefined));
        },
        leave() {
          if (!isIn) return;
          isIn = false;
          sessions -= 1;
          count(key, -1);
          if (sessions === 0) whenEmpty?.();
        },
      };
    },
    close(then) {
      whenEmpty = then;
      if (sessions === 0) then();
    },
  };
}
