/**
 * Calls a person when an account or a message needs one. In: accounts whose state has changed, messages that wait.
 * Out: one log line at level error, one count, and where set a webhook or a command, once per state change; accounts
 * that fall ill of the same cause at the same time share one alert. Owns the memory of what was said.
 */
import { spawn } from 'node:child_process';
import { setMaxListeners } from 'node:events';
import timers from 'node:timers/promises';
import type { Log } from '../log.ts';
import { orMake } from '../or-make.ts';
import type { UnclearNews } from '../protocol/unclear-news.ts';
import { type AccountStatus, needsPerson } from '../protocol/vocabulary.ts';
import { type Alert, type CalledFor, composeAlert, composeUnclear, type Unclear } from './alert.ts';
import type { AccountRow } from './shapes.ts';

export interface AttentionOptions {
  /** URL that gets a JSON POST. Its path is often a secret: only the host is ever logged. */
  readonly webhook?: string | undefined;
  /** Program and arguments, run without a shell; the alert's text is the last argument, its JSON comes on stdin. */
  readonly command?: readonly string[] | undefined;
  /** Time in which accounts with the same cause share an alert, ms. Default 1000. */
  readonly gatherMs?: number;
}

export interface Attention {
  /** Whether an account with this status may be news; most changes are not, and need no row. */
  concerns(id: string, status: AccountStatus): boolean;
  /** Takes the present state of an account; says something only if it is news. */
  consider(row: AccountRow): void;
  /** A message waits for a person, who has not been called for it. `row`: its account, where it is still served. */
  unclear(news: UnclearNews, row: AccountRow | undefined): void;
  /** The account is no longer served. */
  forget(id: string): void;
  /** Sends what is gathered, gives up retries. */
  close(): Promise<void>;
}

/** Retries after 1, 5, 30, 120 and 600 s: a webhook's restart is bridged, its funeral is not mourned. */
const RETRY_MS = [1_000, 5_000, 30_000, 120_000, 600_000];
const WEBHOOK_TIMEOUT_MS = 10_000;
const COMMAND_TIMEOUT_MS = 30_000;
const CLOSE_WAIT_MS = 3_000;

/** Resolves after `ms` or when `signal` aborts. */
const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  timers.setTimeout(ms, undefined, { signal }).catch(() => {});

/** Watches states; `request` is `fetch` unless a test says otherwise. */
export function createAttention(
  deps: {
    readonly log: Log;
    readonly count: (status: AccountStatus, provider: string) => void;
    readonly request?: typeof fetch;
  },
  options: AttentionOptions = {},
): Attention {
  const request = deps.request ?? fetch;
  const closing = new AbortController();
  // One for each alert on its way.
  setMaxListeners(0, closing.signal);
  /** Account id → what was last called about, kept through `refreshing` and the like until `ready`. */
  const said = new Map<string, string>();
  const gathered = new Map<string, { event: CalledFor; rows: AccountRow[] }>();
  const unclear: Unclear[] = [];
  const sending = new Set<Promise<void>>();
  let gathering: NodeJS.Timeout | undefined;

  const postOnce = async (url: string, alert: Alert): Promise<'sent' | 'again' | 'refused'> => {
    // Not AbortSignal.any with AbortSignal.timeout: the latter can be collected before it fires.
    const cut = new AbortController();
    const overdue = setTimeout(() => cut.abort(), WEBHOOK_TIMEOUT_MS).unref();
    const onClose = (): void => cut.abort();
    closing.signal.addEventListener('abort', onClose);
    if (closing.signal.aborted) cut.abort();
    try {
      const answer = await request(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(alert),
        redirect: 'error',
        signal: cut.signal,
      });
      await answer.body?.cancel();
      if (answer.ok) return 'sent';
      return answer.status >= 500 || answer.status === 429 || answer.status === 408 ? 'again' : 'refused';
    } finally {
      clearTimeout(overdue);
      closing.signal.removeEventListener('abort', onClose);
    }
  };

  const post = async (url: string, alert: Alert): Promise<void> => {
    const { host } = new URL(url);
    for (const delay of [...RETRY_MS, undefined]) {
      const result = await postOnce(url, alert).catch(() => 'again' as const);
      if (result === 'sent' || closing.signal.aborted) return;
      if (result === 'refused' || delay === undefined) break;
      await pause(delay, closing.signal);
      if (closing.signal.aborted) return;
    }
    deps.log.error(
      { event: 'alert_failed', webhook: host, alert: alert.event },
      'alert webhook took no alert',
    );
  };

  const run = (command: readonly string[], alert: Alert): Promise<void> =>
    new Promise((done) => {
      const [program = '', ...args] = command;
      const failed = (why: string): void => {
        deps.log.error({ event: 'alert_failed', command: program, why }, 'alert command failed');
        done();
      };
      // A bare environment: whatever secret the relay was given there is not the command's business.
      const child = spawn(program, [...args, alert.text], {
        stdio: ['pipe', 'ignore', 'ignore'],
        env: { PATH: process.env.PATH, HOME: process.env.HOME, LANG: process.env.LANG },
      });
      // Not spawn's own `timeout`: where the program cannot be started, Node leaves that timer running.
      const overdue = setTimeout(() => child.kill('SIGKILL'), COMMAND_TIMEOUT_MS).unref();
      child.once('error', (err: NodeJS.ErrnoException) => failed(err.code ?? 'cannot start'));
      child.once('exit', (code, signal) => {
        clearTimeout(overdue);
        if (code === 0) done();
        else failed(signal === null ? `exit ${code}` : `killed by ${signal}`);
      });
      // A command that does not read its stdin is no error.
      child.stdin?.on('error', () => {});
      child.stdin?.end(JSON.stringify(alert));
    });

  const send = (alert: Alert): void => {
    const jobs: Promise<void>[] = [];
    if (options.webhook !== undefined) jobs.push(post(options.webhook, alert));
    if (options.command !== undefined && options.command.length > 0) jobs.push(run(options.command, alert));
    for (const job of jobs) {
      sending.add(job);
      void job.finally(() => sending.delete(job));
    }
  };

  const flush = (): void => {
    clearTimeout(gathering);
    gathering = undefined;
    for (const { event, rows } of gathered.values()) send(composeAlert(event, rows, new Date()));
    gathered.clear();
    if (unclear.length > 0) send(composeUnclear(unclear.splice(0), new Date()));
  };
  const flushSoon = (): void => {
    gathering ??= setTimeout(flush, options.gatherMs ?? 1000).unref();
  };

  const gather = (event: CalledFor, row: AccountRow): void => {
    const cause =
      event === 'recovered'
        ? [event, row.provider]
        : [event, row.provider, row.status, row.cause ?? row.cure ?? ''];
    const key = JSON.stringify(cause);
    orMake(gathered, key, () => ({ event, rows: [] })).rows.push(row);
    flushSoon();
  };

  return {
    concerns: (id, status) => needsPerson(status) || said.has(id),
    consider: (row) => {
      const last = said.get(row.id);
      if (needsPerson(row.status)) {
        const trouble = `${row.status} ${row.cure ?? ''}`;
        if (last === trouble) return;
        said.set(row.id, trouble);
        const alert = composeAlert('attention', [row], new Date());
        deps.log.error(
          {
            event: 'attention',
            account: row.id,
            provider: row.provider,
            status: row.status,
            reason: alert.reason,
            cure: alert.cure,
          },
          alert.text,
        );
        deps.count(row.status, row.provider);
        gather('attention', row);
      } else if (last !== undefined && row.status === 'ready') {
        said.delete(row.id);
        deps.log.info(
          { event: 'recovered', account: row.id, provider: row.provider },
          `${row.id} is ready again`,
        );
        gather('recovered', row);
      }
    },
    // The log has it already, by whoever found it.
    unclear: (news, row) => {
      unclear.push({ news, row });
      flushSoon();
    },
    forget: (id) => {
      said.delete(id);
    },
    close: async () => {
      flush();
      // What has not gone out at the first try stays unsent: shutdown does not wait for a dead webhook.
      const firstTry = pause(CLOSE_WAIT_MS, closing.signal);
      await Promise.race([Promise.allSettled(sending), firstTry]);
      closing.abort();
    },
  };
}
