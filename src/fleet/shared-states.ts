/**
 * What one relay learned, for all: pauses of accounts, drained accounts, token endpoints that are down, how long Graph
 * rests, invitations. In: what this relay finds. Out: what the others found, and what had been found before this one came.
 * Messages make it fast, the hash in Redis makes it true: it is read again at every start and whenever Redis was away. Owns
 * what stands, as far as this relay knows: it writes it again where Redis has forgotten it, and keeps it over a restart.
 */
import { type Clock, systemClock } from '../clock.ts';
import type { KeptPart } from '../kept-state.ts';
import type { Log } from '../log.ts';
import { KEY_PREFIX, type RedisConnection, redisScript } from '../redis.ts';
import type { Membership } from './membership.ts';
import { NOW } from './scripts.ts';

/** Something that stands until it ends or is taken back. `value` is JSON of the room it belongs to, never a secret. */
export interface SharedState {
  /** For example `pause:sending:alice@example.com`, `drained:alice@example.com`, `graph-rest:alice@example.com`. */
  readonly subject: string;
  readonly value: unknown;
  /** How long it still stands, ms; undefined: until it is taken back. */
  readonly leftMs: number | undefined;
}

export interface SharedStates {
  /** Tells all relays; nobody waits for it. */
  set(state: SharedState): void;
  /** It is over, for all relays. */
  clear(subject: string): void;
  /** Something all relays shall do once, for example `refresh:alice@example.com`. */
  ask(action: string): void;
  /** Heard from others: a state, or undefined where it is over. Also at the start, for what stood before. */
  onState(listener: (subject: string, state: SharedState | undefined) => void): void;
  onAsked(listener: (action: string) => void): void;
  /** What changed here by now Redis has, or cannot be given. Never rejects; as long as Redis may take to answer. */
  told(): Promise<void>;
  /** What stands, for the time in which Redis may be away when the relay starts again. */
  readonly kept: KeptPart;
}

interface Standing {
  readonly value: unknown;
  /** Monotonic ms; undefined: until it is taken back. */
  readonly endsAt: number | undefined;
}

/** In place of its end: it was taken back. */
const OVER = 0;

/** KEYS: states. ARGV: subject, value, ms it stands (0: no end). */
const SET = redisScript(`${NOW}
local till = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], (till > 0 and now + till or 0) .. ' ' .. ARGV[2])
return 1
`);

/** KEYS: states, epoch. ARGV: epoch. Answers subject, ms left (0: no end), value of each; drops what has ended. Null in another epoch. */
const ALL = redisScript(`${NOW}
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return nil end
local all, answer = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local till, value = string.match(all[i + 1], '^(%d+) (.*)$')
  till = tonumber(till)
  if till > 0 and till <= now then redis.call('HDEL', KEYS[1], all[i])
  else
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = till > 0 and till - now or 0
    answer[#answer + 1] = value
  end
end
return answer
`);

export function createSharedStates(
  deps: {
    readonly redis: RedisConnection;
    readonly membership: Membership;
    readonly log: Log;
    readonly clock?: Clock;
  },
  options: { readonly prefix?: string } = {},
): SharedStates {
  const { redis, membership, log, clock = systemClock } = deps;
  const prefix = options.prefix ?? KEY_PREFIX;
  const key = `${prefix}:states`;
  const channel = `${prefix}:news`;
  const stateListeners: ((subject: string, state: SharedState | undefined) => void)[] = [];
  const askListeners: ((action: string) => void)[] = [];
  const standing = new Map<string, Standing>();
  /** Changed here, and not known to Redis as far as is known; by the change. */
  const untold = new Map<string, object>();
  /** Told or heard while all that stands is asked for: by one question at a time. */
  let changed: Set<string> | undefined;
  let telling: Promise<void> = Promise.resolve();
  let isKnown = false;
  let mustTellAll = false;

  /** Undefined: it does not stand, or its time is over. */
  function stateOf(subject: string): SharedState | undefined {
    const found = standing.get(subject);
    if (found === undefined) return undefined;
    const leftMs = found.endsAt === undefined ? undefined : found.endsAt - clock.monotonic();
    if (leftMs === undefined || leftMs > 0) return { subject, value: found.value, leftMs };
    standing.delete(subject);
    // What ended by itself says nothing about what the others found since.
    untold.delete(subject);
    return undefined;
  }

  function note(subject: string, state: Omit<SharedState, 'subject'> | undefined): void {
    if (state === undefined) standing.delete(subject);
    else {
      const { value, leftMs } = state;
      standing.set(subject, { value, endsAt: leftMs === undefined ? undefined : clock.monotonic() + leftMs });
    }
  }

  function heard(subject: string, state: SharedState | undefined): void {
    note(subject, state);
    for (const listener of stateListeners) listener(subject, state);
  }

  async function tell(subject: string, state = stateOf(subject), change: object = {}): Promise<void> {
    try {
      if (state === undefined) await redis.ask((r) => r.hDel(key, subject));
      else {
        const ms = state.leftMs === undefined ? 0 : Math.max(1, Math.round(state.leftMs));
        await redis.run(SET, [key], [subject, JSON.stringify(state.value), ms]);
      }
    } catch (error) {
      if (!untold.has(subject)) untold.set(subject, change);
      throw error;
    }
    if (untold.get(subject) === change) untold.delete(subject);
    const { value, leftMs } = state ?? {};
    await redis.publish(channel, JSON.stringify({ subject, over: state === undefined, value, leftMs }));
  }

  function change(subject: string, state: SharedState | undefined): void {
    changed?.add(subject);
    note(subject, state);
    const mark = {};
    // At once: what is kept for a restart must not take it for told.
    untold.set(subject, mark);
    // One after the other: a script that has to be sent again would come behind what ended it.
    telling = telling.then(() => tell(subject, state, mark)).catch(() => undefined);
  }

  /** `isAll`: Redis has forgotten something; what it does not know is not over. */
  async function catchUp(epoch: string, isAll: boolean, since: ReadonlySet<string>): Promise<void> {
    const mustTell = isAll ? [...standing.keys()] : [];
    for (const [subject, mark] of [...untold]) {
      const state = stateOf(subject);
      if (untold.has(subject)) await tell(subject, state, mark);
    }
    const all = (await redis.run(ALL, [key, `${prefix}:epoch`], [epoch])) as unknown[] | null;
    if (all === null) throw new Error('Redis has lost what it knew');
    const stands = new Set<string>();
    for (let i = 0; i + 2 < all.length; i += 3) {
      const subject = String(all[i]);
      stands.add(subject);
      if (since.has(subject)) continue;
      const leftMs = Number(all[i + 1]);
      const value = parse(String(all[i + 2]));
      if (value !== undefined) heard(subject, { subject, value, leftMs: leftMs === 0 ? undefined : leftMs });
    }
    // Perhaps it is not the one any more that was heard: what it lacks is not over.
    if (!isKnown) throw new Error('Redis was away');
    // Redis has forgotten it, or it is over and this relay did not hear of it.
    for (const subject of mustTell) if (!stands.has(subject) && !since.has(subject)) await tell(subject);
    if (isAll) return;
    for (const subject of [...standing.keys()])
      if (!stands.has(subject) && !since.has(subject)) heard(subject, undefined);
  }

  membership.onHeard((epoch, hasForgotten) => {
    mustTellAll ||= hasForgotten;
    if (changed !== undefined || (isKnown && !mustTellAll)) return;
    const isAll = mustTellAll;
    mustTellAll = false;
    isKnown = true;
    changed = new Set();
    catchUp(epoch, isAll, changed)
      .catch((error: unknown) => {
        isKnown = false;
        mustTellAll ||= isAll;
        log.debug({ event: 'shared_states_unread', err: error }, 'shared states could not be read yet');
      })
      .finally(() => {
        changed = undefined;
      });
  });
  redis.onAway((away) => {
    if (away) isKnown = false;
  });
  redis.onGap(() => {
    isKnown = false;
  });
  redis.subscribe(channel, (text) => {
    const news = parse(text) as
      | { subject?: string; over?: boolean; value?: unknown; leftMs?: number; action?: string }
      | undefined;
    if (typeof news?.action === 'string') for (const listener of askListeners) listener(news.action);
    else if (typeof news?.subject === 'string') {
      changed?.add(news.subject);
      heard(
        news.subject,
        news.over === true ? undefined : { subject: news.subject, value: news.value, leftMs: news.leftMs },
      );
    }
  });

  return {
    set: (state) => change(state.subject, state),
    clear: (subject) => change(subject, undefined),
    ask: (action) => void redis.publish(channel, JSON.stringify({ action })).catch(() => undefined),
    onState: (listener) => void stateListeners.push(listener),
    onAsked: (listener) => void askListeners.push(listener),
    told: () => telling,
    kept: {
      snapshot: () =>
        [...new Set([...standing.keys(), ...untold.keys()])].flatMap((subject) => {
          const state = stateOf(subject);
          const isUntold = untold.has(subject);
          if (state === undefined) return isUntold ? [[subject, null, OVER, true]] : [];
          const { value, leftMs } = state;
          return [[subject, value, leftMs === undefined ? null : Math.round(clock.now() + leftMs), isUntold]];
        }),
      restore(kept) {
        if (!Array.isArray(kept)) throw new Error('no states');
        for (const [subject, value, endsAt, isUntold] of kept as unknown[][]) {
          if (typeof subject !== 'string' || (endsAt !== null && typeof endsAt !== 'number'))
            throw new Error('no state');
          const leftMs = endsAt === null ? undefined : endsAt - clock.now();
          const stands = leftMs === undefined || leftMs > 0;
          if (stands) heard(subject, { subject, value, leftMs });
          if (isUntold === true && (stands || endsAt === OVER)) untold.set(subject, {});
        }
      },
    },
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
