/**
 * Reaches a server at one of its addresses (RFC 8305), or through a proxy. In: host and port. Out: a connected stream.
 * Both families in turn, the next address after 250 ms while the first still tries; an address that
 * failed, was overtaken or did not greet comes last for some minutes. DNS is asked for every dialing,
 * so an answer is kept by nobody but the system's resolver, which knows how long it may.
 */

import { lookup } from 'node:dns/promises';
import { connect as connectTcp, isIP, isIPv6, type Socket } from 'node:net';
import type { SmtpProxy } from '../accounts/account.ts';
import { type Clock, systemClock } from '../clock.ts';
import { eventLoop } from '../event-loop.ts';
import { orMake } from '../or-make.ts';
import { formatProxy, openTunnel, ProxyError } from './proxy.ts';

export interface DialTarget {
  readonly host: string;
  readonly port: number;
  /** On the way there. */
  readonly proxy?: SmtpProxy | undefined;
  /** Source address; only addresses of its family are tried. */
  readonly localAddress?: string | undefined;
}

/** A stream to the server. Whoever takes it closes it. */
export interface Dialed {
  readonly stream: Socket;
  readonly address: string;
  /** Where the stream leads, for people. */
  readonly path: string;
  /** The host has further addresses that are not known to be bad. */
  readonly hasOthers: boolean;
  /** Whether the server there greeted as it should; if not, other addresses come first for a while. */
  judged(greeted: boolean): void;
}

/** Rejects with a system error (`ENOTFOUND`, `ECONNREFUSED`, …) or, once `signal` aborts, with its reason. */
export type Dial = (target: DialTarget, signal: AbortSignal, observer?: DialObserver) => Promise<Dialed>;

export interface DialObserver {
  /** Addresses in the order in which they are tried. */
  resolved?(addresses: readonly string[]): void;
}

/** RFC 8305 §5: Connection Attempt Delay, 250 ms recommended. */
const NEXT_ADDRESS_MS = 250;
/** How long a bad address comes last. A server that is restarted takes a minute or two. */
const BAD_MS = 5 * 60_000;
/** An earlier answer stands in for a resolver that fails (RFC 8767 allows days), never for one that says no. */
const STALE_ANSWER_MS = 60 * 60_000;

export interface DialerOptions {
  readonly clock?: Clock;
  readonly random?: () => number;
  /** Addresses of a name, best first. Default getaddrinfo. */
  readonly lookup?: (host: string) => Promise<readonly string[]>;
  readonly connect?: (options: { host: string; port: number; localAddress?: string }) => Socket;
}

const systemLookup = async (host: string): Promise<readonly string[]> =>
  (await lookup(host, { all: true, order: 'verbatim' })).map(({ address }) => address);

export function createDialer(options: DialerOptions = {}): Dial {
  const { clock = systemClock, random = Math.random, connect = connectTcp } = options;
  const ask = options.lookup ?? systemLookup;
  /** `address:port` to when it is as good as any other again, monotonic. */
  const bad = new Map<string, number>();
  const asking = new Map<string, Promise<readonly string[]>>();
  const answers = new Map<string, { readonly addresses: readonly string[]; readonly at: number }>();

  /** One question per host at a time: a resolver that hangs must not eat the threads of the process. */
  function resolve(host: string): Promise<readonly string[]> {
    if (isIP(host) > 0) return Promise.resolve([host]);
    return orMake(asking, host, () => askOnce(host).finally(() => asking.delete(host)));
  }

  async function askOnce(host: string): Promise<readonly string[]> {
    try {
      const addresses = await ask(host);
      answers.set(host, { addresses, at: clock.monotonic() });
      return addresses;
    } catch (error) {
      const earlier = answers.get(host);
      const isDenied = (error as NodeJS.ErrnoException).code === 'ENOTFOUND';
      if (earlier === undefined || isDenied || clock.monotonic() - earlier.at > STALE_ANSWER_MS) {
        answers.delete(host);
        throw error;
      }
      return earlier.addresses;
    }
  }

  /** Good ones first, families in turn beginning with the resolver's first, equals in no order; then those known to be bad. */
  function inOrder(addresses: readonly string[], { port, localAddress }: DialTarget): readonly string[] {
    const now = clock.monotonic();
    for (const [key, until] of bad) if (until <= now) bad.delete(key);
    const sameFamily = addresses.filter((a) => localAddress === undefined || isIP(a) === isIP(localAddress));
    const usable = sameFamily.length > 0 ? sameFamily : addresses;
    const until = (address: string): number => bad.get(`${address}:${port}`) ?? 0;
    const isFirstFamily = (address: string): boolean => isIPv6(address) === isIPv6(usable[0] ?? '');
    const good = usable.filter((a) => until(a) === 0);
    const first = shuffle(good.filter(isFirstFamily));
    const second = shuffle(good.filter((a) => !isFirstFamily(a)));
    const mixed: string[] = [];
    for (let i = 0; i < Math.max(first.length, second.length); i++)
      for (const family of [first, second]) mixed.push(...family.slice(i, i + 1));
    return [...mixed, ...usable.filter((a) => until(a) > 0).sort((a, b) => until(a) - until(b))];
  }

  function shuffle(list: readonly string[]): readonly string[] {
    return list
      .map((item) => ({ item, at: random() }))
      .sort((a, b) => a.at - b.at)
      .map(({ item }) => item);
  }

  /** The first of `addresses` that connects; the others are given up. */
  function race(
    addresses: readonly string[],
    { port, localAddress }: DialTarget,
    signal: AbortSignal,
  ): Promise<{ readonly stream: Socket; readonly address: string }> {
    return new Promise((done, failed) => {
      const trying = new Map<Socket, string>();
      let next = 0;
      let cancelNext = (): void => {};
      const judge = (address: string): void => void bad.set(`${address}:${port}`, clock.monotonic() + BAD_MS);
      const stop = (): void => {
        cancelNext();
        signal.removeEventListener('abort', abort);
        for (const socket of trying.keys()) socket.destroy();
        trying.clear();
      };
      const abort = (): void => {
        for (const address of trying.values()) judge(address);
        stop();
        failed(signal.reason);
      };
      const tryNext = (): void => {
        cancelNext();
        const host = addresses[next++];
        if (host === undefined) return;
        const stream = connect({ host, port, ...(localAddress === undefined ? {} : { localAddress }) });
        trying.set(stream, host);
        stream.once('connect', () => {
          if (!trying.delete(stream)) return;
          // Whoever began earlier and is not there yet was overtaken.
          for (const address of trying.values())
            if (addresses.indexOf(address) < addresses.indexOf(host)) judge(address);
          stop();
          done({ stream, address: host });
        });
        // Stays: an error of one given up must not become an unhandled event.
        stream.on('error', (error) => {
          if (!trying.delete(stream)) return;
          judge(host);
          if (next < addresses.length) return tryNext();
          if (trying.size > 0) return;
          stop();
          failed(error);
        });
        if (next < addresses.length) cancelNext = clock.after(NEXT_ADDRESS_MS, tryNext);
      };
      signal.addEventListener('abort', abort);
      if (signal.aborted) abort();
      else tryNext();
    });
  }

  async function dialDirectly(
    target: DialTarget,
    signal: AbortSignal,
    observer?: DialObserver,
  ): Promise<Dialed> {
    const addresses = inOrder(await within(resolve(target.host), signal), target);
    observer?.resolved?.(addresses);
    // One answer may be many openings': each takes its share of the loop in a turn of its own.
    await eventLoop.turn();
    const { stream, address } = await race(addresses, target, signal);
    const key = `${address}:${target.port}`;
    return {
      stream,
      address,
      path: key,
      hasOthers: addresses.some((a) => a !== address && !bad.has(`${a}:${target.port}`)),
      judged(greeted) {
        if (greeted) bad.delete(key);
        else bad.set(key, clock.monotonic() + BAD_MS);
      },
    };
  }

  /** To the next of the proxy's addresses; where the server stands is for the proxy to know. */
  async function dialThrough(
    proxy: SmtpProxy,
    target: DialTarget,
    signal: AbortSignal,
    observer?: DialObserver,
  ): Promise<Dialed> {
    const { host, port } = proxy;
    const { localAddress } = target;
    const dialed = await dialDirectly({ host, port, localAddress }, signal, observer).catch(
      (error: NodeJS.ErrnoException) => {
        throw signal.aborted
          ? error
          : new ProxyError(`${formatProxy(proxy)} cannot be reached (${error.code ?? error.message})`);
      },
    );
    try {
      await within(openTunnel(dialed.stream, proxy, target), signal);
    } catch (error) {
      dialed.stream.destroy();
      dialed.judged(false);
      throw error;
    }
    dialed.judged(true);
    return {
      ...dialed,
      path: `${target.host}:${target.port} through ${formatProxy(proxy)}`,
      hasOthers: false,
      // It made the tunnel: what became of it is the server's.
      judged() {},
    };
  }

  return async function dial(target, signal, observer) {
    const { proxy } = target;
    return proxy === undefined
      ? dialDirectly(target, signal, observer)
      : dialThrough(proxy, target, signal, observer);
  };
}

/** The result, unless the signal aborts before it is there. */
export function within<T>(result: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((done, failed) => {
    const abort = (): void => failed(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    result.then(done, failed).finally(() => signal.removeEventListener('abort', abort));
  });
}
