/**
 * Which relays there are. In: Redis. Out: how many, this one's rank, the rows of all. A sign of life every
 * second; who is silent for 4 s is missing (its share is kept free), after 15 s gone.
 */
import { type Clock, every, systemClock } from '../clock.ts';
import type { KeptPart } from '../kept-state.ts';
import { parseJsonObject } from '../protocol/json-object.ts';
import { MISSING_AFTER_MS } from '../protocol/vocabulary.ts';
import { isRefusal, KEY_PREFIX, type RedisConnection } from '../redis.ts';
import { BEAT, GONE_AFTER_MS, LEAVE } from './scripts.ts';

const BEAT_MS = 1_000;
/** After Redis is back every relay has found it again within this, ms: two seconds between attempts, two for one. */
export const SETTLE_MS = 5_000;

/**
 * Who was silent while Redis was away may be cut off from it as we were: relays count as gone only after this
 * much unbroken contact, ms.
 */
const REMEMBER_MS = GONE_AFTER_MS + SETTLE_MS;

/** What a relay says of itself. Instants in ms since the epoch by its own wall clock. */
export interface RelayRow {
  readonly version: string;
  readonly host: string;
  readonly pid: number;
  readonly startedAt: number;
  readonly relayed: number;
  readonly deferred: number;
  readonly rejected: number;
  /** 99th percentile of the event loop's delay, ms. */
  readonly lagMs: number;
}

export interface RelaySeen {
  readonly id: string;
  readonly isSelf: boolean;
  /** Since its last sign of life, ms. */
  readonly silentMs: number;
  readonly row: Partial<RelayRow>;
}

export interface Membership {
  /** Relays seen last, this one included, at least 1. */
  readonly relays: number;
  /** This relay's place among them by id, 0 first. */
  readonly rank: number;
  /** Between its last two signs of life that were answered, ms; infinite where there was one. */
  readonly gapMs: number;
  /** Relays seen last, this one among them; empty before Redis was heard. */
  readonly seen: readonly RelaySeen[];
  /** Since when this was the only relay, as Redis last said, monotonic ms; undefined: there were others, or it was never heard. */
  readonly aloneSince: number | undefined;
  /**
   * Redis answers; the epoch changes when it has lost all it knew. `hasForgotten`: that, or it is back with what it knew
   * earlier (a snapshot, another one in its place). Heard at every sign of life.
   */
  onHeard(listener: (epoch: string, hasForgotten: boolean) => void): void;
  /** Redis has forgotten something that it was told before. */
  onForgotten(listener: () => void): void;
  /** Redis answers, and refuses a sign of life. Heard at each. */
  onRefused(listener: () => void): void;
  /** By which a later process finds out whether Redis has forgotten something meanwhile. */
  readonly kept: KeptPart;
  /** Whether Redis was told all that this relay did: until then the others keep its share free, whatever they hear of it. Default true. */
  hasTold: boolean;
  /** How many relays, this one among them, have surely told all that they did, and said so after `at`, monotonic ms. */
  toldSince(at: number): number;
  /** A sign of life now, and what follows from the answer. Nothing before the start. */
  beat(): void;
  start(): Promise<void>;
  /** Says goodbye: no share is kept for this relay. */
  leave(): Promise<void>;
}

export function createMembership(
  deps: { readonly redis: RedisConnection; readonly row: () => RelayRow; readonly clock?: Clock },
  options: {
    readonly prefix?: string;
    /** Relays to reckon with before Redis was ever heard, at least 1. */
    readonly expected?: number;
  } = {},
): Membership {
  const { redis, clock = systemClock } = deps;
  const prefix = options.prefix ?? KEY_PREFIX;
  const keys = [`${prefix}:relays`, `${prefix}:relay-rows`, `${prefix}:epoch`];
  const listeners: ((epoch: string, hasForgotten: boolean) => void)[] = [];
  const refusedListeners: (() => void)[] = [];
  /** The same over restarts, where there is a state directory; `answered`: the number of the last sign of life that was. */
  let home = { mark: redis.instance, answered: 0 };
  let relays = Math.max(1, options.expected ?? 1);
  let rank = 0;
  let seen: readonly RelaySeen[] = [];
  /** When the last sign of life that was answered was given, and the time from the one before, monotonic ms. */
  let last = { at: Number.NEGATIVE_INFINITY, gapMs: Number.POSITIVE_INFINITY };
  let aloneSince: number | undefined;
  let epochHeard: string | undefined;
  /** Before an outage: those that have not spoken since are reckoned with for a while. */
  let before = { relays, rank, until: 0, isOpen: false };
  let cancel: (() => void) | undefined;
  let hasTold = true;
  let hasBegun = false;
  let isBeating = false;
  let isOver = false;

  async function once(): Promise<void> {
    if (isBeating || isOver) return;
    isBeating = true;
    const askedAt = clock.monotonic();
    try {
      const words = [redis.instance, JSON.stringify(deps.row()), home.answered, hasTold ? 1 : 0];
      const answer = (await redis.run(BEAT, [...keys, `${prefix}:mark:${home.mark}`], words)) as unknown[];
      const [epoch, isOlder, count, place, ...rows] = answer;
      const now = clock.monotonic();
      const hasForgotten = epochHeard !== undefined && (epochHeard !== epoch || isOlder === 1);
      home = { ...home, answered: home.answered + 1 };
      if (before.isOpen || hasForgotten) before = { relays, rank, until: now + REMEMBER_MS, isOpen: false };
      epochHeard = String(epoch);
      const isSettled = now >= before.until;
      relays = Math.max(1, Number(count), isSettled ? 1 : before.relays);
      rank = isSettled ? Number(place) : before.rank;
      last = { at: askedAt, gapMs: askedAt - last.at };
      aloneSince = relays === 1 ? (aloneSince ?? now) : undefined;
      const all: RelaySeen[] = [];
      for (let i = 0; i + 2 < rows.length; i += 3)
        all.push({
          id: String(rows[i]),
          isSelf: rows[i] === redis.instance,
          silentMs: Number(rows[i + 1]),
          row: parseJsonObject(String(rows[i + 2])) ?? {},
        });
      seen = all;
      for (const listener of listeners) listener(epochHeard, hasForgotten);
    } catch (error) {
      before = { ...before, isOpen: true };
      // That Redis is away the connection tells.
      if (isRefusal(error)) for (const listener of refusedListeners) listener();
    } finally {
      isBeating = false;
    }
  }

  redis.onAway((away) => {
    if (away) before = { ...before, isOpen: true };
  });

  return {
    get relays() {
      return relays;
    },
    get rank() {
      return rank;
    },
    get gapMs() {
      return last.gapMs;
    },
    get seen() {
      return seen;
    },
    get aloneSince() {
      return aloneSince;
    },
    onHeard: (listener) => void listeners.push(listener),
    onRefused: (listener) => void refusedListeners.push(listener),
    onForgotten: (listener) => void listeners.push((_epoch, hasForgotten) => hasForgotten && listener()),
    kept: {
      // Every sign of life changes it.
      isMinor: true,
      snapshot: () => ({ ...home, epoch: epochHeard, relays, rank }),
      restore(kept) {
        const { mark, answered, epoch, ...last } = kept as Record<string, unknown>;
        if (typeof mark !== 'string' || typeof answered !== 'number') throw new Error('no sign of life');
        home = { mark, answered };
        if (typeof epoch === 'string') epochHeard = epoch;
        // The others are there still, and have their shares.
        if (typeof last.relays !== 'number' || typeof last.rank !== 'number' || last.relays <= relays) return;
        relays = last.relays;
        rank = last.rank;
      },
    },
    get hasTold() {
      return hasTold;
    },
    set hasTold(told) {
      hasTold = told;
    },
    toldSince: (at) =>
      seen.filter(({ silentMs }) => silentMs < MISSING_AFTER_MS && silentMs <= last.at - at).length,
    beat() {
      if (hasBegun) void once();
    },
    async start() {
      hasBegun = true;
      await once();
      if (!isOver) cancel = every(clock, BEAT_MS, once);
    },
    async leave() {
      isOver = true;
      cancel?.();
      await redis.run(LEAVE, keys.slice(0, 2), [redis.instance]).catch(() => undefined);
    },
  };
}
