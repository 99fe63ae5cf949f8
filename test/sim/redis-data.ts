/**
 * What a Redis holds and what its commands do to it: strings, hashes, sorted sets, expiry, scripts. As much
 * as the relay uses; an unknown command is an error. Scripts run as they are, in a Lua machine. Time is an
 * argument of the clock given.
 */
import { createHash } from 'node:crypto';
import fengari from 'fengari';

type Value = string | Map<string, string> | ScoreMap;
class ScoreMap extends Map<string, number> {}

/** As commands answer: `null` is nil. */
export type Answer = string | number | null | readonly Answer[];

export interface RedisData {
  /** Upper-case name first. Throws as Redis answers errors. */
  command(...args: readonly string[]): Answer;
  run(script: string, keys: readonly string[], args: readonly string[]): Answer;
  runDigest(digest: string, keys: readonly string[], args: readonly string[]): Answer;
  /** Everything is gone, scripts too, as after a restart without persistence. */
  lose(): void;
}

const { lua, lauxlib, lualib, to_luastring, to_jsstring } = fengari;

export function createRedisData(
  now: () => number,
  publish: (channel: string, text: string) => void,
): RedisData {
  const values = new Map<string, Value>();
  const ends = new Map<string, number>();
  const scripts = new Map<string, string>();

  function get(key: string): Value | undefined {
    const end = ends.get(key);
    if (end !== undefined && end <= now()) {
      values.delete(key);
      ends.delete(key);
    }
    return values.get(key);
  }

  function hash(key: string): Map<string, string> {
    const value = get(key);
    if (value === undefined) {
      const made = new Map<string, string>();
      values.set(key, made);
      return made;
    }
    if (!(value instanceof Map) || value instanceof ScoreMap) throw new Error('WRONGTYPE');
    return value;
  }

  function scores(key: string): ScoreMap {
    const value = get(key);
    if (value === undefined) {
      const made = new ScoreMap();
      values.set(key, made);
      return made;
    }
    if (!(value instanceof ScoreMap)) throw new Error('WRONGTYPE');
    return value;
  }

  const text = (key: string): string | undefined => {
    const value = get(key);
    if (value !== undefined && typeof value !== 'string') throw new Error('WRONGTYPE');
    return value;
  };

  const sorted = (key: string): [string, number][] =>
    [...scores(key)].sort((a, b) => a[1] - b[1] || (a[0] < b[0] ? -1 : 1));

  const bound = (given: string): { readonly at: number; readonly isOpen: boolean } => {
    const isOpen = given.startsWith('(');
    const plain = isOpen ? given.slice(1) : given;
    if (plain === '-inf') return { at: Number.NEGATIVE_INFINITY, isOpen };
    if (plain === '+inf') return { at: Number.POSITIVE_INFINITY, isOpen };
    return { at: Number(plain), isOpen };
  };

  function between(key: string, least: string, most: string): [string, number][] {
    const low = bound(least);
    const high = bound(most);
    return sorted(key).filter(
      ([, score]) =>
        (low.isOpen ? score > low.at : score >= low.at) && (high.isOpen ? score < high.at : score <= high.at),
    );
  }

  function drop(key: string): number {
    const was = get(key) !== undefined ? 1 : 0;
    values.delete(key);
    ends.delete(key);
    return was;
  }

  function set(key: string, value: string, rest: readonly string[]): Answer {
    const options = rest.map((r) => r.toUpperCase());
    if (options.includes('NX') && get(key) !== undefined) return null;
    if (options.includes('XX') && get(key) === undefined) return null;
    values.set(key, value);
    if (!options.includes('KEEPTTL')) ends.delete(key);
    const px = options.indexOf('PX');
    const ex = options.indexOf('EX');
    if (px >= 0) ends.set(key, now() + Number(rest[px + 1]));
    if (ex >= 0) ends.set(key, now() + Number(rest[ex + 1]) * 1000);
    return 'OK';
  }

  function zadd(key: string, rest: readonly string[]): number {
    const members = scores(key);
    let at = 0;
    const flags = new Set<string>();
    for (; /^(NX|XX|CH|GT|LT)$/i.test(rest[at] ?? ''); at++) flags.add((rest[at] ?? '').toUpperCase());
    let count = 0;
    for (; at < rest.length; at += 2) {
      const member = rest[at + 1] ?? '';
      const score = Number(rest[at]);
      const before = members.get(member);
      if ((flags.has('NX') && before !== undefined) || (flags.has('XX') && before === undefined)) continue;
      if (flags.has('GT') && before !== undefined && score <= before) continue;
      members.set(member, score);
      if (before === undefined || (flags.has('CH') && before !== score)) count += 1;
    }
    return count;
  }

  function command(...[name = '', key = '', ...rest]: readonly string[]): Answer {
    switch (name.toUpperCase()) {
      case 'PING':
        return 'PONG';
      case 'TIME': {
        const ms = Math.floor(now());
        return [String(Math.floor(ms / 1000)), String((ms % 1000) * 1000)];
      }
      case 'GET':
        return text(key) ?? null;
      case 'MGET':
        return [key, ...rest].map((k) => text(k) ?? null);
      case 'SET':
        return set(key, rest[0] ?? '', rest.slice(1));
      case 'DEL':
        return [key, ...rest].reduce((n, k) => n + drop(k), 0);
      case 'EXISTS':
        return [key, ...rest].filter((k) => get(k) !== undefined).length;
      case 'INCR':
      case 'INCRBY': {
        const next = Number(text(key) ?? 0) + Number(rest[0] ?? 1);
        values.set(key, String(next));
        return next;
      }
      case 'PEXPIRE':
      case 'EXPIRE':
        if (get(key) === undefined) return 0;
        ends.set(key, now() + Number(rest[0]) * (name.toUpperCase() === 'EXPIRE' ? 1000 : 1));
        return 1;
      case 'PTTL':
      case 'TTL': {
        if (get(key) === undefined) return -2;
        const end = ends.get(key);
        const left = end === undefined ? -1 : end - now();
        return name.toUpperCase() === 'TTL' && left > 0 ? Math.ceil(left / 1000) : left;
      }
      case 'HGET':
        return get(key) === undefined ? null : (hash(key).get(rest[0] ?? '') ?? null);
      case 'HMGET':
        return rest.map((field) => (get(key) === undefined ? null : (hash(key).get(field) ?? null)));
      case 'HGETALL':
        return get(key) === undefined ? [] : [...hash(key)].flat();
      case 'HLEN':
        return get(key) === undefined ? 0 : hash(key).size;
      case 'HSET': {
        const fields = hash(key);
        const before = fields.size;
        for (let i = 0; i < rest.length; i += 2) fields.set(rest[i] ?? '', rest[i + 1] ?? '');
        return fields.size - before;
      }
      case 'HDEL': {
        if (get(key) === undefined) return 0;
        const gone = rest.filter((field) => hash(key).delete(field)).length;
        if (hash(key).size === 0) drop(key);
        return gone;
      }
      case 'HINCRBY': {
        const [field = '', by = '1'] = rest;
        const next = Number(hash(key).get(field) ?? 0) + Number(by);
        hash(key).set(field, String(next));
        return next;
      }
      case 'ZADD':
        return zadd(key, rest);
      case 'ZREM':
        return rest.filter((member) => scores(key).delete(member)).length;
      case 'ZCARD':
        return get(key) === undefined ? 0 : scores(key).size;
      case 'ZSCORE': {
        const score = get(key) === undefined ? undefined : scores(key).get(rest[0] ?? '');
        return score === undefined ? null : String(score);
      }
      case 'ZRANK': {
        const at = get(key) === undefined ? -1 : sorted(key).findIndex(([m]) => m === rest[0]);
        return at < 0 ? null : at;
      }
      case 'ZCOUNT':
        return get(key) === undefined ? 0 : between(key, rest[0] ?? '', rest[1] ?? '').length;
      case 'ZRANGE': {
        const all = get(key) === undefined ? [] : sorted(key);
        const place = (n: number): number => (n < 0 ? all.length + n : n);
        const chosen = all.slice(Math.max(0, place(Number(rest[0]))), place(Number(rest[1])) + 1);
        return chosen.flatMap(([m, score]) => (rest[2] === 'WITHSCORES' ? [m, String(score)] : [m]));
      }
      case 'ZRANGEBYSCORE':
        return get(key) === undefined ? [] : between(key, rest[0] ?? '', rest[1] ?? '').map(([m]) => m);
      case 'ZREMRANGEBYSCORE': {
        if (get(key) === undefined) return 0;
        const gone = between(key, rest[0] ?? '', rest[1] ?? '');
        for (const [member] of gone) scores(key).delete(member);
        return gone.length;
      }
      case 'PUBLISH':
        publish(key, rest[0] ?? '');
        return 1;
      default:
        throw new Error(`ERR unknown command '${name}'`);
    }
  }

  function run(script: string, keys: readonly string[], args: readonly string[]): Answer {
    scripts.set(createHash('sha1').update(script).digest('hex'), script);
    return evaluate(script, keys, args, command);
  }

  return {
    command,
    run,
    runDigest(digest, keys, args) {
      const script = scripts.get(digest);
      if (script === undefined) throw new Error('NOSCRIPT No matching script');
      return run(script, keys, args);
    },
    lose() {
      values.clear();
      ends.clear();
      scripts.clear();
    },
  };
}

type State = ReturnType<typeof lauxlib.luaL_newstate>;

let machine: State | undefined;
/** Whom `redis.call` of the script that runs now reaches. */
let called: RedisData['command'] | undefined;
/** Scripts by the name of their function. */
const compiled = new Map<string, ReturnType<typeof to_luastring>>();

/** One Lua machine for all: making one takes longer than any script. */
function openMachine(): State {
  const L = lauxlib.luaL_newstate();
  lualib.luaL_openlibs(L);
  lua.lua_createtable(L, 0, 1);
  lua.lua_pushcfunction(L, (inner) => {
    const given: string[] = [];
    for (let i = 1; i <= lua.lua_gettop(inner); i++) given.push(asText(inner, i));
    pushAnswer(inner, called?.(...given) ?? null);
    return 1;
  });
  lua.lua_setfield(L, -2, to_luastring('call'));
  lua.lua_setglobal(L, to_luastring('redis'));
  return L;
}

function evaluate(
  script: string,
  keys: readonly string[],
  args: readonly string[],
  command: RedisData['command'],
): Answer {
  machine ??= openMachine();
  const L = machine;
  let name = compiled.get(script);
  if (name === undefined) {
    name = to_luastring(`script${compiled.size}`);
    // Lua 5.1 has it among the globals.
    if (lauxlib.luaL_loadstring(L, to_luastring(`local unpack = table.unpack\n${script}`)) !== lua.LUA_OK)
      throw new Error(`ERR ${asText(L, -1)}`);
    lua.lua_setglobal(L, name);
    compiled.set(script, name);
  }
  for (const [global, list] of [
    ['KEYS', keys],
    ['ARGV', args],
  ] as const) {
    pushAnswer(L, list);
    lua.lua_setglobal(L, to_luastring(global));
  }
  called = command;
  lua.lua_getglobal(L, name);
  const isDone = lua.lua_pcall(L, 0, 1, 0) === lua.LUA_OK;
  const answer = isDone ? asAnswer(L, -1) : asText(L, -1);
  lua.lua_settop(L, 0);
  if (!isDone) throw new Error(`ERR ${String(answer)}`);
  return answer;
}

/** A number as Redis writes it: whole ones without a point. */
function asText(L: State, at: number): string {
  if (lua.lua_type(L, at) === lua.LUA_TNUMBER) return String(lua.lua_tonumber(L, at));
  const text = lua.lua_tostring(L, at);
  if (text === null) throw new Error('ERR Lua redis() command arguments must be strings or integers');
  return to_jsstring(text);
}

function pushAnswer(L: State, answer: Answer): void {
  if (answer === null) lua.lua_pushboolean(L, false);
  else if (typeof answer === 'number') lua.lua_pushnumber(L, answer);
  else if (typeof answer === 'string') lua.lua_pushstring(L, to_luastring(answer));
  else {
    lua.lua_createtable(L, answer.length, 0);
    for (const [i, item] of answer.entries()) {
      pushAnswer(L, item);
      lua.lua_rawseti(L, -2, i + 1);
    }
  }
}

function asAnswer(L: State, at: number): Answer {
  switch (lua.lua_type(L, at)) {
    case lua.LUA_TNUMBER:
      return Math.trunc(lua.lua_tonumber(L, at));
    case lua.LUA_TSTRING:
      return asText(L, at);
    case lua.LUA_TBOOLEAN:
      return lua.lua_toboolean(L, at) ? 1 : null;
    case lua.LUA_TTABLE: {
      const items: Answer[] = [];
      const table = lua.lua_absindex(L, at);
      for (let i = 1; ; i++) {
        lua.lua_rawgeti(L, table, i);
        if (lua.lua_type(L, -1) === lua.LUA_TNIL) {
          lua.lua_pop(L, 1);
          return items;
        }
        items.push(asAnswer(L, -1));
        lua.lua_pop(L, 1);
      }
    }
    default:
      return null;
  }
}
