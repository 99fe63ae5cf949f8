/**
 * A host with a relay on it: the product's own composition, from listener to upstream and tokens, under
 * virtual time. Can be started, reloaded, stopped, and killed with everything it had in memory. Owns the
 * accounts file, the state directory and the log of all its lives.
 */
import type { Admin } from '../../src/admin/admin.ts';
import type { AdminBackend } from '../../src/admin/backend.ts';
import { type App, createApp } from '../../src/app.ts';
import { loadSettings, type Settings } from '../../src/config.ts';
import { eventLoop } from '../../src/event-loop.ts';
import type { LogSink } from '../../src/log/sink.ts';
import { createLog, type ProcessLog } from '../../src/log.ts';
import type { TransactionRecord } from '../../src/relay/record.ts';
import { GrantsUnsavedError } from '../../src/tokens/grants-unsaved.ts';
import { createTokenStore } from '../../src/tokens/open-store.ts';
import type { ProcessMark } from '../../src/tokens/process-mark.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createTwofoldStore } from '../../src/tokens/store-twofold.ts';
import type { Network } from './network.ts';
import type { Files } from './virtual-files.ts';
import type { Actor, World } from './world.ts';

export interface LogLine {
  readonly at: number;
  readonly text: string;
  readonly event: string;
}

export interface RelayHost {
  readonly name: string;
  /** The process now; undefined: none. */
  readonly actor: Actor | undefined;
  readonly log: readonly LogLine[];
  readonly records: readonly TransactionRecord[];
  readonly backend: AdminBackend | undefined;
  /** Processes that were killed. */
  readonly killed: readonly Actor[];
  start(): void;
  readonly isStopping: boolean;
  /** Writes the accounts file anew and reloads. */
  reload(accounts: string): void;
  /** `done` when the process has ended. */
  stop(deadlineMs: number, done: (left: Leftovers) => void): void;
  kill(how: 'kill' | 'power'): void;
  /** As set by NTP; stays over restarts. */
  stepClock(ms: number): void;
}

/** What a stopped process had not given back. */
export interface Leftovers {
  readonly name: string;
  readonly timers: readonly string[];
  readonly sockets: readonly string[];
  readonly heldBytes: number;
  readonly sessions: number;
  readonly busy: readonly string[];
  /** Accounts whose newest refresh token it could not save, as it said itself. */
  readonly unsaved: readonly string[];
  readonly tookMs: number;
}

let defaults: Settings | undefined;

/** Reads the settings' defaults once; before the first world. */
export async function prepareRelays(): Promise<void> {
  // Each relay has a loop of its own.
  eventLoop.turn = () => new Promise((resume) => setImmediate(resume));
  eventLoop.atTurnEnd = (task) => void setImmediate(task);
  defaults = await loadSettings({ flags: {}, env: {} });
}

/** After a stop, before what is left is counted, ms. */
const SETTLE_MS = 15_000;
/** Events at a process that are not its own timers; a signal's timer keeps nothing alive and ends with it. */
const OTHERS_EVENTS = /^(net|token|file|scrypt|event|immediate|unref|abort timeout)/;

export interface HostDeps {
  readonly world: World;
  readonly network: Network;
  readonly files: Files;
  /** It could not start. */
  readonly onCrash: (host: RelayHost, error: unknown) => void;
}

export function createRelayHost(
  deps: HostDeps,
  options: { readonly name: string; readonly accounts: string; readonly settings: Partial<Settings> },
): RelayHost {
  const { world, network, files } = deps;
  const { name } = options;
  const path = `/sim/${name}/accounts.json`;
  const log: LogLine[] = [];
  const records: TransactionRecord[] = [];
  const killed: Actor[] = [];
  let actor: Actor | undefined;
  let app: App | undefined;
  let backend: AdminBackend | undefined;
  let skewMs = 0;
  let isStopping = false;
  let lives = 0;
  files.put(path, options.accounts);

  /** The product's own log, on a destination that takes everything. */
  function openLog(): ProcessLog {
    const sink = {
      write(text: string): void {
        const event = /"event":"(\w+)"/.exec(text)?.[1] ?? '';
        log.push({ at: world.now, event, text });
        if (event !== 'transaction' && !text.startsWith('{"level":20,')) world.note(`log ${event}`);
      },
      dropped: 0,
      onRecovered: undefined,
    };
    return createLog('debug', sink as unknown as LogSink);
  }

  function settings(): Settings {
    if (defaults === undefined) throw new Error('prepareRelays first');
    const [listener] = defaults.listeners;
    if (listener === undefined) throw new Error('no listener by default');
    return {
      ...defaults,
      hostname: 'relay.test',
      accounts: path,
      listeners: [{ ...listener, host: '127.0.0.1', port: 25 }],
      ...options.settings,
    };
  }

  const host: RelayHost = {
    name,
    get actor() {
      return actor;
    },
    get backend() {
      return backend;
    },
    get isStopping() {
      return isStopping;
    },
    log,
    records,
    killed,
    start() {
      if (actor !== undefined) return;
      const born = world.spawn(name);
      lives += 1;
      const life = lives;
      const own = { pid: life, started: '', place: name };
      const processes = { own, isAlive: (mark: ProcessMark) => mark.pid === life };
      born.skewMs = skewMs;
      actor = born;
      world.note('starts', born);
      world.after(born, 0, () => {
        const openStore: typeof createTokenStore = (given) => {
          if (given.stateDir === undefined) return createTokenStore(given);
          const own = { ...given, sealer: undefined, files: files.state, processes };
          const here = createFileStore(given.stateDir, own);
          if (given.storeUrl === undefined) return here;
          return createTwofoldStore(createTokenStore({ ...given, stateDir: undefined }), here, given.log);
        };
        const openAdmin = (given: { readonly backend: AdminBackend }): Admin => {
          return {
            recordTransaction: (record) => {
              records.push(record);
              world.note(
                `${record.outcome} ${record.reply?.code ?? ''} ${record.recipients.join(' ')} ${record.reply?.text ?? ''}`,
              );
            },
            observeRefresh: () => undefined,
            observeLimit: () => undefined,
            observePassedOver: () => undefined,
            observeGraphCall: () => undefined,
            messageUnclear: () => undefined,
            accountChanged: () => undefined,
            accountRemoved: () => undefined,
            reloaded: () => undefined,
            // Nobody can ask before: by then the relay has read what it kept.
            listen: async () => {
              if (actor === born) backend = given.backend;
              return { host: '127.0.0.1', port: 1 };
            },
            close: async () => undefined,
          };
        };
        app = createApp({ settings: settings(), log: openLog(), openAdmin, openStore });
        app.start().catch((error: unknown) => deps.onCrash(host, error));
      });
    },
    reload(accounts) {
      files.put(path, accounts);
      const running = app;
      if (actor === undefined || running === undefined) return;
      world.note('is reloaded', actor);
      world.after(actor, 0, () => void running.reload());
    },
    stop(deadlineMs, done) {
      const running = app;
      const ending = actor;
      if (ending === undefined || running === undefined || isStopping) return;
      isStopping = true;
      world.note('is stopped', ending);
      const begunAt = world.now;
      world.after(ending, 0, () => {
        let unsaved: readonly string[] = [];
        const told = (error: unknown): void => {
          if (!(error instanceof GrantsUnsavedError)) throw error;
          unsaved = error.accountIds;
        };
        void running
          .stop({ deadlineMs })
          .catch(told)
          .then(() => {
            const tookMs = world.now - begunAt;
            world.note('has stopped', ending);
            // What has an end of its own within seconds is nothing left behind.
            world.after(ending, SETTLE_MS, () => {
              const held = backend?.listener();
              const left: Leftovers = {
                name,
                timers: world.pending(ending).filter((kind) => !OTHERS_EVENTS.test(kind)),
                sockets: network.openOf(ending).map((end) => `${end.address} to ${end.peer.address}`),
                heldBytes: held?.held_bytes ?? 0,
                sessions: held?.sessions ?? 0,
                busy: [...(backend?.rows() ?? [])].filter((a) => a.pool.busy > 0).map((a) => a.id),
                unsaved,
                tookMs,
              };
              // What remains of a process when it ends: its sockets are closed.
              network.closeAllOf(ending);
              world.kill(ending);
              isStopping = false;
              if (actor === ending) {
                actor = undefined;
                app = undefined;
                backend = undefined;
              }
              done(left);
            });
          });
      });
    },
    kill(how) {
      if (actor === undefined) return;
      world.note(how === 'kill' ? 'is killed' : 'loses power', actor);
      network.closeAllOf(actor);
      world.kill(actor);
      if (how === 'power') files.losePower(`/sim/${name}`);
      killed.push(actor);
      isStopping = false;
      actor = undefined;
      app = undefined;
      backend = undefined;
    },
    stepClock(ms) {
      skewMs += ms;
      if (actor === undefined) return;
      world.note(`clock steps ${ms / 1000} s`, actor);
      actor.skewMs = skewMs;
    },
  };
  return host;
}
