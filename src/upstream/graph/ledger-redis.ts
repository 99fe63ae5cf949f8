/**
 * The ledger that several relays share in Redis: one script a claim, one a note. A relay that dies leaves
 * its claim, which ends by itself. Without Redis nothing is claimed, and the messages wait: another relay
 * may have sent them.
 */
import { randomUUID } from 'node:crypto';
import { type Clock, systemClock } from '../../clock.ts';
import { type RedisConnection, RedisUnavailable, redisScript } from '../../redis.ts';
import {
  CLAIM_MS,
  formatEntry,
  HEARD_MS,
  type Hearing,
  hashOf,
  heardOf,
  isListed,
  isOpen,
  KEEP_MS,
  keepMsOf,
  type Ledger,
  type LedgerRow,
  OWNED_MS,
  parseEntry,
  SWEEP_MS,
  unreadableEntry,
  withoutSteps,
} from './ledger.ts';

/** ms. */
const RELEASE_AGAIN_MS = 500;

/** `false` where the claim is held, else what is known (`''` for nothing). */
const CLAIM = redisScript(
  `if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return redis.call('get', KEYS[2]) or '' else return false end`,
);
/** By the recipients of the keys from this one on the holder was heard last. */
const heardFrom = (key: number): string =>
  `for i = ${key}, #KEYS do redis.call('set', KEYS[i], ARGV[1], 'PX', ${HEARD_MS}) end`;
/** Only the holder may note; 0: the claim was lost. KEYS: claim, entry, what is not sent, owner of the draft, that there is anything, the same message's for any recipients, what is open of its sender, whose its name is (`-`: several messages'), by whom it was heard. */
const NOTE = redisScript(
  `if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[2], ARGV[2], 'PX', ARGV[3])
if ARGV[5] == 'sent' then redis.call('hdel', KEYS[3], ARGV[4]) else redis.call('hset', KEYS[3], ARGV[4], ARGV[2]) end
if ARGV[5] == 'draft' then redis.call('set', KEYS[4], ARGV[4], 'PX', ARGV[6]) end
redis.call('set', KEYS[5], '1', 'PX', ARGV[7])
if ARGV[8] == 'related' then redis.call('hset', KEYS[6], ARGV[4], ARGV[2]) redis.call('pexpire', KEYS[6], ARGV[7]) else redis.call('hdel', KEYS[6], ARGV[4]) end
if ARGV[10] == 'named' then local whose = redis.call('get', KEYS[8]) redis.call('set', KEYS[8], (whose and whose ~= ARGV[4]) and '-' or ARGV[4], 'PX', ARGV[7]) end
if ARGV[9] == 'open' then redis.call('hset', KEYS[7], ARGV[4], '1') redis.call('pexpire', KEYS[7], ARGV[7]) else redis.call('hdel', KEYS[7], ARGV[4]) end
${heardFrom(9)}
return 1`,
);
/** -1: the claim was lost, and whoever has it now knows what was noted. KEYS: claim, entry, what is not sent, what is open of its sender, the same message's for any recipients, by whom it was heard. */
const FORGET = redisScript(
  `if redis.call('get', KEYS[1]) ~= ARGV[1] then return -1 end
for i = 3, 5 do redis.call('hdel', KEYS[i], ARGV[2]) end
${heardFrom(6)}
return redis.call('del', KEYS[2])`,
);
const RELEASE = redisScript(
  `if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end`,
);

/** `prefix` is the first part of every key. Connects with the first message; closes the connection with itself. */
export function createRedisLedger(
  redis: RedisConnection,
  prefix: string,
  clock: Clock = systemClock,
): Ledger {
  const today = withoutSteps(clock);
  const unsent = `${prefix}:graph:unsent`;
  const any = `${prefix}:graph:any`;
  const familyOf = (family: string): string => `${prefix}:graph:family:${family}`;
  /** What is open of a sender, or where it was not noted. */
  const openKey = (sender: string | undefined): string => `${prefix}:graph:open:${sender ?? ''}`;
  const nameKey = (name: string): string => `${prefix}:graph:name:${name}`;
  /** One each, so that each ends in its time. */
  const heardKeys = (hearing: Hearing | undefined): readonly string[] =>
    hearing === undefined ? [] : heardOf(hearing).map((each) => `${prefix}:graph:heard:${each}`);
  const ownerKey = (draft: string): string => `${prefix}:graph:owner:${hashOf(draft)}`;
  let isClosed = false;

  /** Tried again where Redis is away, until the claim has ended by itself. */
  async function release(keys: readonly string[], owner: string, until = clock.monotonic() + CLAIM_MS) {
    try {
      await redis.run(RELEASE, keys.slice(0, 1), [owner]);
    } catch {
      if (isClosed || clock.monotonic() >= until) return;
      clock.after(RELEASE_AGAIN_MS, () => void release(keys, owner, until));
    }
  }

  return {
    isOfMany: true,
    open: () => redis.open(),
    async claim(key) {
      await redis.open();
      const owner = randomUUID();
      const keys = [`${prefix}:graph:claim:${key}`, `${prefix}:graph:known:${key}`, unsent];
      const known = await redis.run(CLAIM, keys.slice(0, 2), [owner, CLAIM_MS]).catch((error: unknown) => {
        // Nobody would work on the message.
        if (!(error instanceof RedisUnavailable) || error.isAsked) void release(keys, owner);
        throw error;
      });
      if (typeof known !== 'string') return 'busy';
      const forget = (hearing?: Hearing): Promise<boolean> => {
        const places = [...keys, openKey(sender), familyOf(family ?? key), ...heardKeys(hearing)];
        return redis.run(FORGET, places, [owner, key]).then(
          (done) => done !== -1,
          () => false,
        );
      };
      let isOver = false;
      const before = known === '' ? undefined : (parseEntry(known) ?? unreadableEntry(clock.now()));
      let { family, sender } = before?.subject ?? {};
      return {
        known: before,
        async note(entry, hearing) {
          family = entry.subject?.family ?? family;
          sender = entry.subject?.sender ?? sender;
          const owned = ownerKey(entry.state === 'draft' ? entry.draft : key);
          const args = [
            owner,
            formatEntry(entry),
            keepMsOf(entry),
            key,
            (isOpen(entry) || isListed(entry)) && entry.state === 'sent' ? 'kept' : entry.state,
            keepMsOf(entry) + OWNED_MS,
            KEEP_MS + SWEEP_MS,
            entry.subject?.family === undefined ? '' : 'related',
            isOpen(entry) ? 'open' : '',
            entry.subject?.name === undefined ? '' : 'named',
          ];
          const held = await redis.run(
            NOTE,
            [
              ...keys,
              owned,
              any,
              familyOf(family ?? key),
              openKey(sender),
              nameKey(entry.subject?.name ?? key),
              ...heardKeys(hearing),
            ],
            args,
          );
          if (held !== 1) throw new Error('another relay took the message over');
        },
        forget: () => forget(),
        close: forget,
        async notHeardSince(hearing) {
          const { marks } = hearing;
          const last = await redis.ask((r) => r.mGet([...heardKeys(hearing)]));
          return marks.filter((_, i) => (last[i] ?? owner) === owner);
        },
        async release() {
          if (isOver) return;
          isOver = true;
          await release(keys, owner);
        },
      };
    },
    ownerOf: (draft) => redis.ask((r) => r.get(ownerKey(draft))).then((key) => key ?? undefined),
    isShared: (name, key) =>
      redis.ask((r) => r.get(nameKey(name))).then((whose) => whose !== null && whose !== key),
    async relatives(family) {
      const rows = Object.entries(await redis.ask((r) => r.hGetAll(familyOf(family))));
      return rows.flatMap(([key, text]) => {
        const entry = parseEntry(text);
        return entry === undefined || entry.at < today() - keepMsOf(entry) ? [] : [{ key, entry }];
      });
    },
    hasOpen: (sender) =>
      redis
        .ask((r) => (sender === undefined ? r.hLen(unsent) : r.exists([openKey(sender), openKey(undefined)])))
        .then((count) => count > 0),
    hasAny: () => redis.ask((r) => r.exists(any)).then((count) => count > 0),
    async list() {
      const rows: LedgerRow[] = [];
      const over: string[] = [];
      for (const [key, text] of Object.entries(await redis.ask((r) => r.hGetAll(unsent)))) {
        const entry = parseEntry(text);
        if (entry === undefined || entry.at < today() - keepMsOf(entry)) over.push(key);
        else if (isListed(entry)) rows.push({ key, entry });
      }
      // Whose own key has ended: nothing else removes it here.
      if (over.length > 0) await redis.ask((r) => r.hDel(unsent, over));
      return rows.sort((a, b) => a.entry.at - b.entry.at);
    },
    async close() {
      isClosed = true;
      redis.close();
    },
  };
}
