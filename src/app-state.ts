/**
 * What outlives a message: limits, pauses, who is drained. In: settings, the upstream room. Out: the limiter
 * and login pacer of the relay, and whom to tell. With a shared Redis they are those of all relays, else this
 * one's, kept in the state directory.
 */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { orAfter, systemClock } from './clock.ts';
import type { Settings } from './config.ts';
import { createFleet, type Fleet } from './fleet/fleet.ts';
import { createNews, type News } from './fleet/news.ts';
import { createKeptState, type KeptPart, type KeptState } from './kept-state.ts';
import type { Log } from './log.ts';
import { createRedisConnection, type RedisConnection } from './redis.ts';
import { createLimiter, type Limiter } from './relay/limits.ts';
import type { KeptPause } from './upstream/account-health.ts';
import { parseKeptPause } from './upstream/kept-pause.ts';
import type { LoginPacer } from './upstream/login-pacer.ts';
import type { Pauses } from './upstream/pauses.ts';

/** A Redis that is silent is waited for no longer, ms. */
const TOLD_WAIT_MS = 2_000;

export interface AppStateDeps {
  readonly settings: Settings;
  readonly log: Log;
  readonly version: string;
  readonly pauses: () => Pauses;
  /** Messages since the start. */
  readonly totals: () => { readonly relayed: number; readonly deferred: number; readonly rejected: number };
  /** Another relay's operator did it: here, without telling anybody. */
  readonly setDrained: (accountId: string, isDrained: boolean) => void;
  readonly drained: () => Iterable<string>;
  /** Another relay invited somebody to an account, or (undefined) that is over. Throws where it is no invitation. */
  readonly inviteHeard: (accountId: string, invite: unknown) => void;
  readonly refreshedElsewhere: (accountId: string) => void;
  /** Another relay found a token endpoint failing; undefined: it answers again. */
  readonly endpointHeard: (tokenUrl: string, leftMs: number | undefined) => void;
  /** What all relays share has been lost: this one's part of it is written again. */
  readonly storeForgot: () => void;
  /** What is seen of the account is another thing now. */
  readonly changed: (accountId: string) => void;
  /** What else outlives a restart, where there is a state directory. */
  readonly further: Readonly<Record<string, KeptPart>>;
}

export interface AppState {
  readonly redis: RedisConnection | undefined;
  readonly limiter: Limiter;
  /** Undefined: each account's logins within this process. */
  readonly logins: LoginPacer | undefined;
  /** Undefined: this relay is alone. */
  readonly fleet: Fleet | undefined;
  /** Changes of this relay that others hear of. */
  readonly news: News | undefined;
  /** Once the accounts are known and the token store, which opens Redis, is open. */
  start(): Promise<void>;
  /** What an operator did is kept, whatever happens to the process, once it resolves. Never rejects; takes 4 s at most. */
  save(): Promise<void>;
  close(): Promise<void>;
}

export function createAppState(deps: AppStateDeps): AppState {
  const { settings, log } = deps;
  const url = settings.store;
  if (url !== undefined && /^rediss?:/.test(url.reveal()))
    return createShared(deps, createRedisConnection(url, { log }));
  const limiter = createLimiter();
  const kept = keep(deps, 'state.json', {
    limits: limiter,
    pauses: {
      snapshot: () => deps.pauses().kept(),
      restore: (kept) => deps.pauses().restore(readPauses(kept)),
    },
    drained: {
      snapshot: () => [...deps.drained()],
      restore: (ids) => {
        for (const id of readNames(ids)) deps.setDrained(id, true);
      },
    },
    ...deps.further,
  });
  return {
    redis: undefined,
    limiter,
    logins: undefined,
    fleet: undefined,
    news: undefined,
    start: async () => kept?.restore(),
    save: async () => kept?.save(),
    close: async () => kept?.close(),
  };
}

function keep(
  { settings, log }: AppStateDeps,
  file: string,
  parts: Readonly<Record<string, KeptPart>>,
): KeptState | undefined {
  const { stateDir } = settings;
  return stateDir === undefined ? undefined : createKeptState(join(stateDir, file), parts, { log });
}

function createShared(deps: AppStateDeps, redis: RedisConnection): AppState {
  const { settings, log } = deps;
  const startedAt = Date.now();
  const delays = monitorEventLoopDelay();
  const fleet = createFleet(
    {
      redis,
      log,
      row: () => ({
        version: deps.version,
        host: hostname(),
        pid: process.pid,
        startedAt,
        ...deps.totals(),
        lagMs: Math.round(delays.percentile(99) / 1e6),
      }),
    },
    { withoutRedis: settings.withoutRedis, expected: settings.expectedRelays },
  );
  const news = createNews<KeptPause>({
    ...deps,
    states: fleet.states,
    pausesOf: (id) => deps.pauses().of(id),
    takePause(id, value) {
      deps.pauses().restore({ [id]: [parseKeptPause(value)] });
      deps.changed(id);
    },
    endPause(id, scope, way) {
      if (scope === 'logins' || scope === 'sending')
        deps.pauses().end(id, way === 'graph' ? { scope, way } : { scope });
      deps.changed(id);
    },
    graphRestHeard(id, ms) {
      deps.pauses().graphRests(id, ms);
      deps.changed(id);
    },
  });
  fleet.onForgotten(deps.storeForgot);
  // Believed while Redis is away at the start; then it is asked what still stands.
  const kept = keep(deps, 'fleet.json', fleet.kept);
  return {
    redis,
    limiter: fleet.limits,
    logins: fleet.limits,
    fleet,
    news,
    async start() {
      delays.enable();
      await kept?.restore();
      await fleet.start();
    },
    async save() {
      await orAfter(systemClock, fleet.states.told(), TOLD_WAIT_MS);
      await kept?.save();
    },
    async close() {
      delays.disable();
      await kept?.close();
      await fleet.close();
    },
  };
}

/** Accounts. Undefined in a file of a version that did not keep them. Throws. */
function readNames(kept: unknown): readonly string[] {
  if (kept === undefined) return [];
  if (!Array.isArray(kept) || !kept.every((id) => typeof id === 'string')) throw new Error('no accounts');
  return kept;
}

/** Pauses of an earlier run. What waits for a person is tried again at once: a restart is often part of the cure. Throws. */
function readPauses(kept: unknown): Record<string, KeptPause[]> {
  if (typeof kept !== 'object' || kept === null) throw new Error('no pauses');
  const now = Date.now();
  return Object.fromEntries(
    Object.entries(kept).map(([id, list]) => {
      if (!Array.isArray(list)) throw new Error('no pauses');
      return [
        id,
        list
          .map(parseKeptPause)
          .map((kept) => (kept.pause.status === 'throttled' ? kept : { ...kept, until: now })),
      ];
    }),
  );
}
