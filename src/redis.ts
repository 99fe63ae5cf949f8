/**
 * The connection to Redis, shared by tokens and limits; the one file that knows the redis package. In:
 * commands and scripts. Out: their answers within a limit. While Redis is gone every command rejects at
 * once, while it is silent after `answerMs`; the connection comes back by itself.
 */
import { createHash, randomUUID } from 'node:crypto';
import { type Clock, orAfter, systemClock } from './clock.ts';
import type { Log } from './log.ts';

/** First part of every key and channel. */
export const KEY_PREFIX = 'xoauth2-relay';

/** After an unanswered command nothing is asked for this long: nobody waits twice for the same outage, ms. */
const REST_MS = 3000;

/** Connections to a replica are opened anew no sooner than after this, ms. */
const REOPEN_MS = 5_000;

/** The same refusal is told again after this, ms. */
const REFUSAL_TOLD_MS = 600_000;

/** What Redis answers instead of doing it, by the first word, and what is done about it. */
const REFUSALS: Readonly<Record<string, string>> = {
  WRONGPASS: 'user name or password in the address of the store are wrong',
  NOAUTH: 'it wants a password: give it in the address of the store (redis://:PASSWORD@host)',
  NOPERM: 'its access list does not let this user use the commands, keys or channels of xoauth2-relay:*',
  READONLY:
    'it is a replica: the address must lead to the primary (a new connection is tried every few seconds)',
  MASTERDOWN: 'it is a replica that has lost its primary: the address must lead to the primary',
  OOM: 'its memory is full: raise maxmemory',
  MISCONF: 'it cannot write its disk and therefore takes nothing: see its log',
  WRONGTYPE: 'a key under xoauth2-relay: belongs to another program: give the relay a database of its own',
};

/** A primary that became a replica may have kept its connections: a new one leads to the new primary where the address does. */
const IS_REPLICA: ReadonlySet<string | undefined> = new Set(['READONLY', 'MASTERDOWN']);

export type RedisClient = Awaited<ReturnType<typeof createConnection>>;

export class RedisUnavailable extends Error {
  override readonly name = 'RedisUnavailable';
  readonly code = 'REDIS_UNAVAILABLE';
  /** It was asked, and may do it yet. */
  readonly isAsked: boolean;

  constructor(message: string, isAsked = false) {
    super(message);
    this.isAsked = isAsked;
  }
}

/** A Lua script; sent whole once, then by its digest. */
export interface RedisScript {
  readonly text: string;
  readonly digest: string;
}

export const redisScript = (text: string): RedisScript => ({
  text,
  digest: createHash('sha1').update(text).digest('hex'),
});

export interface RedisConnection {
  /** Of this process; own messages are not heard by its subscriptions. */
  readonly instance: string;
  /** Waits for the first connection as long as one answer may take, then goes on without; it is tried for ever. */
  open(): Promise<void>;
  /** Rejects with `RedisUnavailable` at once while Redis is away, and after `answerMs` where it does not answer. */
  ask<T>(command: (redis: RedisClient) => Promise<T>): Promise<T>;
  /** Runs a script atomically. Rejects as `ask`. */
  run(script: RedisScript, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>;
  /** Messages that other instances publish on `channel`; heard while connected. */
  subscribe(channel: string, listener: (message: string) => void): void;
  publish(channel: string, message: string): Promise<void>;
  /** Told when messages may have been published that its subscriptions did not hear. */
  onGap(listener: () => void): void;
  /** Told when Redis is found away (`true`) and when it answers again. */
  onAway(listener: (away: boolean) => void): void;
  readonly away: boolean;
  close(): void;
}

export function createRedisConnection(
  url: { reveal(): string },
  deps: { readonly log: Log; readonly clock?: Clock },
  options: {
    /** Longest wait for Redis to answer, ms. Default 1,500. */
    readonly answerMs?: number;
  } = {},
): RedisConnection {
  const { log, clock = systemClock } = deps;
  const answerMs = options.answerMs ?? 1500;
  const instance = randomUUID();
  const awayListeners: ((away: boolean) => void)[] = [];
  const gapListeners: (() => void)[] = [];
  const channels = new Map<string, ((message: string) => void)[]>();
  /** Of these, those that the server knows of. */
  const heard = new Set<string>();
  let client: RedisClient | undefined;
  let subscriber: RedisClient | undefined;
  let restingUntil = 0;
  let mayReopenAt = 0;
  let isLost = false;
  let isAway = false;
  let isClosed = false;
  let isOpened = false;
  /** Questions without an answer yet, the oldest first: one timer watches over all. */
  const unanswered = new Set<{ readonly until: number; readonly giveUp: () => void }>();
  let cancelWatch: (() => void) | undefined;

  /** By its first word: when it was told last, monotonic ms. */
  const refusalsTold = new Map<string, number>();

  /** Redis is there and does not do what it is asked: whoever asked goes on without, the log says why. */
  function tellRefusal(code: string): void {
    const told = refusalsTold.get(code);
    const now = clock.monotonic();
    if (isClosed || (told !== undefined && now - told < REFUSAL_TOLD_MS)) return;
    refusalsTold.set(code, now);
    const why = REFUSALS[code] ?? 'see its documentation';
    log.error({ event: 'redis_refuses', reason: code }, `Redis refuses (${code}): ${why}`);
  }

  function nowAway(away: boolean): void {
    if (isAway === away || isClosed) return;
    isAway = away;
    for (const listener of awayListeners) listener(away);
  }

  async function hear(channel: string): Promise<void> {
    if (heard.has(channel)) return;
    try {
      await subscriber?.subscribe(channel, (text) => {
        const space = text.indexOf(' ');
        if (text.slice(0, space) === instance) return;
        for (const listener of channels.get(channel) ?? []) listener(text.slice(space + 1));
      });
      // From now on the client subscribes to it by itself.
      heard.add(channel);
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal !== undefined) tellRefusal(refusal);
    }
  }

  /** Connected, again perhaps: what was published meanwhile is lost. */
  async function hearAll(): Promise<void> {
    await Promise.all([...channels.keys()].map(hear));
    for (const listener of gapListeners) listener();
  }

  async function open(): Promise<void> {
    if (isOpened) return;
    isOpened = true;
    const redis = await createConnection(url.reveal());
    const hearing = await createConnection(url.reveal());
    redis.on('error', (error: unknown) => {
      nowAway(true);
      const refusal = refusalOf(error);
      if (refusal !== undefined) tellRefusal(refusal);
      const wasLost = isLost;
      isLost = true;
      if (wasLost || isClosed || refusal !== undefined) return;
      log.error({ event: 'redis_lost', reason: codeOf(error) }, 'Redis cannot be reached: trying again');
    });
    redis.on('ready', () => {
      restingUntil = 0;
      if (isLost) log.info({ event: 'redis_back' }, 'Redis answers again');
      isLost = false;
      nowAway(false);
    });
    hearing.on('error', () => undefined);
    hearing.on('ready', () => void hearAll());
    if (isClosed) return;
    // The library forgets that it was closed while it connected: it would keep the connection, and the process.
    for (const each of [redis, hearing]) each.on('connect', () => void (isClosed && each.destroy()));
    client = redis;
    subscriber = hearing;
    const connected = redis.connect().then(ignore, ignore);
    hearing.connect().catch(ignore);
    await orAfter(clock, connected, answerMs);
  }

  function reopen(): void {
    if (isClosed || clock.monotonic() < mayReopenAt) return;
    mayReopenAt = clock.monotonic() + REOPEN_MS;
    nowAway(true);
    for (const each of [client, subscriber]) {
      // Any other is being opened.
      if (each?.isReady !== true) continue;
      each.destroy();
      each.connect().catch(ignore);
    }
  }

  async function ask<T>(command: (redis: RedisClient) => Promise<T>): Promise<T> {
    if (!client?.isReady || clock.monotonic() < restingUntil) {
      nowAway(true);
      throw new RedisUnavailable('Redis is away');
    }
    return new Promise<T>((resolve, reject) => {
      const question = {
        until: clock.monotonic() + answerMs,
        giveUp: () => reject(new RedisUnavailable('Redis does not answer', true)),
      };
      unanswered.add(question);
      cancelWatch ??= clock.after(answerMs, watch);
      command(client as RedisClient).then(
        (answer) => {
          unanswered.delete(question);
          nowAway(false);
          resolve(answer);
        },
        (error: unknown) => {
          unanswered.delete(question);
          const refusal = refusalOf(error);
          if (refusal !== undefined && refusal !== 'NOSCRIPT') tellRefusal(refusal);
          if (IS_REPLICA.has(refusal)) reopen();
          reject(error);
        },
      );
    });
  }

  function watch(): void {
    cancelWatch = undefined;
    for (const question of unanswered) {
      const left = question.until - clock.monotonic();
      if (left > 0) {
        cancelWatch = clock.after(left, watch);
        return;
      }
      unanswered.delete(question);
      restingUntil = clock.monotonic() + REST_MS;
      nowAway(true);
      question.giveUp();
    }
  }

  return {
    instance,
    open,
    ask,
    async run(script, keys, args) {
      const given = { keys: [...keys], arguments: args.map(String) };
      try {
        return await ask((redis) => redis.evalSha(script.digest, given));
      } catch (error) {
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
        return ask((redis) => redis.eval(script.text, given));
      }
    },
    subscribe(channel, listener) {
      const listeners = channels.get(channel);
      if (listeners !== undefined) {
        listeners.push(listener);
        return;
      }
      channels.set(channel, [listener]);
      if (subscriber?.isReady === true) void hear(channel);
    },
    async publish(channel, message) {
      await ask((redis) => redis.publish(channel, `${instance} ${message}`));
    },
    onGap: (listener) => void gapListeners.push(listener),
    onAway: (listener) => void awayListeners.push(listener),
    get away() {
      return isAway;
    },
    close() {
      isClosed = true;
      cancelWatch?.();
      for (const { giveUp } of unanswered) giveUp();
      unanswered.clear();
      for (const each of [client, subscriber]) if (each?.isOpen) each.destroy();
    },
  };
}

async function createConnection(url: string) {
  // Loaded only where it is wanted: a quarter of a second and 20 MB that nobody else needs to pay.
  const { createClient } = await import('redis');
  return createClient({
    url,
    name: KEY_PREFIX,
    disableOfflineQueue: true,
    // Ours watches over all commands with one timer; theirs makes a signal of each.
    commandOptions: { timeout: 0 },
    // A connection that is dead without saying so is noticed by the ping that gets no answer.
    pingInterval: 3000,
    socket: {
      connectTimeout: 2000,
      socketTimeout: 10_000,
      reconnectStrategy: (retries) => Math.min(50 * 2 ** Math.min(retries, 6), 2000),
    },
  });
}

const ignore = (): void => undefined;

/** Redis answered that it does not do it. */
export const isRefusal = (error: unknown): boolean => refusalOf(error) !== undefined;

/** First word of an error that Redis answered; undefined for any other. What follows it may quote what was asked. */
function refusalOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || 'code' in error) return undefined;
  // Redis 6 quotes what a script was refused.
  const [, word] = /^(?:ERR Error running script .* -)?([A-Z]+) /.exec(error.message) ?? [];
  // In a script it has other words for that.
  const isForbidden = /no permissions|user executing the script/.test(error.message);
  return word === 'ERR' && isForbidden ? 'NOPERM' : word;
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown';
  const { code } = error as { code?: unknown };
  return typeof code === 'string' ? code : error.name;
}
