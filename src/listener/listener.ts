/**
 * SMTP and LMTP in. In: connections of clients. Out: `MAIL`, `RCPT` and bodies to the relay, its replies
 * back. Owns one listening socket, its TLS certificate, the sessions and their limits. What may be said
 * in which order is in dialogue.ts, what a transaction needs in mail-session.ts.
 */
import type { AddressInfo } from 'node:net';
import type { Account } from '../accounts/account.ts';
import type { AccountDirectory } from '../accounts/directory.ts';
import type { verifyPassword } from '../accounts/scrypt.ts';
import { type Clock, every, orAfter, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { formatReply } from '../protocol/reply.ts';
import { cleanText } from '../protocol/text.ts';
import type { Relay } from '../relay/relay.ts';
import { listenOnPath, removeStaleSocket } from '../unix-socket.ts';
import { readCertificate } from './certificate.ts';
import { createClientAuth } from './client-auth.ts';
import { createTally, type ListenerCounts, type Tally } from './counts.ts';
import { createDoor, type Door } from './door.ts';
import { checkExposure, describeUnusable } from './exposure.ts';
import { createHeldBudget, type HeldBudget } from './held-budget.ts';
import { createLoginNames } from './login-name.ts';
import { createMailSession } from './mail-session.ts';
import { formatPlace, type PartialListenerOptions, resolveOptions } from './options.ts';
import { RelayServer } from './relay-server.ts';
import { serves } from './sender-choice.ts';
import type { ConnectionHooks } from './smtp-connection.ts';
import type { ServerCertificate } from './smtp-server-seam.ts';

/** Extensions of which the upstreams decide whether they can be offered. */
export interface OfferedExtensions {
  readonly dsn: boolean;
  readonly smtpUtf8: boolean;
  readonly eightBitMime: boolean;
}

export interface ListenerDeps {
  readonly relay: Relay;
  /** Asked anew for every command, so that a reload shows at once. */
  readonly directory: () => AccountDirectory;
  readonly log: Log;
  readonly clock?: Clock;
  /** Compares a password with a hash on other threads. */
  readonly verifyPassword?: typeof verifyPassword;
  /** Text for the log: masks addresses where they are not to be logged. Default: as it is. */
  readonly shown?: (text: string) => string;
  /** Octets of a body that the relay holds whole at most; what one transaction reserves. */
  readonly replayBytes: number;
  /** Shared by all listeners of a process; default: one of its own by `maxHeldBytes`. */
  readonly budget?: HeldBudget;
  /** What every upstream in use can honour; default: all but DSN. */
  readonly offered?: () => OfferedExtensions;
}

/** Why a listener cannot start or reload; `message` says what to set. */
export class ListenerError extends Error {
  override readonly name = 'ListenerError';
  readonly code: 'exposed' | 'certificate' | 'option' | 'address';
  /** Of the listener, as its settings say. */
  readonly place: string;
  constructor(code: ListenerError['code'], place: string, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.place = place;
  }
}

export interface Listener {
  /** Starts. Resolves with the address: `{host, port}`, or `{path}` for a UNIX socket. Rejects with `ListenerError`. */
  listen(): Promise<{ readonly host: string; readonly port: number } | { readonly path: string }>;
  /** Like `listen`, to see whether it can: whoever comes hears 421. */
  tryListen(): ReturnType<Listener['listen']>;
  /** Reads certificate and key again for new sessions. Rejects with `ListenerError`; the old ones stay then. */
  reloadTls(): Promise<void>;
  /** Accepts no more, says 421 to idle sessions, lets transactions finish, says 421 to the rest at the deadline. */
  stop(options: { readonly deadlineMs: number }): Promise<void>;
  /** Gives up what is under way with 421, and closes everything at once; nothing unfinished is delivered. */
  cut(): Promise<void>;
  counts(): ListenerCounts;
}

/** How long a list of extensions for all accounts is good; upstreams become known in the background. */
const KEYWORDS_MS = 1_000;
/** For a client to take off the last 421 and close; on the same machine it takes microseconds. */
const GOODBYE_MS = 250;
/** Characters of a user name that are logged. */
const MAX_USER = 320;
/** How often transactions are looked at for their time; the limit itself is minutes. */
const SWEEP_MS = 5_000;

export function createListener(deps: ListenerDeps, settings: PartialListenerOptions = {}): Listener {
  const options = resolveOptions(settings);
  const place = formatPlace(options);
  const tally = createTally();
  const budget = deps.budget ?? createHeldBudget(options.limits.maxHeldBytes, deps.clock);
  const { log, clock = systemClock, shown = (text: string) => text } = deps;
  let door: Door | undefined;
  let server: RelayServer | undefined;
  let stopSweep = (): void => {};
  const tellUser = createLoginNames(shown);
  let forAll: { directory: AccountDirectory; at: number; keywords: readonly string[] } | undefined;

  function createHooks(): ConnectionHooks {
    door = createDoor({ tally, log }, options);
    const auth = createClientAuth(
      {
        directory: deps.directory,
        clock,
        serves: (account) => serves(options, account),
        ...(deps.verifyPassword === undefined ? {} : { verify: deps.verifyPassword }),
      },
      { needsPassword: options.authRequired },
    );
    return {
      options,
      auth,
      door,
      clock,
      openMail: (client) =>
        createMailSession(
          {
            relay: deps.relay,
            directory: deps.directory,
            log,
            clock,
            shown,
            budget,
            tally,
            replayBytes: deps.replayBytes,
          },
          options,
          client,
        ),
      keywords: (account) => keywords(account),
      hit: tally.hit,
      authFailed({ remoteAddress }, user, { failure, refusal }) {
        if (refusal.code === 535) tally.authFailures += 1;
        else tally.hit('auth_lockout');
        const account = deps.directory().byUser(user);
        log.warn(
          {
            event: 'auth_failed',
            client: remoteAddress,
            ...(account === undefined
              ? { user: tellUser(cleanText(user, MAX_USER), deps.directory()) }
              : { user: shown(cleanText(user, MAX_USER)), account: account.id }),
            reason: failure,
          },
          `login refused: ${failure}`,
        );
      },
      authRefused({ remoteAddress }, r) {
        log.warn({ event: 'auth_failed', client: remoteAddress, reason: formatReply(r) }, 'login refused');
      },
      socketError(error: NodeJS.ErrnoException) {
        // Out of descriptors: the operator must know. Everything else is a client gone or a failed handshake.
        const level = error.code === 'EMFILE' || error.code === 'ENFILE' ? 'error' : 'debug';
        log[level]({ event: 'socket_error', error: error.message }, 'client connection failed');
      },
    };
  }

  function keywords(account: Account | undefined): readonly string[] {
    if (account !== undefined) return formatKeywords([account]);
    // Before AUTH all accounts count, and there may be thousands: not for every EHLO.
    const directory = deps.directory();
    const now = clock.monotonic();
    if (forAll?.directory !== directory || now - forAll.at >= KEYWORDS_MS) {
      forAll = { directory, at: now, keywords: formatKeywords(directory.accounts) };
    }
    return forAll.keywords;
  }

  function formatKeywords(accounts: readonly Account[]): readonly string[] {
    const offered = deps.offered?.() ?? { dsn: false, smtpUtf8: true, eightBitMime: true };
    const { maxMessageBytes } = options.limits;
    // The largest of all, so that nobody holds back what one account could take.
    const largest = accounts.reduce((most, a) => Math.max(most, a.limits.maxBytes), 0);
    return [
      'PIPELINING',
      `SIZE ${largest === 0 ? maxMessageBytes : Math.min(largest, maxMessageBytes)}`,
      ...(offered.eightBitMime ? ['8BITMIME'] : []),
      ...(offered.smtpUtf8 ? ['SMTPUTF8'] : []),
      'ENHANCEDSTATUSCODES',
      ...(offered.dsn ? ['DSN'] : []),
    ];
  }

  async function certificate(): Promise<ServerCertificate | undefined> {
    if (options.tls === 'none') return undefined;
    const { certFile, keyFile } = options;
    if (certFile === undefined || keyFile === undefined) {
      throw new ListenerError(
        'certificate',
        place,
        `listener ${place}: TLS needs a certificate and a key file`,
      );
    }
    try {
      return await readCertificate(certFile, keyFile);
    } catch (cause) {
      throw new ListenerError(
        'certificate',
        place,
        `listener ${place}: ${certFile} and ${keyFile} are no usable certificate and key: ${describe(cause)}`,
        cause,
      );
    }
  }

  async function open(current: RelayServer): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      current.server.once('error', reject);
      const opened = (): void => {
        current.server.off('error', reject);
        resolve();
      };
      if (options.path !== undefined) listenOnPath(current.server, options.path, options.pathMode, opened);
      else if (options.fd !== undefined) current.server.listen({ fd: options.fd }, opened);
      else current.server.listen(options.port, options.host, opened);
    });
  }

  async function listen(admitted: 'everybody' | 'nobody'): ReturnType<Listener['listen']> {
    const exposed = checkExposure(options);
    if (exposed !== undefined) throw new ListenerError('exposed', place, exposed);
    const pair = await certificate();
    let hooks: ConnectionHooks;
    try {
      hooks = createHooks();
      if (admitted === 'nobody') door?.close(() => {});
    } catch (cause) {
      throw new ListenerError('option', place, `listener ${place}: ${describe(cause)}`, cause);
    }
    const current = new RelayServer(hooks, pair);
    try {
      if (options.path !== undefined) await removeStaleSocket(options.path);
      await open(current);
    } catch (cause) {
      throw new ListenerError('address', place, `cannot listen on ${place}: ${describe(cause)}`, cause);
    }
    server = current;
    const unusable = describeUnusable(options, deps.directory().accounts);
    if (unusable !== undefined) log.warn({ event: 'accounts_unusable' }, unusable);
    stopSweep = every(clock, SWEEP_MS, () => {
      const now = clock.monotonic();
      for (const connection of current.relayConnections()) connection.checkTransactionTime(now);
    });
    const address = current.server.address() as AddressInfo | string | null;
    if (address === null || typeof address === 'string') return { path: options.path ?? String(address) };
    return { host: address.address, port: address.port };
  }

  return {
    listen: () => listen('everybody'),
    tryListen: () => listen('nobody'),

    async reloadTls() {
      const pair = await certificate();
      if (pair !== undefined) server?.updateSecureContext(pair);
    },

    async stop({ deadlineMs }) {
      if (server === undefined) return;
      stopSweep();
      const current = server;
      const closed = new Promise<void>((resolve) => void current.server.close(() => resolve()));
      const empty = new Promise<void>((resolve) => door?.close(resolve));
      for (const socket of current.pendingSockets.values()) socket.destroy();
      current.drain();
      await orAfter(clock, empty, deadlineMs);
      for (const connection of current.relayConnections()) connection.hurry();
      await orAfter(clock, empty, GOODBYE_MS);
      for (const connection of current.relayConnections()) connection.dismiss();
      await orAfter(clock, empty, GOODBYE_MS);
      for (const connection of current.relayConnections()) connection.cut();
      await closed;
    },

    async cut() {
      stopSweep();
      const empty = new Promise<void>((resolve) => (door === undefined ? resolve() : door.close(resolve)));
      server?.server.close();
      for (const socket of server?.pendingSockets.values() ?? []) socket.destroy();
      for (const connection of server?.relayConnections() ?? []) connection.hurry();
      await orAfter(clock, empty, GOODBYE_MS);
      for (const connection of server?.relayConnections() ?? []) connection.cut();
    },

    counts: () => snapshot(tally, door?.sessions ?? 0, budget),
  };
}

const describe = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));

function snapshot(tally: Tally, sessions: number, budget: HeldBudget): ListenerCounts {
  return {
    sessions,
    sessionsTotal: tally.sessionsTotal,
    refusedTotal: tally.refusedTotal,
    authFailures: tally.authFailures,
    heldBytes: budget.held,
    limitHits: { ...tally.limitHits },
  };
}
