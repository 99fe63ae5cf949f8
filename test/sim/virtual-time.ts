/**
 * Puts the world's time and dice in place of Node's, for libraries that take no clock: timers, immediates,
 * dates, `performance.now`, `Math.random`, `AbortSignal.timeout`. Installed once per process, before
 * anything of the product is imported; which world they belong to is set for each run. A timer belongs
 * to the actor whose event made it.
 */
import { createHash } from 'node:crypto';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { type Actor, EPOCH, type Scheduled, type World } from './world.ts';

const require = createRequire(import.meta.url);
const RealDate = Date;

let world: World | undefined;

/** The world all timers belong to from now on. */
export function enterWorld(entered: World): void {
  world = entered;
}

export function inhabited(): World {
  if (world === undefined) throw new Error('no world: a timer before the first run');
  return world;
}

/** The wall clock of whoever runs now. */
const wallClock = (): number =>
  world === undefined ? RealDate.now() : Math.floor(EPOCH + world.now + world.current.skewMs);

/** As much of Node's `Timeout` and `Immediate` as libraries use. */
class Timer {
  readonly #actor: Actor;
  readonly #repeats: boolean;
  readonly #task: () => void;
  readonly #ms: number;
  #kind: string;
  #scheduled: Scheduled;
  constructor(task: () => void, ms: number, repeats: boolean, kind: string) {
    this.#actor = inhabited().current;
    this.#task = task;
    this.#repeats = repeats;
    // As Node does: below 1, above 2^31 - 1 and nonsense are 1 ms.
    this.#ms = kind.startsWith('immediate') ? 0 : ms >= 1 && ms <= 2_147_483_647 ? ms : 1;
    this.#kind = kind;
    this.#scheduled = this.#schedule();
  }
  #schedule(): Scheduled {
    return inhabited().after(
      this.#actor,
      this.#ms,
      () => {
        if (this.#repeats) this.#scheduled = this.#schedule();
        this.#task();
      },
      this.#kind,
    );
  }
  close(): this {
    this.#scheduled.cancel();
    return this;
  }
  refresh(): this {
    if (this.#scheduled.isPending) {
      this.#scheduled.cancel();
      this.#scheduled = this.#schedule();
    }
    return this;
  }
  ref(): this {
    return this;
  }
  /** Keeps no process alive: not left behind when one ends. */
  unref(): this {
    this.#kind = 'unref';
    this.#scheduled.kind = 'unref';
    return this;
  }
  hasRef(): boolean {
    return true;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

type Callback = (...args: unknown[]) => void;

/** Where a timer comes from, for the list of those left behind: costs a stack trace each. */
let namesOrigins = false;
export function nameOrigins(on: boolean): void {
  namesOrigins = on;
}

function origin(kind: string): string {
  if (!namesOrigins) return kind;
  const line = new Error().stack?.split('\n').find((l, i) => i > 3 && !l.includes('virtual-time'));
  return `${kind} ${line?.trim().replace(/^at /, '') ?? ''}`;
}

const setTimer =
  (repeats: boolean, kind: string) =>
  (task: Callback, ms = 1, ...args: unknown[]): Timer =>
    new Timer(args.length === 0 ? task : () => task(...args), Number(ms), repeats, origin(kind));

const clearTimer = (timer: unknown): void => {
  if (timer instanceof Timer) timer.close();
};

interface WaitOptions {
  readonly signal?: AbortSignal;
}

const wait =
  (kind: string) =>
  (ms: number, value?: unknown, options: WaitOptions = {}): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const { signal } = options;
      const abort = (): void => {
        timer.close();
        reject(
          Object.assign(new Error('The operation was aborted'), { name: 'AbortError', code: 'ABORT_ERR' }),
        );
      };
      const timer = new Timer(
        () => {
          signal?.removeEventListener('abort', abort);
          resolve(value);
        },
        ms,
        false,
        origin(kind),
      );
      if (signal?.aborted) abort();
      else signal?.addEventListener('abort', abort, { once: true });
    });

class VirtualDate extends RealDate {
  constructor(...args: [] | [number | string | Date]) {
    if (args.length === 0) super(wallClock());
    else super(...(args as [number]));
  }
  static override now(): number {
    return wallClock();
  }
}

const SCRYPT_MS = 60;

/** Ids from the world's dice: their order decides things. */
function installVirtualChance(): void {
  const crypto = require('node:crypto') as Record<string, (...given: never[]) => unknown>;
  const { randomBytes: realBytes } = crypto;
  const randomBytes = (octets: number, ...rest: unknown[]): unknown => {
    if (world === undefined || rest.length > 0) return realBytes?.(...([octets, ...rest] as never[]));
    const dice = world.random;
    return Buffer.from(Array.from({ length: octets }, () => Math.floor(dice() * 256)));
  };
  const randomUUID = (): string => {
    const hex = (randomBytes(16) as Buffer).toString('hex');
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
  };
  /** Another one-way function that costs nothing; off the event loop for a moment, as the real one. */
  const scrypt = (
    password: string,
    salt: Buffer,
    octets: number,
    _cost: object,
    done: (error: null, key: Buffer) => void,
  ): void => {
    const key = createHash('shake256', { outputLength: octets }).update(salt).update(password).digest();
    inhabited().after(inhabited().current, SCRYPT_MS, () => done(null, key), 'scrypt');
  };
  Object.assign(crypto, { randomBytes, randomUUID, scrypt });
}

export function installVirtualTime(): void {
  const timers = {
    setTimeout: setTimer(false, 'timeout'),
    setInterval: setTimer(true, 'interval'),
    setImmediate: (task: Callback, ...args: unknown[]) =>
      new Timer(args.length === 0 ? task : () => task(...args), 0, false, origin('immediate')),
    clearTimeout: clearTimer,
    clearInterval: clearTimer,
    clearImmediate: clearTimer,
  };
  Object.assign(globalThis, timers, { Date: VirtualDate });
  Object.assign(require('node:timers'), timers);
  Object.assign(require('node:timers/promises'), {
    setTimeout: wait('delay'),
    setImmediate: (value?: unknown, options?: WaitOptions) => wait('immediate')(0, value, options),
  });
  Object.defineProperty(performance, 'now', { value: () => inhabited().now, configurable: true });
  const { random } = Math;
  Math.random = () => (world === undefined ? random() : world.random());
  Object.assign(require('node:perf_hooks'), {
    monitorEventLoopDelay: () => ({
      enable: () => true,
      disable: () => true,
      reset: () => undefined,
      percentile: () => 0,
    }),
  });
  installVirtualChance();
  AbortSignal.timeout = (ms: number) => {
    const controller = new AbortController();
    const timer = new Timer(
      () => controller.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError')),
      ms,
      false,
      origin('abort timeout'),
    );
    void timer;
    return controller.signal;
  };
  syncBuiltinESMExports();
}
