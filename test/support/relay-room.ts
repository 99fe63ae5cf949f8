/**
 * The rooms from accounts to relay in one process, against a simulated provider: what a listener would
 * see, without a listener. In: provider and account options. Out: `send` and what became of it.
 */

import type { Account } from '../../src/accounts/account.ts';
import { parseAccounts } from '../../src/accounts/accounts-file.ts';
import type { LoadedAccount } from '../../src/accounts/build-account.ts';
import { createAccountDirectory } from '../../src/accounts/directory.ts';
import { formatPlaceIn } from '../../src/accounts/schema.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import { createHttp } from '../../src/http.ts';
import { silentLog } from '../../src/log.ts';
import type { Reply } from '../../src/protocol/reply.ts';
import { createRelay, type RelayOptions, type RunningRelay } from '../../src/relay/create-relay.ts';
import type { TransactionRecord } from '../../src/relay/record.ts';
import type { Transaction } from '../../src/relay/relay.ts';
import { runAtOnce } from '../../src/slices.ts';
import { createTokenService, type TokenService } from '../../src/tokens/token-service.ts';
import type { GraphCallObservation } from '../../src/upstream/graph/client.ts';
import { createGraphWays } from '../../src/upstream/graph/graph-way.ts';
import { createLocalLedger } from '../../src/upstream/graph/ledger-local.ts';
import { createOpenConnection, type OpenOptions } from '../../src/upstream/open.ts';
import { createSmtpWays } from '../../src/upstream/smtp-way.ts';
import { createUpstreams, type Upstreams, type UpstreamsOptions } from '../../src/upstream/upstream.ts';
import { type AccountWays, createAccountWays } from '../../src/upstream/ways.ts';
import type { Defer } from './leak-check.ts';
import { type Provider, type ProviderOptions, startProvider } from './provider.ts';

export const ANN = 'ann@example.com';

export interface RoomOptions {
  readonly provider?: ProviderOptions;
  /** Users with an account; default `ANN`. */
  readonly users?: readonly string[];
  /** Merged into each accounts-file entry. */
  readonly account?: Record<string, unknown>;
  readonly relay?: Partial<RelayOptions> & { readonly busyWaitMs?: number };
  readonly upstreams?: Partial<UpstreamsOptions>;
  readonly open?: Partial<OpenOptions>;
  readonly clock?: Clock;
  /** CA the relay trusts; default the simulator's. */
  readonly ca?: string;
  /** Accounts that have not sent for long. */
  readonly isIdle?: (accountId: string) => boolean;
  /** Connections are opened before the test goes on; default true. */
  readonly warm?: boolean;
}

export interface Message {
  readonly from?: string;
  readonly mailParameters?: readonly string[];
  readonly to?: readonly string[];
  /** Recipients come together, as of a pipelining client; a number: so many of them, the others one by one. */
  readonly together?: boolean | number;
  /** Octets in the pieces in which they are written. */
  readonly body?: string | Buffer | readonly Buffer[];
}

/** Every reply a client would have heard. */
export interface Heard {
  readonly mail: Reply;
  readonly rcpts: readonly Reply[];
  /** Refusal at DATA, before 354. */
  readonly data?: Reply;
  readonly final?: Reply;
}

export interface Room {
  readonly provider: Provider;
  readonly tokens: TokenService;
  readonly upstreams: Upstreams;
  readonly ways: AccountWays;
  readonly graphCalls: readonly GraphCallObservation[];
  readonly relay: RunningRelay;
  /** One for each transaction that ended. */
  readonly records: readonly TransactionRecord[];
  /** The state changes that were announced. */
  readonly changes: readonly string[];
  /** Mail leaves for exactly these from now on. */
  serveOnly(accounts: readonly Account[]): void;
  /** Serves these entries of an accounts file from now on. */
  reload(entries: readonly object[]): Promise<void>;
  /** Opens a transaction. */
  mail(from?: string, parameters?: readonly string[]): Promise<{ reply: Reply; transaction?: Transaction }>;
  /** One whole transaction, as a client without pipelining speaks it. */
  send(message?: Message): Promise<Heard>;
}

/** `n` octets of mail: lines of 70 characters, CRLF at the end. */
export function mailOf(n: number): Buffer {
  const line = `${'x'.repeat(70)}\r\n`;
  const head = 'Subject: test\r\n\r\n';
  const text = head + line.repeat(Math.max(0, Math.ceil((n - head.length) / line.length)));
  return Buffer.from(`${text.slice(0, Math.max(0, n - 2))}\r\n`);
}

export async function startRoom(defer: Defer, options: RoomOptions = {}): Promise<Room> {
  const users = options.users ?? [ANN];
  const provider = await startProvider({ ...options.provider, users });
  defer(() => provider.close());
  async function load(entries: readonly object[]): Promise<readonly LoadedAccount[]> {
    const file = await parseAccounts(JSON.stringify(entries), { env: {}, directory: '/' });
    const problem = file.problems[0];
    if (problem !== undefined) throw new Error(`${formatPlaceIn(problem)}: ${problem.message}`);
    return file.accounts;
  }
  const loaded = await load(
    users.map((user) => provider.entry(user, { login_interval_ms: 0, ...options.account })),
  );
  const accounts = loaded.map((a) => a.account);
  let directory = createAccountDirectory(accounts);
  const tokens = createTokenService({ log: silentLog });
  defer(() => tokens.close());
  tokens.applyAccounts(loaded);
  const { clock = systemClock } = options;
  const changes: string[] = [];
  const upstreams = createUpstreams(
    {
      tokens,
      log: silentLog,
      clock,
      open: createOpenConnection({
        ca: options.ca ?? provider.caPem,
        heloName: 'relay.test',
        connectTimeoutMs: 5_000,
        clock,
        ...options.open,
      }),
      isParked: (id) => relay.isDrained(id),
      ...(options.isIdle && { isIdle: options.isIdle }),
      onStateChange: (id) => changes.push(`${id}:${upstreams.status(id)?.state.status}`),
    },
    { acquireTimeoutMs: 5_000, maxOpening: 50, ...options.upstreams },
  );
  defer(() => upstreams.close());
  const http = createHttp({ env: {} });
  defer(() => http.close());
  const ledger = createLocalLedger({ log: silentLog });
  const graphCalls: GraphCallObservation[] = [];
  const ways = createAccountWays({
    upstreams,
    smtp: createSmtpWays(
      { upstreams, log: silentLog, clock },
      { busyWaitMs: options.relay?.busyWaitMs ?? 10_000 },
    ),
    graph: createGraphWays({
      tokens,
      http,
      ledger,
      log: silentLog,
      onCall: (call) => graphCalls.push(call),
      onStateChange: (id) => changes.push(`${id}:${ways.status(id)?.state.status}`),
    }),
    log: silentLog,
    onStateChange: (id) => changes.push(`${id}:by ${ways.status(id)?.way}`),
  });
  defer(() => ways.close());
  const serveOnly = (wanted: readonly Account[]): void => runAtOnce(ways.prepare(wanted))();
  serveOnly(accounts);
  const records: TransactionRecord[] = [];
  const relay = createRelay(
    {
      ways,
      log: silentLog,
      clock,
      onRecord: (r) => records.push(r),
    },
    { replayBytes: 64 * 1024, maxHoldMs: 1_000, ...options.relay },
  );
  if (options.warm !== false) {
    await tokens.precache();
    await ways.warmUp(accounts.map((a) => a.id));
  }

  async function mail(
    from = ANN,
    parameters: readonly string[] = [],
  ): Promise<Awaited<ReturnType<RunningRelay['mail']>>> {
    const account = directory.candidates(from)[0]?.account;
    if (account === undefined) throw new Error(`no account for ${from}`);
    return relay.mail({
      account,
      sender: from,
      parameters,
      session: { id: 's1', remoteAddress: '127.0.0.1' },
    });
  }

  return {
    provider,
    tokens,
    upstreams,
    ways,
    graphCalls,
    relay,
    records,
    changes,
    serveOnly,
    async reload(entries) {
      const next = await load(entries);
      directory = createAccountDirectory(next.map((a) => a.account));
      tokens.applyAccounts(next);
      serveOnly(next.map((a) => a.account));
    },
    mail,
    async send(message = {}) {
      const opened = await mail(message.from, message.mailParameters);
      if (opened.transaction === undefined) return { mail: opened.reply, rcpts: [] };
      const { transaction } = opened;
      const rcpts: Reply[] = [];
      const to = (message.to ?? ['bob@example.net']).map((address) => ({ address, parameters: [] }));
      const first =
        typeof message.together === 'number' ? message.together : message.together ? to.length : 0;
      const batches = [to.slice(0, first), ...to.slice(first).map((one) => [one])];
      for (const batch of batches.filter(({ length }) => length > 0))
        rcpts.push(...(await transaction.rcpt(batch)));
      const data = transaction.refusalAtData();
      if (data !== undefined) return { mail: opened.reply, rcpts, data };
      const writer = transaction.body();
      const body = message.body ?? 'Subject: hi\r\n\r\nhello\r\n';
      const pieces = typeof body === 'string' ? [Buffer.from(body)] : Buffer.isBuffer(body) ? [body] : body;
      for (const piece of pieces) await writer.write(piece);
      return { mail: opened.reply, rcpts, final: await writer.end() };
    },
  };
}
