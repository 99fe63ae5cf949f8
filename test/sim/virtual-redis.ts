/**
 * A Redis server that all relays share, and the client that reaches it, in place of the redis package's. Can
 * be gone, silent, slow, and lose what it holds. Owns the connections and who listens to which channel.
 */

import { EventEmitter } from 'node:events';
import { createRequire } from 'node:module';
import { type Answer, createRedisData, type RedisData } from './redis-data.ts';
import { inhabited } from './virtual-time.ts';
import { type Actor, EPOCH, type World } from './world.ts';

export interface RedisServer {
  readonly data: RedisData;
  /** `gone`: connections end, nobody can connect. `silent`: commands are carried out or not, no answer comes. */
  state: 'up' | 'gone' | 'silent';
  setState(state: RedisServer['state'], isLosing?: boolean): void;
  /** Its connections end; it takes others at once. */
  cut(): void;
}

interface Server extends RedisServer {
  readonly actor: Actor;
  readonly clients: Set<Client>;
  delay(): number;
}

let server: Server | undefined;

export function useRedis(world: World): RedisServer {
  const actor = world.spawn('redis');
  const dice = world.random.branch('redis');
  const clients = new Set<Client>();
  const made: Server = {
    actor,
    clients,
    state: 'up',
    delay: () => (dice.chance(0.05) ? dice.between(1, 50) : dice.between(0, 2)),
    data: createRedisData(
      () => EPOCH + world.now,
      (channel, text) => {
        for (const client of clients) client.hear(channel, text);
      },
    ),
    setState(state, isLosing = false) {
      made.state = state;
      world.note(`Redis is ${state}${isLosing ? ' and has lost everything' : ''}`, actor);
      if (isLosing) made.data.lose();
      if (state === 'gone') made.cut();
    },
    cut() {
      for (const client of clients) client.lose();
    },
  };
  server = made;
  return made;
}

type Given = { readonly keys?: readonly string[]; readonly arguments?: readonly string[] };
interface SetOptions {
  readonly condition?: 'NX' | 'XX';
  readonly expiration?: { readonly type: string; readonly value: number };
}

class Client extends EventEmitter {
  isReady = false;
  isOpen = false;
  readonly #server: Server;
  readonly #actor: Actor;
  readonly #channels = new Map<string, (text: string) => void>();
  #retries = 0;

  constructor(of: Server) {
    super();
    this.#server = of;
    this.#actor = inhabited().current;
  }

  connect(): Promise<this> {
    this.isOpen = true;
    return new Promise((resolve) => {
      const attempt = (): void => {
        if (!this.isOpen) return;
        if (this.#server.state === 'up') {
          this.#server.clients.add(this);
          this.isReady = true;
          this.#retries = 0;
          this.emit('connect');
          this.emit('ready');
          resolve(this);
          return;
        }
        this.emit('error', Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }));
        inhabited().after(
          this.#actor,
          Math.min(50 * 2 ** Math.min(this.#retries++, 6), 2000),
          attempt,
          'net',
        );
      };
      inhabited().after(this.#actor, this.#server.delay(), attempt, 'net');
    });
  }

  /** The connection ends from outside. */
  lose(): void {
    if (!this.isReady) return;
    inhabited().after(
      this.#actor,
      this.#server.delay(),
      () => {
        if (!this.isReady) return;
        this.isReady = false;
        this.#server.clients.delete(this);
        this.emit('error', Object.assign(new Error('Socket closed unexpectedly'), { code: 'ECONNRESET' }));
        for (const fail of this.#underWay.splice(0)) fail(new Error('Socket closed unexpectedly'));
        if (this.isOpen) void this.connect();
      },
      'net',
    );
  }

  readonly #underWay: ((error: Error) => void)[] = [];

  #ask<T>(task: (data: RedisData) => T): Promise<T> {
    const world = inhabited();
    return new Promise((resolve, reject) => {
      if (!this.isReady) {
        reject(new Error('The client is closed'));
        return;
      }
      this.#underWay.push(reject);
      const answered = (act: () => void): void =>
        void world.after(
          this.#actor,
          this.#server.delay(),
          () => {
            const at = this.#underWay.indexOf(reject);
            if (at >= 0) this.#underWay.splice(at, 1);
            act();
          },
          'net',
        );
      world.after(this.#server.actor, this.#server.delay(), () => {
        if (this.#server.state === 'gone') return;
        // A silent server may have heard the command; its answer is what is missing.
        const isSilent = this.#server.state === 'silent';
        if (isSilent && world.random.chance(0.5)) return;
        try {
          const answer = task(this.#server.data);
          if (!isSilent) answered(() => resolve(answer));
        } catch (error) {
          if (!isSilent) answered(() => reject(error));
        }
      });
    });
  }

  hear(channel: string, text: string): void {
    const listener = this.#channels.get(channel);
    if (listener === undefined || this.#server.state !== 'up') return;
    inhabited().after(this.#actor, this.#server.delay(), () => listener(text), 'net');
  }

  destroy(): void {
    this.isOpen = false;
    this.isReady = false;
    this.#server.clients.delete(this);
  }
  async close(): Promise<void> {
    this.destroy();
  }
  async subscribe(channel: string, listener: (text: string) => void): Promise<void> {
    await this.#ask(() => undefined);
    this.#channels.set(channel, listener);
  }
  publish(channel: string, text: string): Promise<Answer> {
    return this.#ask((data) => data.command('PUBLISH', channel, text));
  }
  set(key: string, value: string, options?: SetOptions): Promise<Answer> {
    return this.#ask((data) => data.command('SET', key, value, ...setOptions(options)));
  }
  get(key: string): Promise<Answer> {
    return this.#ask((data) => data.command('GET', key));
  }
  hGet(key: string, field: string): Promise<Answer> {
    return this.#ask((data) => data.command('HGET', key, field));
  }
  hmGet(key: string, fields: readonly string[]): Promise<Answer> {
    return this.#ask((data) => data.command('HMGET', key, ...fields));
  }
  hLen(key: string): Promise<Answer> {
    return this.#ask((data) => data.command('HLEN', key));
  }
  hDel(key: string, fields: string | readonly string[]): Promise<Answer> {
    return this.#ask((data) => data.command('HDEL', key, ...[fields].flat()));
  }
  exists(keys: string | readonly string[]): Promise<Answer> {
    return this.#ask((data) => data.command('EXISTS', ...[keys].flat()));
  }
  mGet(keys: readonly string[]): Promise<Answer> {
    return this.#ask((data) => data.command('MGET', ...keys));
  }
  del(keys: string | readonly string[]): Promise<Answer> {
    return this.#ask((data) => data.command('DEL', ...[keys].flat()));
  }
  pTTL(key: string): Promise<Answer> {
    return this.#ask((data) => data.command('PTTL', key));
  }
  async hGetAll(key: string): Promise<Record<string, string>> {
    const flat = (await this.#ask((data) => data.command('HGETALL', key))) as string[];
    return Object.fromEntries(flat.flatMap((f, i) => (i % 2 === 0 ? [[f, flat[i + 1] ?? '']] : [])));
  }
  eval(text: string, given: Given): Promise<Answer> {
    return this.#ask((data) => data.run(text, given.keys ?? [], given.arguments ?? []));
  }
  evalSha(digest: string, given: Given): Promise<Answer> {
    return this.#ask((data) => data.runDigest(digest, given.keys ?? [], given.arguments ?? []));
  }
  multi(): object {
    const commands: string[][] = [];
    const chain = {
      set: (key: string, value: string, options?: SetOptions) => {
        commands.push(['SET', key, value, ...setOptions(options)]);
        return chain;
      },
      del: (keys: string | readonly string[]) => {
        commands.push(['DEL', ...[keys].flat()]);
        return chain;
      },
      exec: () => this.#ask((data) => commands.map((command) => data.command(...command))),
    };
    return chain;
  }
}

function setOptions(options: SetOptions = {}): string[] {
  const { condition, expiration } = options;
  return [
    ...(condition === undefined ? [] : [condition]),
    ...(expiration === undefined ? [] : [expiration.type, String(expiration.value)]),
  ];
}

/** Before the product is imported. */
export function installVirtualRedis(): void {
  const redis = createRequire(import.meta.url)('redis') as Record<string, unknown>;
  const createClient = (): object => {
    if (server === undefined) throw new Error('no Redis');
    const client = new Client(server);
    const bound = new Map<string | symbol, unknown>();
    return new Proxy(client, {
      get(_target, name) {
        const value: unknown = Reflect.get(client, name, client);
        // The product would take it for a Redis that fails.
        if (value === undefined && typeof name === 'string' && name !== 'then') {
          console.error(`the simulated Redis client has no ${name}`);
          process.exit(2);
        }
        if (typeof value !== 'function') return value;
        if (!bound.has(name)) bound.set(name, value.bind(client));
        return bound.get(name);
      },
    });
  };
  Object.defineProperty(redis, 'createClient', { value: createClient, enumerable: true });
}
