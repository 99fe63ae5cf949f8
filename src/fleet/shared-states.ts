/**
 * What one relay learned, for all: pauses of accounts, endpoints that are down, drained accounts. In: what
 * this relay finds. Out: what the others found, and what had been found before this one came. Messages make
 * it fast, the hash in Redis makes it true: it is read again at every start and whenever Redis was away.
 */
import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { KEY_PREFIX, type RedisConnection, redisScript } from '../redis.ts';
import type { Membership } from './membership.ts';

/** Something that stands until it ends or is taken back. `value` is JSON of the room it belongs to, never a secret. */
export interface SharedState {
  /** For example `pause:sending:alice@example.com`, `endpoint:smtp.gmail.com:587`, `drained:alice@example.com`. */
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
  /**
   * All that stands has been heard; `subjects` are these, and those that changed meanwhile. `epoch`: another one where
   * Redis has lost what stood before.
   */
  onKnown(listener: (subjects: ReadonlySet<string>, epoch: string) => void): void;
}

/** KEYS: states. ARGV: subject, value, ms it stands (0: no end), most entries. */
const SET = redisScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local till = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], (till > 0 and now + till or 0) .. ' ' .. ARGV[2])
return 1
`);

/** KEYS: states. Answers subject, ms left (0: no end), value of each; drops what has ended. */
const ALL = redisScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
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
  /** What this relay found and the others may not know because Redis was away. */
  const own = new Map<string, { readonly value: unknown; readonly endsAt: number | undefined } | undefined>();
  const knownListeners: ((subjects: ReadonlySet<string>, epoch: string) => void)[] = [];
  /** Told or heard while all that stands is asked for. */
  let changed: Set<string> | undefined;
  let isKnown = false;

  const heard = (subject: string, state: SharedState | undefined): void => {
    for (const listener of stateListeners) listener(subject, state);
  };

  async function tell(subject: string, state: SharedState | undefined): Promise<void> {
    if (state === undefined) await redis.ask((r) => r.hDel(key, subject));
    else {
      const ms = state.leftMs === undefined ? 0 : Math.max(1, Math.round(state.leftMs));
      await redis.run(SET, [key], [subject, JSON.stringify(state.value), ms]);
    }
    const { value, leftMs } = state ?? {};
    await redis.publish(channel, JSON.stringify({ subject, over: state === undefined, value, leftMs }));
  }

  function change(subject: string, state: SharedState | undefined): void {
    changed?.add(subject);
    tell(subject, state).catch(() => {
      const endsAt = state?.leftMs === undefined ? undefined : clock.monotonic() + state.leftMs;
      own.set(subject, state === undefined ? undefined : { value: state.value, endsAt });
    });
  }

  async function catchUp(epoch: string): Promise<void> {
    const subjects = new Set<string>();
    changed = subjects;
    for (const [subject, found] of own) {
      own.delete(subject);
      const leftMs = found?.endsAt === undefined ? undefined : found.endsAt - clock.monotonic();
      if (found === undefined) change(subject, undefined);
      else if (leftMs === undefined || leftMs > 0) change(subject, { subject, value: found.value, leftMs });
    }
    const all = (await redis.run(ALL, [key], [])) as unknown[];
    for (let i = 0; i + 2 < all.length; i += 3) {
      const subject = String(all[i]);
      subjects.add(subject);
      if (own.has(subject)) continue;
      const leftMs = Number(all[i + 1]);
      const value = parse(String(all[i + 2]));
      if (value !== undefined) heard(subject, { subject, value, leftMs: leftMs === 0 ? undefined : leftMs });
    }
    changed = undefined;
    for (const listener of knownListeners) listener(subjects, epoch);
  }

  membership.onEpoch((epoch) => {
    if (isKnown) return;
    isKnown = true;
    catchUp(epoch).catch((error: unknown) => {
      isKnown = false;
      log.debug({ event: 'shared_states_unread', err: error }, 'shared states could not be read yet');
    });
  });
  redis.onAway((away) => {
    if (away) isKnown = false;
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
    onKnown: (listener) => void knownListeners.push(listener),
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
