/** A relay for the admin room's tests: accounts, tokens and breakers a test can set, actions it can read back. */

import type { AccountStatus } from '../../src/accounts/account.ts';
import { type Admin, type AdminOptions, createAdmin } from '../../src/admin/admin.ts';
import type { AdminBackend } from '../../src/admin/backend.ts';
import type {
  AccountDetail,
  AccountRow,
  BreakerRow,
  FleetView,
  ReloadResult,
  TokenTotals,
  UnclearRow,
} from '../../src/admin/shapes.ts';
import { silentLog } from '../../src/log.ts';
import type { Outcome, TransactionRecord } from '../../src/relay/record.ts';
import { createFakeSignIns, type FakeSignIns } from './fake-sign-ins.ts';

/** A token ends when it ends, whenever it is asked for. */
const SINCE = Date.now();

export interface FakeAccount {
  readonly email: string;
  readonly id?: string;
  readonly provider?: string;
  readonly status?: AccountStatus;
  readonly reason?: string;
  /** Row of the book of causes. */
  readonly cause?: string;
  readonly cure?: string;
  readonly lastError?: string;
  /** Life of the token, s; absent: none cached. */
  readonly tokenLifeS?: number;
  readonly drained?: boolean;
  readonly busy?: number;
}

export interface FakeAdminBackend extends AdminBackend {
  /** Adds the account or changes what is given of it. */
  set(account: FakeAccount): void;
  remove(id: string): void;
  totals: TokenTotals;
  fleetView: FleetView;
  breakerRows: BreakerRow[];
  warmedUp: boolean;
  unclearRows: UnclearRow[];
  /** What `reload` answers. */
  reloadResult: ReloadResult;
  /** What `refreshToken` answers. */
  refreshResult: { ok: boolean; error?: string; cure?: string };
  /** Actions asked for, as `refresh ann@example.com`. */
  readonly actions: string[];
  readonly signIns: FakeSignIns;
}

const idOf = (account: FakeAccount): string => account.id ?? account.email.toLowerCase();

function rowOf(account: FakeAccount): AccountRow {
  const life = account.tokenLifeS;
  const busy = account.busy ?? 0;
  return {
    id: idOf(account),
    email: account.email,
    provider: account.provider ?? 'gmail',
    transport: 'smtp',
    way: 'smtp',
    status: account.status ?? 'ready',
    reason: account.reason ?? null,
    cause: account.cause ?? null,
    cure: account.cure ?? null,
    until: account.status === 'throttled' ? new Date(Date.now() + 60_000).toISOString() : null,
    drained: account.drained ?? false,
    token: {
      cached: life !== undefined,
      expires_at: life === undefined ? null : new Date(SINCE + life * 1000).toISOString(),
      expires_in_s: life ?? null,
      age_s: life === undefined ? null : Math.max(0, 3599 - life),
    },
    tokens: [],
    pool: { size: busy + 1, idle: 1, busy, max: 5 },
    messages: { relayed: 12, deferred: 1, rejected: 0 },
    last_error: account.lastError ?? null,
    last_error_at: account.lastError === undefined ? null : new Date().toISOString(),
  };
}

export function createFakeAdminBackend(accounts: readonly FakeAccount[] = []): FakeAdminBackend {
  const kept = new Map(accounts.map((a) => [idOf(a), a]));
  const find = (name: string): FakeAccount | undefined =>
    kept.get(name.toLowerCase()) ??
    [...kept.values()].find((a) => a.email.toLowerCase() === name.toLowerCase() || a.id === name);
  const backend: FakeAdminBackend = {
    totals: {
      cache_hits: 90,
      cache_misses: 10,
      refresh_attempts: 10,
      refresh_success: 9,
      refresh_failures: 1,
    },
    breakerRows: [],
    fleetView: { shared: false, apart: false, share: 1, relays: [] },
    warmedUp: true,
    unclearRows: [
      {
        key: 'KEY',
        account: 'ann@example.com',
        message_id: '<1@example.com>',
        since: '2026-11-25T12:00:00.000Z',
        reason: 'Graph did not answer in time',
        clears: 'person',
      },
    ],
    reloadResult: { ok: true, added: [], changed: [], removed: [], untouched: [...kept.keys()], errors: [] },
    refreshResult: { ok: true },
    actions: [],
    set: (account) => {
      const id = idOf(account);
      kept.set(id, { ...kept.get(id), ...account });
    },
    remove: (id) => {
      kept.delete(id);
    },
    *rows() {
      for (const account of kept.values()) yield rowOf(account);
    },
    gauges: () => backend.rows(),
    *search({ from, fits }) {
      let isFrom = from === undefined;
      for (const row of backend.rows()) {
        isFrom ||= row.id === from;
        if (isFrom) yield fits(row) ? row : undefined;
      }
    },
    status: (id) => backend.row(id)?.status ?? 'ready',
    row: (id) => {
      const account = kept.get(id);
      return account && rowOf(account);
    },
    isReady: () => backend.warmedUp && [...kept.values()].some((a) => (a.status ?? 'ready') === 'ready'),
    account: (name): AccountDetail | undefined => {
      const found = find(name);
      if (found === undefined) return undefined;
      return {
        ...rowOf(found),
        user: found.email,
        grant: 'refresh_token',
        senders: [found.email],
        smtp: 'starttls://smtp.example.com:587',
        graph: null,
        preference: 10,
        group: [],
        max_connections: 5,
        messages_per_minute: null,
        messages_per_day: 2000,
        max_recipients: 100,
      };
    },
    tokenTotals: () => backend.totals,
    tokenDetail: () => ({
      source: 'pre-cache',
      refreshing: false,
      next_refresh_at: new Date().toISOString(),
      uses: 12,
      last_used_at: new Date().toISOString(),
      last_error: null,
      last_error_at: null,
      refresh_token_obtained_at: null,
    }),
    keptRemoved: () => [],
    breakers: () => backend.breakerRows,
    fleet: () => backend.fleetView,
    readiness: async () => ({
      warmed_up: backend.warmedUp,
      usable: [...kept.values()].filter((a) => (a.status ?? 'ready') === 'ready').length,
      total: kept.size,
    }),
    listener: () => ({
      sessions: 3,
      sessions_total: 40,
      refused_total: 2,
      auth_failures_total: 5,
      held_bytes: 4096,
      limit_hits: { idle: 7 },
    }),
    refreshToken: async (id) => {
      backend.actions.push(`refresh ${id}`);
      return backend.refreshResult;
    },
    forgetToken: (id) => {
      backend.actions.push(`forget ${id}`);
      return true;
    },
    retry: async (id) => {
      backend.actions.push(`retry ${id}`);
    },
    unclear: async () => backend.unclearRows,
    async decide(key, decision) {
      if (!backend.unclearRows.some((row) => row.key === key)) return 'none';
      backend.actions.push(`${decision} ${key}`);
      return 'done';
    },
    drain: (id) => {
      backend.actions.push(`drain ${id}`);
      const account = find(id);
      if (account !== undefined) backend.set({ ...account, drained: true });
    },
    resume: (id) => {
      backend.actions.push(`resume ${id}`);
      const account = find(id);
      if (account !== undefined) backend.set({ ...account, drained: false });
    },
    reload: async () => {
      backend.actions.push('reload');
      return backend.reloadResult;
    },
    signIns: createFakeSignIns((id) => find(id) !== undefined),
    giveToken: async (id) => {
      backend.actions.push(`give token ${id}`);
      return { ok: true };
    },
    removeAccount: async (id) => {
      backend.actions.push(`remove ${id}`);
      backend.remove(id);
      return { ok: true };
    },
    setLogLevel: (level) => {
      backend.actions.push(`log-level ${level}`);
    },
    logDropped: () => 0,
    logWaiting: () => 0,
  };
  return backend;
}

let records = 0;

/** A finished transaction; `changes` over a message relayed in one flight. */
export function fakeRecord(changes: Partial<TransactionRecord> = {}): TransactionRecord {
  const outcome: Outcome = changes.outcome ?? 'relayed';
  const code = { relayed: 250, deferred: 451, rejected: 550, aborted: 0, unknown: 451 }[outcome];
  return {
    id: `T${++records}`,
    at: Date.now(),
    sessionId: 'S1',
    client: '127.0.0.1',
    account: 'ann@example.com',
    provider: 'gmail',
    way: 'smtp',
    chosenBy: undefined,
    sender: 'ann@example.com',
    recipients: ['bob@example.org'],
    bytes: 4096,
    outcome,
    reply: code === 0 ? undefined : { code, enhanced: `${Math.floor(code / 100)}.0.0`, text: 'OK' },
    decidedBy: 'upstream',
    upstreamReply: code === 0 ? undefined : { code, text: 'OK' },
    flights: 1,
    reused: true,
    replayed: false,
    connection: 'C1',
    totalMs: 42.5,
    gateMs: 0.02,
    acquireMs: 0.3,
    upstreamMs: 41,
    ...changes,
  };
}

/** The admin room on such a backend. */
export async function startAdmin(
  backend: FakeAdminBackend,
  more: Partial<AdminOptions> = {},
): Promise<{ readonly admin: Admin; readonly url: string; readonly port: number }> {
  const admin = createAdmin(
    { backend, log: silentLog },
    {
      host: '127.0.0.1',
      port: 0,
      version: '9.9.9',
      accountsFile: '/etc/xoauth2-relay/accounts.json',
      summaryEveryMs: 0,
      ...more,
    },
  );
  const { port } = await admin.listen();
  return { admin, url: `http://127.0.0.1:${port}`, port };
}
