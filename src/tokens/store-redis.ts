/**
 * Grants shared by several relays through Redis. An access token lives there as long as it is valid, a
 * rotated refresh token much longer, with its generation. A lock per account lets one relay refresh at a
 * time; one that dies leaves word of it. While Redis is gone every operation rejects at once.
 */
import { createHash, randomUUID } from 'node:crypto';
import { type Clock, pause, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { foldAddress } from '../protocol/text.ts';
import { TOKEN_RESOURCES, type TokenResource } from '../protocol/vocabulary.ts';
import { KEY_PREFIX, type RedisConnection, redisScript } from '../redis.ts';
import { type ConsentHolder, isOfEarlierSignIn, latestFor } from './same-consent.ts';
import { SealError, type Sealer } from './sealing.ts';
import { afterRotation, ownGrant } from './stored-grants.ts';
import { formatStored, parseBlock, parseStored } from './stored-text.ts';
import type {
  GrantId,
  GrantLock,
  RotationResult,
  StoredGrant,
  StoredToken,
  TokenStore,
} from './token-store.ts';

export interface RedisStoreDeps {
  readonly log: Log;
  /** Without one the values are in the clear. */
  readonly sealer: Sealer | undefined;
  /** Since when this relay has been the only one, monotonic ms. Default: never known. */
  readonly aloneSince?: () => number | undefined;
  readonly clock?: Clock;
  /** 0 to 1, for jitter. */
  readonly random?: () => number;
}

export interface RedisStoreOptions {
  /** First part of every key. Default `xoauth2-relay`. */
  readonly prefix?: string;
  /** A lock whose holder died is free after this, ms. Default 10,000; a living holder extends it. */
  readonly lockMs?: number;
  /** `guest`: a command; `load` rejects also where what is there is damaged. Default `owner`. */
  readonly role?: 'owner' | 'guest';
  /** Longest wait for an account that another relay refreshes, ms. Default 25,000. */
  readonly lockWaitMs?: number;
}

/** Twice what Microsoft lets a refresh token lie unused. */
const REFRESH_TOKEN_LIFE_MS = 180 * 24 * 60 * 60_000;
/** Word of a refresh whose end nobody has seen; longer than a virtual machine is usually paused. */
const BEGUN_LIFE_MS = 60 * 60_000;
const POLL_MS = 50;
/** Clocks that differ by less are the same, ms. */
const SAME_CLOCK_MS = 5000;

/**
 * Takes all locks (the first half of the keys; the second half is word of who began) or none; answers how long ago, by
 * no clock but Redis', a last holder began that left word of it, or -1.
 */
const TAKE = redisScript(`
local count = #KEYS / 2
for i = 1, count do if redis.call('exists', KEYS[i]) == 1 then return false end end
local left = -1
for i = 1, count do
  redis.call('set', KEYS[i], ARGV[1], 'PX', ARGV[2])
  left = math.max(left, redis.call('pttl', KEYS[count + i]))
  redis.call('set', KEYS[count + i], ARGV[1], 'PX', ARGV[3])
end
return left < 0 and -1 or math.max(ARGV[3] - left, 0)`);
/** Extends them, also where they have run out and nobody has taken one since. */
const EXTEND = redisScript(`
for i = 1, #KEYS do
  local owner = redis.call('get', KEYS[i])
  if owner and owner ~= ARGV[1] then return 0 end
end
for i = 1, #KEYS do redis.call('set', KEYS[i], ARGV[1], 'PX', ARGV[2]) end
return 1`);
/** Only its owner frees a lock, and takes back the word of its beginning. */
const RELEASE = redisScript(`
for i = 1, #KEYS do
  local value = redis.call('get', KEYS[i])
  if value and string.sub(value, 1, string.len(ARGV[1])) == ARGV[1] then redis.call('del', KEYS[i]) end
end
return 1`);
/**
 * Whose refresh tokens are the latest of a consent: the last key is set to this account unless another one has later
 * ones. Part of scripts.
 */
const POINT = `
local function point(key, generation, account, life)
  if generation < tonumber(redis.call('hget', key, 'generation') or '0') then return end
  redis.call('hset', key, 'generation', generation, 'account', account)
  redis.call('pexpire', key, life)
end`;
/** Answers the accounts with the latest of each consent; ours is noted where it is not known yet. */
const FIND = redisScript(`${POINT}
if tonumber(ARGV[1]) > 0 then point(KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3]) end
local found = {}
for i = 1, #KEYS do found[i] = redis.call('hget', KEYS[i], 'account') or '' end
return found`);
/** Compare-and-set: answers whether it is kept, the generation that stands, and its text where it is another's. */
const ROTATE = redisScript(`${POINT}
local held = tonumber(redis.call('hget', KEYS[1], 'generation:' .. ARGV[1]) or '0')
local base = tonumber(ARGV[2])
if held > base then return { 0, held, redis.call('hget', KEYS[1], 'grant:' .. ARGV[1]) or '' } end
redis.call('hset', KEYS[1], 'generation:' .. ARGV[1], base + 1, 'grant:' .. ARGV[1], ARGV[3])
redis.call('pexpire', KEYS[1], ARGV[4])
redis.call('del', KEYS[2], KEYS[3], KEYS[4])
point(KEYS[5], base + 1, ARGV[5], ARGV[4])
return { 1, base + 1, '' }`);

export function createRedisStore(
  connection: RedisConnection,
  deps: RedisStoreDeps,
  options: RedisStoreOptions = {},
): TokenStore {
  const { log, sealer, clock = systemClock, random = Math.random } = deps;
  const { ask, run } = connection;
  const prefix = options.prefix ?? KEY_PREFIX;
  const lockMs = options.lockMs ?? 10_000;
  const lockWaitMs = options.lockWaitMs ?? 25_000;
  const channel = `${prefix}:forgotten`;

  const key = (what: string, accountId: string): string => `${prefix}:${what}:${accountId}`;
  const resourceKey = (what: 'token' | 'block', accountId: string, resource: TokenResource): string =>
    key(resource === 'smtp' ? what : `${what}.${resource}`, accountId);
  /** Of what the operator gave, or of what a person signed in for instead: each is a field of its own. */
  const nameOf = (fingerprint: string, signedInAs: string | undefined): string =>
    signedInAs === undefined
      ? fingerprint
      : createHash('sha256')
          .update(`${fingerprint} ${foldAddress(signedInAs)}`)
          .digest('base64url');

  /** Keys whose text could not be read: the log has each once. */
  const unreadable = new Set<string>();

  /** None where the text cannot be read. Rejects never. */
  const parseAny = (text: string | null | undefined, name: string): Promise<readonly StoredGrant[]> =>
    parse(text, name, () => false);

  /** Rejects where the key of a refresh token was not given: an earlier one is surely no good, and ours would replace it. */
  async function parse(
    text: string | null | undefined,
    name: string,
    isFatal = ({ code }: SealError): boolean => options.role === 'guest' || code === 'unknown_key',
  ): Promise<readonly StoredGrant[]> {
    if (text === null || text === undefined) return [];
    try {
      return (await parseStored(text, name, sealer)).grants;
    } catch (error) {
      if (!(error instanceof SealError)) throw error;
      if (!unreadable.has(name))
        log.error(
          { event: 'redis_value_unreadable', key: name, reason: error.message },
          'stored tokens of an account cannot be read',
        );
      unreadable.add(name);
      if (isFatal(error)) throw error;
      return [];
    }
  }

  /** The grant as it stands in the hash, or as version 0.1 left it. */
  async function grantOf(id: GrantId, texts: readonly (string | null)[], first: string | null) {
    const name = key('grants', id.accountId);
    const grants = (await Promise.all(texts.map((text) => parse(text, name)))).flat();
    return ownGrant(grants.length > 0 ? grants : await parse(first, key('grant', id.accountId)), id);
  }

  async function load(id: GrantId): Promise<StoredGrant | undefined> {
    const { accountId, fingerprint } = id;
    const keys = TOKEN_RESOURCES.map((resource) => resourceKey('token', accountId, resource));
    const fields = [...new Set([nameOf(fingerprint, id.user), fingerprint])].map((name) => `grant:${name}`);
    const [texts, values, lives] = await ask((redis) =>
      Promise.all([
        redis.hmGet(key('grants', accountId), fields),
        redis.mGet([...keys, key('grant', accountId)]),
        Promise.all(keys.map((name) => redis.pTTL(name))),
      ]),
    );
    const grant = await grantOf(id, texts, values.at(-1) ?? null);
    const tokens: Partial<Record<TokenResource, StoredToken>> = {};
    for (const [i, resource] of TOKEN_RESOURCES.entries()) {
      const [holder] = await parseAny(values[i], keys[i] ?? '');
      // Version 0.1 kept every token as that for SMTP.
      const token = holder?.tokens[resource];
      if (token !== undefined && holder?.grantFingerprint === fingerprint)
        tokens[resource] = byOurClock(token, lives[i] ?? -1);
    }
    await sealer?.ready();
    if (grant === undefined && Object.keys(tokens).length === 0) return undefined;
    return { ...(grant ?? { grantFingerprint: fingerprint, generation: 0 }), tokens };
  }

  async function elsewhere(holder: ConsentHolder): Promise<StoredGrant | undefined> {
    const { accountId, fingerprint, user, generation, signedInAs } = holder;
    const names = [...new Set([nameOf(fingerprint, signedInAs), nameOf(fingerprint, user)])];
    const keys = names.map((name) => key('consent', name));
    const found = (await run(FIND, keys, [generation, accountId, REFRESH_TOKEN_LIFE_MS])) as string[];
    const grants = await Promise.all(
      found.map(async (id, at) => {
        if (id === '' || id === accountId) return undefined;
        const name = key('grants', id);
        const [text, counted] = await ask((redis) =>
          redis.hmGet(name, [`grant:${names[at]}`, `generation:${names[at]}`]),
        );
        const [grant] = await parse(text, name);
        return grant && { ...grant, generation: Math.max(grant.generation, Number(counted ?? 0)) };
      }),
    );
    return latestFor(holder, grants);
  }

  /** It ends when its key does: whoever kept it may have another clock. */
  function byOurClock(token: StoredToken, leftMs: number): StoredToken {
    const offsetMs = clock.now() + leftMs - token.expiresAt;
    if (leftMs < 0 || Math.abs(offsetMs) < SAME_CLOCK_MS) return token;
    return { ...token, expiresAt: token.expiresAt + offsetMs, obtainedAt: token.obtainedAt + offsetMs };
  }

  async function saveToken(
    { accountId, fingerprint }: GrantId,
    resource: TokenResource,
    token: StoredToken | undefined,
  ): Promise<void> {
    const name = resourceKey('token', accountId, resource);
    const lifeMs = Math.floor((token?.expiresAt ?? 0) - clock.now());
    if (token === undefined || lifeMs <= 0) {
      await ask((redis) => redis.del(name));
      return;
    }
    const grant = { grantFingerprint: fingerprint, generation: 0, tokens: { [resource]: token } };
    const text = await formatStored([grant], name, sealer);
    await ask((redis) =>
      Promise.all([
        redis.set(name, text, { expiration: { type: 'PX', value: lifeMs } }),
        redis.del(resourceKey('block', accountId, resource)),
      ]),
    );
  }

  /** Of the account in any case: relays of an earlier version know no other lock. */
  async function tryLock(accountId: string, consent?: string): Promise<GrantLock | undefined> {
    const lockKeys = [
      key('lock', accountId),
      ...(consent === undefined ? [] : [key('consent-lock', consent)]),
    ];
    const begunKeys = [
      key('begun', accountId),
      ...(consent === undefined ? [] : [key('consent-begun', consent)]),
    ];
    const keys = [...lockKeys, ...begunKeys];
    const owner = randomUUID();
    const askedAt = clock.monotonic();
    const agoMs = await run(TAKE, keys, [owner, lockMs, BEGUN_LIFE_MS]);
    if (typeof agoMs !== 'number') return undefined;
    // Before it was asked for: by then Redis counts already.
    let seenAt = askedAt;
    let isHeld = true;
    let cancel = clock.after(lockMs / 3, extend);
    function extend(): void {
      cancel = clock.after(lockMs / 3, extend);
      const at = clock.monotonic();
      run(EXTEND, lockKeys, [owner, lockMs]).then(
        (held) => {
          if (held !== 0) {
            seenAt = at;
            return;
          }
          isHeld = false;
          cancel();
        },
        () => undefined,
      );
    }
    return {
      interrupted: agoMs < 0 ? undefined : { begunAt: clock.now() - agoMs, isOver: false },
      isHeld: () => isHeld && clock.monotonic() - seenAt < lockMs,
      leave: () => cancel(),
      async release() {
        cancel();
        if (!isHeld) log.debug({ event: 'lock_lost', account: accountId }, 'the lock had gone to another');
        await run(RELEASE, keys, [owner]);
      },
    };
  }

  return {
    kind: 'redis',
    open: connection.open,
    load,
    elsewhere,
    async rotate(id, rotation) {
      const { accountId, fingerprint } = id;
      const name = key('grants', accountId);
      const { grant } = afterRotation(undefined, fingerprint, rotation, {});
      const text = await formatStored([grant], name, sealer);
      const blocks = TOKEN_RESOURCES.map((resource) => resourceKey('block', accountId, resource));
      const field = nameOf(fingerprint, rotation.signedInAs);
      const keys = [name, ...blocks, key('consent', field)];
      const keep = async (base: number): Promise<RotationResult> => {
        const args = [field, base, text, REFRESH_TOKEN_LIFE_MS, accountId];
        const [isKept, generation, held] = (await run(ROTATE, keys, args)) as [0 | 1, number, string];
        if (isKept === 1) return { kept: true, generation };
        const stored = (await parseAny(held, name))[0];
        // What cannot be read is worth less than what has just come.
        if (stored?.refreshToken === undefined) return keep(generation);
        if (stored.refreshToken === rotation.refreshToken) return { kept: true, generation };
        if (isOfEarlierSignIn(stored, rotation)) return keep(generation);
        return { kept: false, stored: { ...stored, generation } };
      };
      const result = await keep(rotation.base);
      if (!result.kept) return result;
      for (const [resource, token] of Object.entries(await rotation.tokens))
        await saveToken(id, resource as TokenResource, token);
      return result;
    },
    saveToken,
    // Another relay may still serve them; what is left ends by itself.
    prune: async () => ({ gone: 0, kept: [] }),
    async lock(accountId, consent, isWanted = () => true) {
      const deadline = clock.monotonic() + lockWaitMs;
      for (;;) {
        const lease = await tryLock(accountId, consent);
        if (lease !== undefined || clock.monotonic() > deadline || !isWanted()) return lease;
        await pause(clock, POLL_MS * (0.5 + random()));
      }
    },
    aloneSince: () => deps.aloneSince?.(),
    onBack: (listener) =>
      connection.onAway((away) => {
        if (!away) listener();
      }),
    async block(accountId, resource, block) {
      const value = Math.ceil(block.until - clock.now());
      if (value < 1) return;
      const text = JSON.stringify(block);
      const name = resourceKey('block', accountId, resource);
      await ask((redis) => redis.set(name, text, { expiration: { type: 'PX', value } }));
    },
    async blockOf(accountId, resource) {
      const name = resourceKey('block', accountId, resource);
      const [text, leftMs] = await ask((redis) => Promise.all([redis.get(name), redis.pTTL(name)]));
      const block = text === null ? undefined : parseBlock(text);
      return block && { ...block, until: clock.now() + Math.max(leftMs, 0) };
    },
    announceForgotten: (accountId) => connection.publish(channel, accountId),
    onForgotten: (listener) => connection.subscribe(channel, listener),
    close: async () => connection.close(),
  };
}
