/**
 * One account's upstream. In: its public facts, which may change, and tokens. Out: a pool of
 * authenticated connections behind pacing, health and the endpoint's breaker. It belongs to the account
 * id and its mailbox: a reload changes the other facts, and connections, pauses and counts stay; connections that no
 * longer fit the facts are replaced as they fall idle.
 */

import { setMaxListeners } from 'node:events';
import { type Account, mailboxOf } from '../accounts/account.ts';
import { type Clock, orAfter } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Capabilities } from '../protocol/capabilities.ts';
import type { Verdict } from '../protocol/verdict.ts';
import { type AccessToken, TokenError, type TokenSource } from '../tokens/access-token.ts';
import { type AccountHealth, createAccountHealth } from './account-health.ts';
import type { UpstreamConnection } from './connection.ts';
import { factsOf } from './connection-facts.ts';
import { within } from './dial.ts';
import type { UpstreamEndpoint } from './endpoint.ts';
import { notServed, tokenTrouble, UpstreamError } from './failure.ts';
import { createLogin } from './login.ts';
import type { LoginPacer } from './login-pacer.ts';
import { createLoginTurns, type LoginTurn } from './login-turn.ts';
import type { MailboxConnections } from './mailbox-connections.ts';
import type { OpenConnection } from './open.ts';
import { type ConnectionPool, createConnectionPool, type Lease } from './pool.ts';

/** What src/relay sees of one account's upstream. */
export interface AccountUpstream {
  readonly account: Account;
  readonly health: AccountHealth;
  /** Connections open now. */
  readonly live: number;
  /** What the server offered last; undefined before a first connection. */
  readonly capabilities: Capabilities | undefined;
  /** BDAT may be used on this connection: wanted for the account, and proved to be safe. */
  mayUseBdat(connection: UpstreamConnection): boolean;
  /** The server does not know BDAT after all: use DATA from now on. */
  refuseBdat(connection: UpstreamConnection): void;
  /** Rejects with `UpstreamError`. */
  acquire(): Promise<Lease>;
  /** Makes sure that there is a connection, opening one if there is none. Rejects with `UpstreamError`. */
  ensureConnected(): Promise<void>;
  /** A transaction begins: connections stay to be had until the returned function is called, also when the account is removed meanwhile. */
  hold(): () => void;
  /** A verdict of a transaction: feeds breaker and health. All verdicts on one message (`about`) are one complaint. */
  report(verdict: Verdict, about?: object): void;
  /** A message was taken. */
  delivered(): void;
}

export interface AccountUpstreamDeps {
  readonly tokens: TokenSource;
  readonly open: OpenConnection;
  readonly logins: LoginPacer;
  readonly connectionsOf: (mailbox: string) => MailboxConnections;
  readonly log: Log;
  readonly clock: Clock;
  readonly endpointOf: (account: Account) => UpstreamEndpoint;
  /** Which mailbox the account has now; undefined: it is served no more. */
  readonly mailboxNow: () => string | undefined;
  readonly isParked: () => boolean;
  readonly isIdle: () => boolean;
  readonly onStateChange: () => void;
}

export interface MailboxUpstream {
  readonly mailbox: string;
  readonly upstream: AccountUpstream;
  readonly pool: ConnectionPool;
  readonly endpoint: UpstreamEndpoint;
  /** Somebody has a use for it. */
  noteUse(): void;
  /** Nothing would be missed: no connection, nobody who uses it or has lately, no trouble to remember. */
  readonly isForgettable: boolean;
  /** The facts from now on, of the same mailbox. */
  update(account: Account): void;
  /** Resolves when no transaction holds it. */
  whenFree(): Promise<void>;
  /** Ends logins that are under way or wait, and closes. Resolves when all is closed. */
  close(): Promise<void>;
}

/** A token in the store, or why there is none, is known after this, ms: nothing is opened for nothing. */
const KNOWN_MS = 5;
/** Longer than anything waits between asking for an account's upstream and holding it, ms. */
const FORGET_AFTER_MS = 60 * 60_000;

export function createAccountUpstream(
  first: Account,
  deps: AccountUpstreamDeps,
  options: { readonly acquireTimeoutMs: number },
): MailboxUpstream {
  const { tokens, log, clock } = deps;
  const { id } = first;
  const mailbox = mailboxOf(first);
  let account = first;
  let facts = factsOf(account);
  let endpoint = deps.endpointOf(account);
  let askedAt = clock.monotonic();
  const factsOfConnection = new WeakMap<UpstreamConnection, string>();
  const health = createAccountHealth(() => account.limits.maxConnections, clock);
  /** Ends logins that nobody needs any more. */
  const closed = new AbortController();
  // One for each connection that is being opened; Node takes more than ten for a leak.
  setMaxListeners(0, closed.signal);
  const logIn = createLogin({ tokens, open: deps.open, accountId: id, signal: closed.signal });
  const takeTurn = createLoginTurns({
    logins: deps.logins,
    mailbox,
    clock,
    signal: closed.signal,
    intervalMs: () => account.limits.loginIntervalMs,
    maxWaitMs: options.acquireTimeoutMs,
  });
  let connecting: Promise<void> | undefined;
  let holds = 0;
  const waitingForFree: (() => void)[] = [];

  async function token(): Promise<AccessToken> {
    try {
      // That of another mailbox would be refused, and a good token renewed for it.
      if ((deps.mailboxNow() ?? mailbox) !== mailbox)
        throw new TokenError('unknown_account', `no account ${id} with its earlier mailbox`);
      return tokens.peek(id) ?? (await tokens.get(id));
    } catch (error) {
      throw tokenTrouble(error, id);
    }
  }

  /** Whether there is time to connect until the token comes: what is known already is known at once. */
  async function isWorthWaiting(coming: Promise<AccessToken>): Promise<boolean> {
    let isLate = true;
    const know = (): void => {
      isLate = false;
    };
    await orAfter(clock, coming.then(know, know), KNOWN_MS);
    return isLate;
  }

  async function open(fits: () => boolean): Promise<UpstreamConnection | undefined> {
    const paused = health.gate('logins');
    if (paused !== undefined)
      throw new UpstreamError({ kind: 'local', cause: 'logins_paused' }, undefined, paused);
    const startedAt = clock.monotonic();
    const isAwaited = connecting !== undefined && endpoint.hasTime;
    let of = account;
    let at = endpoint;
    let turn: LoginTurn | undefined;
    let hasFailed = false;
    const ask = (): Promise<AccessToken> => {
      const coming = token();
      coming.catch(() => {
        hasFailed = true;
      });
      return coming;
    };
    try {
      let coming = ask();
      // First: without a token there is no login, and none that waits for its turn.
      const isEarly = isAwaited && (await isWorthWaiting(coming));
      if (!isEarly) await coming;
      turn = await takeTurn();
      if (closed.signal.aborted) throw notServed();
      if (!fits()) {
        turn.giveBack();
        return undefined;
      }
      of = account;
      at = endpoint;
      // It may have been renewed meanwhile.
      if (!isEarly) coming = ask();
      const connection = await logIn(of, at, coming);
      if (closed.signal.aborted) {
        connection.destroy();
        throw notServed();
      }
      factsOfConnection.set(connection, factsOf(of));
      at.capabilities = connection.capabilities;
      const ms = Math.round(clock.monotonic() - startedAt);
      log.debug(
        { event: 'connected', account: id, connection: connection.id, ms },
        'upstream connection opened',
      );
      if (health.succeeded('logins')) deps.onStateChange();
      return connection;
    } catch (error) {
      if (closed.signal.aborted) throw notServed();
      const event = error instanceof UpstreamError ? error.event : undefined;
      // What did not come as far as AUTH was no login and needs no interval after it.
      if (hasFailed || (event?.kind === 'lost' && event.stage !== 'auth')) turn?.giveBack();
      if (error instanceof UpstreamError) failed(error, at);
      throw error;
    }
  }

  function failed(error: UpstreamError, at: UpstreamEndpoint): void {
    const changed = health.suffered(error.verdict);
    log[changed ? 'warn' : 'debug'](
      { event: 'connect_failed', account: id, endpoint: at.name, class: error.verdict.class },
      error.message,
    );
    if (changed) deps.onStateChange();
  }

  const pool = createConnectionPool(open, {
    limits: () => account.limits,
    acquireTimeoutMs: options.acquireTimeoutMs,
    concurrency: () => health.concurrency,
    isKept: (connection) => !deps.isParked() && factsOfConnection.get(connection) === facts,
    isKeptWarm: () => !deps.isIdle(),
    mayOpen: () => !deps.isParked() && health.mayLogIn() && !endpoint.open,
    // What waits for a token holds nobody up.
    inBackground: (task) =>
      couldLogIn().then(
        () => endpoint.inBackground(task),
        () => undefined,
      ),
    isServed: () => deps.mailboxNow() === mailbox,
    mailbox: deps.connectionsOf(mailbox),
    clock,
  });

  /** Another account's place, or a turn, is asked for where nothing is known against a login. Rejects as `open`. */
  async function couldLogIn(): Promise<void> {
    const paused = health.mayLogIn() ? undefined : health.gate('logins');
    if (paused !== undefined)
      throw new UpstreamError({ kind: 'local', cause: 'logins_paused' }, undefined, paused);
    if (endpoint.resting !== undefined) throw endpoint.resting;
    const known = within(token(), closed.signal).catch((error: unknown) => {
      if (error instanceof UpstreamError && !closed.signal.aborted) failed(error, endpoint);
      throw error;
    });
    await orAfter(clock, known, options.acquireTimeoutMs);
  }

  function acquire(): Promise<Lease> {
    if (!pool.isCrowdedOut) return pool.acquire();
    const since = clock.monotonic();
    return couldLogIn().then(() => pool.acquire(since));
  }

  const upstream: AccountUpstream = {
    get account() {
      return account;
    },
    health,
    get live() {
      return pool.live;
    },
    get capabilities() {
      return endpoint.capabilities;
    },
    mayUseBdat: (connection) => account.chunking && endpoint.proofs.isProved(connection),
    refuseBdat(connection) {
      endpoint.proofs.refute(connection);
      log.warn(
        { event: 'bdat_refused', endpoint: endpoint.name },
        'upstream offers CHUNKING but refuses BDAT; using DATA',
      );
    },
    acquire,
    ensureConnected() {
      if (pool.live > 0) return Promise.resolve();
      connecting ??= acquire()
        .then((lease) => lease.release('unused'))
        .finally(() => {
          connecting = undefined;
        });
      return connecting;
    },
    hold() {
      holds++;
      let held = true;
      return () => {
        if (!held) return;
        held = false;
        if (--holds === 0) for (const free of waitingForFree.splice(0)) free();
      };
    },
    report(verdict, about) {
      endpoint.report(id, verdict.breaker);
      if (health.suffered(verdict, about)) deps.onStateChange();
    },
    delivered() {
      endpoint.succeeded(id);
      if (health.succeeded('sending')) deps.onStateChange();
    },
  };

  return {
    mailbox,
    upstream,
    pool,
    get endpoint() {
      return endpoint;
    },
    noteUse() {
      askedAt = clock.monotonic();
    },
    get isForgettable() {
      return (
        holds === 0 &&
        pool.isEmpty &&
        clock.monotonic() - askedAt > FORGET_AFTER_MS &&
        health.state.status === 'ready'
      );
    },
    update(changed) {
      account = changed;
      facts = factsOf(changed);
      endpoint = deps.endpointOf(changed);
      pool.maintain();
    },
    whenFree: () =>
      holds === 0 ? Promise.resolve() : new Promise((resolve) => waitingForFree.push(resolve)),
    async close() {
      closed.abort(notServed());
      await pool.close();
    },
  };
}
