/**
 * The composition root. In: settings. Out: a running relay with `start`, `reload`, `stop`, `cut`. Owns every room and the
 * order in which they open and close; closers are pushed as rooms open and run in reverse, also when opening fails half-way.
 */
import { AccountsFileError, readAccountsFile } from './accounts/accounts-file.ts';
import { proxyOfSetting } from './accounts/smtp-proxy.ts';
import { createActivity } from './activity.ts';
import { type Admin, createAdmin } from './admin/admin.ts';
import type { ReloadResult } from './admin/shapes.ts';
import { formatTransactionRow, toTransactionRow } from './admin/transaction-log.ts';
import { createAppAccounts } from './app-accounts.ts';
import { openAppAdmin } from './app-admin.ts';
import { createAppSignIns } from './app-sign-ins.ts';
import { createAppState } from './app-state.ts';
import { tryOpening } from './app-trial.ts';
import { createAdminBackend } from './app-view.ts';
import { createAppWarmUp } from './app-warm-up.ts';
import { createAppWays } from './app-ways.ts';
import { type Clock, orAfter, systemClock } from './clock.ts';
import { CLOSING_MS, createClosers } from './closers.ts';
import type { Settings } from './config.ts';
import { createHeldBudget } from './listener/held-budget.ts';
import { createListener, type Listener } from './listener/listener.ts';
import type { ProcessLog } from './log.ts';
import { createTokenSocket } from './programs/token-socket.ts';
import { maskAddresses } from './protocol/mask-addresses.ts';
import { createRelay, type RunningRelay } from './relay/create-relay.ts';
import type { TransactionRecord } from './relay/record.ts';
import { GrantsUnsavedError } from './tokens/grants-unsaved.ts';
import { createTokenStore } from './tokens/open-store.ts';
import { createTokenService, type TokenService } from './tokens/token-service.ts';
import { createOpenConnection } from './upstream/open.ts';
import { createUpstreams, type Upstreams } from './upstream/upstream.ts';
import type { AccountWays } from './upstream/ways.ts';
import { version } from './version.ts';

export interface App {
  /** Opens everything; resolves when mail can be handed in. Tokens and connections come in the background (`ready` in the log). Rejects with `AccountsFileError`, `ListenerError` or a system error; nothing stays open then. `stopped`: `stop` came first, and closes what was open. */
  start(): Promise<'serving' | 'stopped'>;
  /** Reads the accounts file again and applies what changed while mail flows. Never rejects: `ok: false` and nothing changed. */
  reload(): Promise<ReloadResult>;
  /** In place of `start`: what could not be opened, each for a moment. Never rejects. */
  trial(): Promise<readonly unknown[]>;
  /** Drains: no new sessions, transactions finish within `deadlineMs`, QUIT upstream. */
  stop(options: { readonly deadlineMs: number }): Promise<void>;
  /** Closes everything now; nothing unfinished is delivered. Resolves when the answers of token endpoints under way are kept, within seconds. */
  cut(): Promise<void>;
}

export interface AppDeps {
  readonly settings: Settings;
  readonly log: ProcessLog;
  /** The admin room; a simulation has one without a server. */
  readonly openAdmin?: typeof createAdmin;
  /** What keeps grants; a simulation has files of its own. */
  readonly openStore?: typeof createTokenStore;
  readonly clock?: Clock;
}

const HOUR_MS = 3_600_000;
/** Told twice to stop, nobody waits long; a refresh token on its way is worth this much, ms. */
const CUT_MS = 5000;

export function createApp({
  settings,
  log,
  openAdmin = createAdmin,
  openStore = createTokenStore,
  clock = systemClock,
}: AppDeps): App {
  const closers = createClosers(log, (error) => error instanceof GrantsUnsavedError, clock);
  let reloading: Promise<ReloadResult> | undefined;
  let stopping = false;
  let opening: Promise<unknown> | undefined;
  const activity = createActivity(settings.refreshIdleAfter * HOUR_MS, clock);

  const state = createAppState({
    settings,
    log,
    version,
    pauses: () => mailWays.pauses,
    totals: () => view.totals(),
    setDrained: (id, isDrained) => view.setDrained(id, isDrained),
    drained: () => relay.drained,
    inviteHeard: (id, invite) => signIns.inviteHeard(id, invite),
    endpointHeard: (tokenUrl, leftMs) => tokens.endpointHeard(tokenUrl, leftMs),
    refreshedElsewhere: (id) => void tokens.refreshedElsewhere(id).then(() => ways.retryNow([id])),
    storeForgot: () => void tokens.saveAgain(),
    changed: (id) => admin.accountChanged(id),
    further: {
      invites: {
        snapshot: () => signIns.kept.snapshot(),
        restore: (kept) => signIns.kept.restore(kept),
      },
    },
  });
  const { redis, limiter, news } = state;
  const stateChanged = (id: string): void => {
    news?.accountChanged(id);
    admin.accountChanged(id);
  };
  const tokens: TokenService = createTokenService(
    {
      log,
      onEndpointRest: (tokenUrl, restMs) => news?.endpointRests(tokenUrl, restMs),
      clock,
      activity,
      store: openStore({
        stateDir: settings.stateDir,
        stateKey: settings.stateKey,
        storeUrl: settings.store,
        answerTimeoutMs: settings.tokenTimeoutMs,
        redis,
        aloneSince: () => state.fleet?.membership.aloneSince,
        log,
      }),
    },
    {
      concurrency: settings.precacheConcurrency,
      forgetAfterMs: settings.forgetAfter * 24 * HOUR_MS,
      withoutStore: settings.withoutStore,
      endpoint: { answerTimeoutMs: settings.tokenTimeoutMs },
    },
  );
  const upstreams: Upstreams = createUpstreams(
    {
      tokens,
      log,
      clock,
      open: createOpenConnection({
        heloName: settings.heloName,
        proxy: proxyOfSetting(settings.smtpProxy),
        connectTimeoutMs: settings.connectTimeoutMs,
      }),
      ...(state.logins && { logins: state.logins }),
      isParked: (id) => relay.isDrained(id),
      isIdle: activity.isIdle,
      onStateChange: stateChanged,
    },
    { acquireTimeoutMs: settings.acquireTimeoutMs, maxOpening: settings.warmConcurrency },
  );
  const mailWays = createAppWays({
    settings,
    log,
    clock,
    redis,
    tokens,
    upstreams,
    onCall: (call) => admin.observeGraphCall(call),
    onStateChange: stateChanged,
    onPerson: (news) => admin.messageUnclear(news),
    onGraphRest: (id, ms) => news?.graphRests(id, ms),
    onAsked: activity.note,
  });
  const ways: AccountWays = mailWays.ways;
  const relay: RunningRelay = createRelay(
    {
      ways,
      limiter,
      accountNow: (id) => accounts.directory.byId(id),
      log,
      clock,
      onRecord,
      onLimit: (event) => admin.observeLimit(event),
      onPassedOver: (account, result) => admin.observePassedOver(account, result),
    },
    { replayBytes: settings.replayBytes, maxHoldMs: settings.maxHoldMs },
  );
  const accounts = createAppAccounts({
    path: settings.accounts,
    isStopping: () => stopping,
    log,
    tokens,
    ways,
    keepOnly(ids, mailboxes) {
      limiter.keepOnly(mailboxes);
      activity.keepOnly(ids);
      // With a shared Redis who is drained is the fleet's: other relays may serve what this one does not.
      if (state.fleet === undefined) relay.keepOnly(ids);
    },
  });
  const shown = (text: string): string => (settings.logAddresses ? text : maskAddresses(text));
  const budget = createHeldBudget(settings.maxHeldBytes);
  const listeners: Listener[] = settings.listeners.map((listener) =>
    createListener(
      {
        relay,
        directory: () => accounts.directory,
        log,
        clock,
        replayBytes: settings.replayBytes,
        budget,
        offered: accounts.offered,
        shown,
      },
      listener,
    ),
  );
  const signIns = createAppSignIns({
    settings,
    log,
    tokens,
    accounts,
    reload: async () => (await reload()).ok,
    onInvite: (id, invite) => news?.invited(id, invite),
    save: state.save,
    cured(id) {
      void ways.retryNow([id]).then(() => ways.warmUp([id]));
      news?.refreshed(id);
      admin.accountChanged(id);
    },
  });
  const view = createAdminBackend({
    accounts: () => accounts.directory,
    tokens,
    upstreams,
    ways,
    unclear: mailWays.unclear,
    relay,
    listeners,
    warmedUp: () => warmUp.isOver,
    reload,
    setLogLevel: (level) => {
      log.level = level;
    },
    logDropped: () => log.dropped,
    logWaiting: () => log.waiting,
    changed: (id) => admin.accountChanged(id),
    news,
    signIns,
    state,
  });
  const tokenSocket = createTokenSocket(
    { tokens, accountOf: (name) => accounts.directory.byId(name), log, clock },
    { path: settings.tokenSocket, answerTimeoutMs: settings.tokenTimeoutMs },
  );
  const warmUp = createAppWarmUp(
    {
      tokens,
      ways,
      log,
      backend: view.backend,
      isStopping: () => stopping,
      changed: (id) => admin.accountChanged(id),
    },
    { precache: settings.precache },
  );
  const admin: Admin = openAppAdmin(openAdmin, { backend: view.backend, log }, settings, version);
  tokens.onStateChange((id) => admin.accountChanged(id));
  tokens.onRefresh((o) =>
    admin.observeRefresh({
      account: o.accountId,
      provider: o.provider,
      result: o.ok ? 'success' : 'failure',
      durationMs: o.ms,
    }),
  );

  function onRecord(record: TransactionRecord): void {
    view.count(record);
    admin.recordTransaction(record);
    const level = record.outcome === 'unknown' ? 'warn' : 'info';
    if (log.isLevelEnabled(level))
      log.line(
        level,
        `"event":"transaction",${formatTransactionRow(toTransactionRow(record, settings.logAddresses))}`,
        record.outcome,
      );
  }

  async function start(): Promise<'serving' | 'stopped'> {
    opening = open();
    await opening;
    if (stopping) return 'stopped';
    void warmUp.firstRound(accounts.ids);
    return 'serving';
  }

  /** Opens nothing more once it is told to stop; `stop` closes what is open by then. */
  async function open(): Promise<void> {
    const file = await readAccountsFile(settings.accounts);
    if (stopping) return;
    accounts.report(file);
    if (file.accounts.length === 0 && file.problems.length > 0)
      throw new AccountsFileError(`${settings.accounts}: no account can be served, see the problems above`);
    closers.push({
      close: (endsAt) => tokens.close({ deadlineMs: endsAt - clock.monotonic() }),
      isBounded: true,
    });
    for (const closer of mailWays.closers) closers.push({ close: () => closer.close() });
    try {
      await tokens.open();
      if (stopping) return;
      await accounts.apply(file);
      if (stopping) return;
      closers.push({ close: () => state.close() });
      await state.start();
      const addresses: object[] = [];
      for (const listener of listeners) {
        if (stopping) return;
        addresses.push(await listener.listen());
        closers.push({ close: () => listener.cut() });
      }
      if (stopping) return;
      await tokenSocket.listen();
      closers.push({ close: () => tokenSocket.close() });
      closers.push({ close: () => signIns.close() });
      closers.push({ close: () => admin.close() });
      const adminAddress = await admin.listen();
      log.info(
        {
          event: 'listening',
          smtp: addresses[0],
          listeners: addresses,
          admin: adminAddress,
          accounts: accounts.ids.length,
          version,
          pid: process.pid,
        },
        'listening',
      );
    } catch (error) {
      await closers.closeAll();
      throw error;
    }
  }

  async function reloadNow(): Promise<ReloadResult> {
    const { result: read, gone } = await accounts.reload();
    if (!read.ok) return read;
    const errors = [...read.errors];
    for (const listener of listeners) {
      await listener.reloadTls().catch((error: Error) => {
        errors.push({ path: 'listeners', message: error.message });
        log.error({ event: 'reload_tls_failed' }, error.message);
      });
    }
    for (const id of gone) {
      view.forget(id);
      signIns.forget(id);
      admin.accountRemoved(id);
    }
    log.info(
      {
        event: 'reloaded',
        added: read.added,
        changed: read.changed,
        removed: read.removed,
        untouched: read.untouched.length,
        problems: read.errors.length,
      },
      'accounts reloaded',
    );
    const fresh = [...read.added, ...read.changed];
    for (const id of fresh) activity.note(id);
    await warmUp.tell(fresh);
    warmUp.reloaded(read);
    return { ...read, errors };
  }

  /** One reload at a time, and none before the start has read the file: a request during either asks for another after it, since the file may have changed again. */
  function reload(): Promise<ReloadResult> {
    const previous: Promise<unknown> = reloading ?? opening ?? Promise.resolve();
    const current: Promise<ReloadResult> = previous.then(reloadNow, reloadNow).then((result) => {
      if (reloading === current) reloading = undefined;
      admin.reloaded(result);
      return result;
    });
    reloading = current;
    return current;
  }

  return {
    start,
    reload,
    trial: () =>
      tryOpening([
        ...listeners.map((listener) => ({ open: listener.tryListen, close: listener.cut })),
        { open: tokenSocket.listen, close: tokenSocket.close },
        { open: admin.listen, close: admin.close },
      ]),
    async stop({ deadlineMs }) {
      if (stopping) return;
      stopping = true;
      log.info({ event: 'draining' }, 'draining: no new sessions, transactions finish');
      tokens.drain();
      const endsAt = clock.monotonic() + deadlineMs;
      const forTransactions = Math.max(0, deadlineMs - CLOSING_MS);
      if (opening !== undefined) await orAfter(clock, Promise.allSettled([opening]), forTransactions);
      await Promise.all(listeners.map((listener) => listener.stop({ deadlineMs: forTransactions })));
      await closers.closeAll(endsAt);
      log.info({ event: 'stopped' }, 'stopped');
    },
    async cut() {
      const cut = listeners.map((listener) => listener.cut());
      await Promise.all([...cut, orAfter(clock, tokens.close(), CUT_MS)]);
    },
  };
}
