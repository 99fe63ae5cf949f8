/**
 * What several relays agree on in Redis, as scripts that run as a whole. Times are those of Redis' own
 * clock in ms; every key ends by itself. Scores that its clock could not have made (it stepped back) are
 * dropped, so that no limit stands longer than its window.
 */
import { MISSING_AFTER_MS } from '../protocol/vocabulary.ts';
import { redisScript } from '../redis.ts';
import { BUCKET_MS, BUCKETS, WINDOW_MS } from '../relay/mailbox-counts.ts';

/** A relay that is missing counts as gone after this. */
export const GONE_AFTER_MS = 15_000;
/** Who waits for a place and has not asked again for this long waits no more, ms. */
const SEEN_FOR_MS = 1_500;

/** Longer than the day that it counts, ms. */
const DAY_KEPT_MS = 90_000_000;

/** No place in a minute, and no login, is given farther ahead: what is was made by a clock that stepped back, ms. */
const FARTHEST_MS = 600_000;
/** Longer than the farthest place and the minute behind it, ms. */
const PACE_KEPT_MS = 700_000;
/** Longer than any who waits goes without asking again, ms. */
const QUEUE_KEPT_MS = 10_000;
/** Where what is missing may use all of a minute's limit, it is asked again after this, ms. */
const NOTHING_LEFT_MS = 60_000;

/** What is kept for relays that have not told what they did is asked for again after this, ms. */
const UNTOLD_MS = 1_000;

/** Longer than a relay is likely to be gone and come back with what it knew, ms. */
const MARK_KEPT_MS = 30 * 86_400_000;

/** `now`, ms since the epoch, and the bucket of the day it is in. Part of scripts. */
export const NOW = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local bucket = math.floor(now / ${BUCKET_MS})
`;

/** `relays`: how many there are; `missing`: of how many nobody knows whether they still send by themselves. */
const FLEET = `
local relays = redis.call('ZCOUNT', KEYS[1], now - ${GONE_AFTER_MS}, '+inf')
local missing = redis.call('ZCOUNT', KEYS[1], now - ${GONE_AFTER_MS}, now - ${MISSING_AFTER_MS})
local function open_to_all(limit)
  if missing == 0 then return limit end
  return math.max(limit - missing * math.max(math.floor(limit / relays), 1), 0)
end
`;

/**
 * `in_minute`: all that have a place in it, those to come among them. `take_place`: one for `id` at `at`, after `before`
 * others; none where it is later than `max_wait`: the wait. A score is when the message has its place, then when it was
 * last under way, then when it ended.
 */
const PACE = `
local function in_minute(pace)
  redis.call('ZREMRANGEBYSCORE', pace, '-inf', now - ${WINDOW_MS})
  redis.call('ZREMRANGEBYSCORE', pace, now + ${FARTHEST_MS}, '+inf')
  return redis.call('ZCARD', pace)
end
local function take_place(pace, id, most, before, max_wait)
  if most == 0 then return nil, ${NOTHING_LEFT_MS} end
  local at = now
  if before >= most then
    local last = redis.call('ZRANGE', pace, before - most, before - most, 'WITHSCORES')
    at = math.max(now, tonumber(last[2]) + ${WINDOW_MS})
  end
  if at - now > max_wait then return nil, at - now end
  redis.call('ZADD', pace, at, id)
  redis.call('PEXPIRE', pace, ${PACE_KEPT_MS})
  return at, at - now
end
`;

/** What became of a place. `unsent`: it counts nothing. `lent`: its place at once is free, its place in the minute stands. */
export const PLACE_ENDS = { over: 0, unsent: 1, lent: 2 } as const;

/**
 * `first` of ARGV: lease id, what became of it (`PLACE_ENDS`), recipients that were taken, and so on.
 * Answers how many places came free.
 */
const OVER = `
local function is_over(first, leases, pace, day, told)
  local freed = 0
  while ARGV[first] do
    local had = redis.call('ZREM', leases, ARGV[first])
    freed = freed + had
    if ARGV[first + 1] == '${PLACE_ENDS.unsent}' then
      had = had + redis.call('ZREM', pace, ARGV[first])
      local field = 'm' .. bucket
      if had > 0 and tonumber(redis.call('HGET', day, field) or '0') > 0 then
        redis.call('HINCRBY', day, field, -1)
        redis.call('HINCRBY', told, 'm', -1)
      end
    else
      if ARGV[first + 1] == '${PLACE_ENDS.over}' then redis.call('ZADD', pace, 'XX', now, ARGV[first]) end
      if tonumber(ARGV[first + 2]) > 0 then
        redis.call('HINCRBY', day, 'r' .. bucket, ARGV[first + 2])
        redis.call('HINCRBY', told, 'r', ARGV[first + 2])
        redis.call('PEXPIRE', day, ${DAY_KEPT_MS})
        redis.call('PEXPIRE', told, ${DAY_KEPT_MS})
      end
    end
    first = first + 3
  end
  return freed
end
`;

/** Relays that wait for a place, each once, in the order in which they came; who has not asked again for a while is left out. */
const QUEUE = `
local function drop_stale(queue, seen)
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', now - ${SEEN_FOR_MS})) do
    redis.call('ZREM', queue, gone)
    redis.call('ZREM', seen, gone)
  end
end
local function stand(queue, seen, ticket)
  redis.call('ZADD', queue, 'NX', now, ticket)
  redis.call('ZADD', seen, now, ticket)
  redis.call('PEXPIRE', queue, ${QUEUE_KEPT_MS})
  redis.call('PEXPIRE', seen, ${QUEUE_KEPT_MS})
end
local function leave(queue, seen, ticket)
  redis.call('ZREM', seen, ticket)
  return redis.call('ZREM', queue, ticket)
end
local function wake(queue, seen, channel, account, free)
  if free < 1 then return end
  drop_stale(queue, seen)
  local first = redis.call('ZRANGE', queue, 0, free - 1)
  if #first > 0 then redis.call('PUBLISH', channel, '- ' .. table.concat(first, ',') .. ' ' .. account) end
end
`;

/**
 * A place for one message. KEYS: relays, leases, pace, day, queue, seen, epoch, told. ARGV: lease id, at once (0:
 * no limit), lease ms, a minute, a day, recipients a day, longest wait ms, ticket in the queue or empty, epoch, `1` where others
 * of this relay wait behind this one, channel, account, then where others are over of each what `GIVE_BACK` has.
 * Answers {what, ms, held, minute, day, waiting, stands, recipients}: `granted` with the wait, `busy`, `minute` or `day` with the
 * time to ask again, `epoch` where Redis has lost what the relays told it before; `stands`: the ticket is in the queue.
 */
export const RESERVE = redisScript(`${NOW}
if redis.call('GET', KEYS[7]) ~= ARGV[9] then return {'epoch', 0, 0, 0, 0, 0, 0, 0} end
${FLEET}${OVER}${QUEUE}${PACE}
local at_once, lease_ms, per_minute, per_day, per_day_rcpt, max_wait =
  tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local ticket, stands = ARGV[8], 0
local freed = is_over(13, KEYS[2], KEYS[3], KEYS[4], KEYS[8])

local day, recipients, oldest = 0, 0, bucket
if per_day > 0 or per_day_rcpt > 0 then
  local all = redis.call('HGETALL', KEYS[4])
  for i = 1, #all, 2 do
    local of = tonumber(string.sub(all[i], 2))
    if of <= bucket - ${BUCKETS} or of > bucket + 1 then redis.call('HDEL', KEYS[4], all[i])
    else
      if of < oldest then oldest = of end
      if string.sub(all[i], 1, 1) == 'm' then day = day + tonumber(all[i + 1])
      else recipients = recipients + tonumber(all[i + 1]) end
    end
  end
end

local held = 0
if at_once > 0 then
  local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
  if #ended > 0 then
    -- Nobody knows when it was over.
    for _, id in ipairs(ended) do redis.call('ZADD', KEYS[3], 'XX', redis.call('ZSCORE', KEYS[2], id), id) end
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[2], now + 10 * lease_ms, '+inf')
  held = redis.call('ZCARD', KEYS[2])
end
local minute = per_minute > 0 and in_minute(KEYS[3]) or 0
local function answer(what, ms)
  local waiting = 0
  if at_once > 0 then
    wake(KEYS[5], KEYS[6], ARGV[11], ARGV[12], math.min(freed, open_to_all(at_once) - held))
    waiting = redis.call('ZCARD', KEYS[5])
  end
  return {what, ms, held, minute, day, waiting, stands, recipients}
end

if (per_day > 0 and day >= open_to_all(per_day)) or (per_day_rcpt > 0 and recipients >= open_to_all(per_day_rcpt)) then
  if at_once > 0 then freed = freed + leave(KEYS[5], KEYS[6], ticket) end
  local is_full = (per_day > 0 and day >= per_day) or (per_day_rcpt > 0 and recipients >= per_day_rcpt)
  if not is_full then return answer('minute', ${UNTOLD_MS}) end
  return answer('day', math.max((oldest + ${BUCKETS}) * ${BUCKET_MS} - now, 1000))
end

local free = 0
if at_once > 0 then
  drop_stale(KEYS[5], KEYS[6])
  free = open_to_all(at_once) - held
  local ahead = redis.call('ZRANK', KEYS[5], ticket) or redis.call('ZCARD', KEYS[5])
  if ahead >= free then
    if ticket ~= '' then
      stand(KEYS[5], KEYS[6], ticket)
      stands = 1
    end
    return answer('busy', 0)
  end
end

local at = now
if per_minute > 0 then
  local place, wait = take_place(KEYS[3], ARGV[1], open_to_all(per_minute), minute, max_wait)
  if not place then
    if at_once > 0 then freed = freed + leave(KEYS[5], KEYS[6], ticket) end
    return answer('minute', wait)
  end
  at = place
end
if at_once > 0 then
  redis.call('ZADD', KEYS[2], at + lease_ms, ARGV[1])
  redis.call('PEXPIRE', KEYS[2], 10 * lease_ms)
  held = held + 1
  leave(KEYS[5], KEYS[6], ticket)
  if ARGV[10] == '1' and redis.call('ZCARD', KEYS[5]) >= free - 1 then
    stand(KEYS[5], KEYS[6], ticket)
    stands = 1
  end
end
if per_day > 0 then
  redis.call('HINCRBY', KEYS[4], 'm' .. bucket, 1)
  redis.call('HINCRBY', KEYS[8], 'm', 1)
  redis.call('PEXPIRE', KEYS[4], ${DAY_KEPT_MS})
  redis.call('PEXPIRE', KEYS[8], ${DAY_KEPT_MS})
end
return answer('granted', at - now)
`);

/**
 * A message goes out long after its place, or after it has waited for it: it counts in this minute, or waits for one with
 * room; whoever waits there asks the same when his time has come. KEYS: relays, pace. ARGV: lease id, a minute, longest
 * wait ms. Answers {1, the wait}, or {0, when to ask again}.
 */
export const START_LATE = redisScript(`${NOW}${FLEET}${PACE}
redis.call('ZREM', KEYS[2], ARGV[1])
in_minute(KEYS[2])
local begun = redis.call('ZCOUNT', KEYS[2], '-inf', now)
local at, wait = take_place(KEYS[2], ARGV[1], open_to_all(tonumber(ARGV[2])), begun, tonumber(ARGV[3]))
return {at and 1 or 0, wait}
`);

/**
 * Gives places back. KEYS: leases, pace, day, queue, seen, told. ARGV: channel, account, ticket that waits no longer or
 * empty, then of each what `is_over` reads. As many of those that wait are woken, the first first.
 */
export const GIVE_BACK = redisScript(`${NOW}${OVER}${QUEUE}
local freed = is_over(4, KEYS[1], KEYS[2], KEYS[3], KEYS[6])
if ARGV[3] ~= '' then freed = freed + leave(KEYS[4], KEYS[5], ARGV[3]) end
wake(KEYS[4], KEYS[5], ARGV[1], ARGV[2], freed)
return freed
`);

/**
 * What is still held. KEYS: leases of an account for each, then the pace of an account for each that is under way. ARGV:
 * lease ms, how many leases, of each its id and `1` where its message is under way, then the ids of those in the pace.
 * What is under way has its lease whether that had ended or not. Answers which leases had ended, from 1.
 */
export const EXTEND = redisScript(`${NOW}
local ended, leases = {}, tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
  if i > leases then redis.call('ZADD', key, 'XX', 'GT', now, ARGV[2 + leases + i])
  else
    local id = ARGV[1 + 2 * i]
    if ARGV[2 + 2 * i] == '1' or redis.call('ZSCORE', key, id) then
      redis.call('ZADD', key, now + ARGV[1], id)
      redis.call('PEXPIRE', key, 10 * ARGV[1])
    else ended[#ended + 1] = i end
  end
end
return ended
`);

/**
 * All that one process did, where Redis may not know it or may have forgotten it: counts what it does not know, however
 * often it is told. KEYS: leases, pace, day, told. ARGV: lease ms, how many words follow, how many leases, their ids, how
 * many sent, id and age in ms of each, messages and recipients of the day's limits since that process began, the fields of
 * its day as age in buckets with its kind (`m3`) and count, the newest first; then of each that is over what `is_over` reads:
 * its recipients are among those of the day, and count once, as they are told first.
 */
export const REGISTER = redisScript(`${NOW}${OVER}
local at, lease_ms, over = 3, tonumber(ARGV[1]), 3 + ARGV[2]
is_over(over, KEYS[1], KEYS[2], KEYS[3], KEYS[4])
for _ = 1, tonumber(ARGV[at]) do
  at = at + 1
  redis.call('ZADD', KEYS[1], now + lease_ms, ARGV[at])
end
at = at + 1
for _ = 1, tonumber(ARGV[at]) do
  redis.call('ZADD', KEYS[2], 'GT', now - ARGV[at + 2], ARGV[at + 1])
  at = at + 2
end
local unknown = {}
for i, kind in ipairs({'m', 'r'}) do
  local total, known = tonumber(ARGV[at + i]), tonumber(redis.call('HGET', KEYS[4], kind) or '0')
  unknown[kind] = math.max(total - known, 0)
  if unknown[kind] > 0 then redis.call('HSET', KEYS[4], kind, total) end
end
at = at + 2
while at + 2 < over do
  local kind, age = string.sub(ARGV[at + 1], 1, 1), tonumber(string.sub(ARGV[at + 1], 2))
  local count = math.min(tonumber(ARGV[at + 2]), unknown[kind])
  if count > 0 then redis.call('HINCRBY', KEYS[3], kind .. (bucket - age), count) end
  unknown[kind] = unknown[kind] - count
  at = at + 2
end
redis.call('PEXPIRE', KEYS[1], 10 * lease_ms)
redis.call('PEXPIRE', KEYS[2], ${PACE_KEPT_MS})
redis.call('PEXPIRE', KEYS[3], ${DAY_KEPT_MS})
redis.call('PEXPIRE', KEYS[4], ${DAY_KEPT_MS})
return 1
`);

/** When the next login may begin. KEYS: login. ARGV: interval ms, longest wait ms. Answers the wait, or -1 where it is too long. */
export const LOGIN = redisScript(`${NOW}
local interval, max_wait = tonumber(ARGV[1]), tonumber(ARGV[2])
local at = tonumber(redis.call('GET', KEYS[1]) or '0')
if at < now or at > now + ${FARTHEST_MS} then at = now end
if at - now > max_wait then return -1 end
redis.call('SET', KEYS[1], at + interval, 'PX', at + interval - now + 1000)
return at - now
`);

/**
 * A sign of life. KEYS: relays, rows, epoch, mark. ARGV: relay id, its row (JSON), number of the sign of life that
 * was answered last (0: none), `1` where it has told all that it did. Until then its share is kept free. Answers {epoch, whether Redis has forgotten that one, relays, rank by id, rows …}.
 */
export const BEAT = redisScript(`${NOW}
redis.call('SET', KEYS[3], now, 'NX')
local answered = tonumber(ARGV[3])
local forgot = answered > tonumber(redis.call('GET', KEYS[4]) or '0') and 1 or 0
redis.call('SET', KEYS[4], answered + 1, 'PX', ${MARK_KEPT_MS})
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ${GONE_AFTER_MS})
for _, id in ipairs(gone) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
redis.call('ZADD', KEYS[1], 'GT', ARGV[4] == '1' and now or now - ${MISSING_AFTER_MS}, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ${MARK_KEPT_MS}) end
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(ids)
local rank = 0
for i, id in ipairs(ids) do if id == ARGV[1] then rank = i - 1 end end
local answer = {redis.call('GET', KEYS[3]), forgot, #ids, rank}
for _, id in ipairs(ids) do
  answer[#answer + 1] = id
  answer[#answer + 1] = now - redis.call('ZSCORE', KEYS[1], id)
  answer[#answer + 1] = redis.call('HGET', KEYS[2], id) or '{}'
end
return answer
`);

/** A relay that leaves in order keeps no share. KEYS: relays, rows. ARGV: relay id. */
export const LEAVE = redisScript(`
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
`);
