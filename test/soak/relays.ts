/** A relay process with a state directory of its own, that can be reloaded and started again; what it takes of memory and descriptors. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Random } from '../sim/random.ts';
import type { AccountEntry, Provider } from '../support/provider.ts';
import { type LogLine, type RelayProcess, startRelay } from '../support/relay-process.ts';

export interface Usage {
  readonly rssMib: number;
  readonly descriptors: number;
}

export interface Ill {
  readonly email: string;
  /** In the relay's words. */
  readonly reason: string;
}

export interface SoakRelay {
  readonly accounts: readonly AccountEntry[];
  /** Undefined while there is no process. */
  readonly port: number | undefined;
  /** When it was killed last, ms since the epoch; 0: never. */
  readonly killedAt: number;
  /** Lines at level error that a soak does not explain. */
  readonly lines: readonly LogLine[];
  usage(): Usage;
  reload(dice: Random): void;
  /** A reload of a file with no account that can be used. */
  spoil(): void;
  /** Ends the process; the result starts it again. */
  restart(signal: 'SIGKILL' | 'SIGTERM'): Promise<() => Promise<void>>;
  /** Accounts that a person must sign in again for, as the relay says. */
  mustSignIn(): Promise<readonly Ill[]>;
  /** Its last log lines about an account's token or logins. */
  history(account: string): readonly LogLine[];
  /** The operator has cured them. */
  retry(accounts: readonly string[]): Promise<void>;
  stop(): Promise<{ readonly code: number | null }>;
}

const HISTORY_LINES = 12;

export async function startSoakRelay(
  provider: Provider,
  users: readonly string[],
  limits: Record<string, unknown>,
): Promise<SoakRelay> {
  const state = mkdtempSync(join(tmpdir(), 'soak-state-'));
  // What a person wrote down once: the provider rotates it.
  const accounts = users.map((user) => provider.entry(user, limits));
  let process: RelayProcess | undefined;
  let killedAt = 0;
  const lines: LogLine[] = [];

  async function start(): Promise<void> {
    process = await startRelay({
      accounts,
      caFile: provider.caFile,
      args: ['--state-dir', state],
      logLevel: 'info',
      until: 'listening',
    });
  }

  await start();
  const ask = (path: string, method = 'GET'): Promise<Response> =>
    fetch(`${process?.adminUrl}${path}`, {
      method,
      headers: { connection: 'close', 'content-type': 'application/json' },
    });
  return {
    accounts,
    get port() {
      return process?.smtpPort;
    },
    get killedAt() {
      return killedAt;
    },
    get lines() {
      return [...lines, ...(process?.lines ?? [])];
    },
    usage() {
      const status = readFileSync(`/proc/${process?.pid}/status`, 'utf8');
      return {
        rssMib: Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024),
        descriptors: readdirSync(`/proc/${process?.pid}/fd`).length,
      };
    },
    reload(dice) {
      const changed = accounts.map((entry, i) =>
        i === 0
          ? {
              ...entry,
              max_connections: dice.between(1, 3),
              senders: [`alias${dice.between(1, 9)}@example.com`],
            }
          : entry,
      );
      process?.writeAccounts(changed);
      process?.signal('SIGHUP');
    },
    spoil() {
      process?.writeAccounts('{ "accounts": [ { "emial": ');
      process?.signal('SIGHUP');
    },
    async restart(signal) {
      const ending = process;
      process = undefined;
      if (signal === 'SIGKILL') killedAt = Date.now();
      ending?.signal(signal);
      await ending?.exited;
      lines.push(...(ending?.lines ?? []));
      await ending?.stop();
      return async () => {
        if (process === undefined) await start();
      };
    },
    async mustSignIn() {
      if (process === undefined) return [];
      const answer = (await (await ask('/admin/accounts')).json()) as {
        readonly accounts: readonly {
          readonly email: string;
          readonly status: string;
          readonly last_error?: unknown;
        }[];
      };
      return answer.accounts
        .filter((a) => a.status === 'needs_consent')
        .map(({ email, last_error }) => ({ email, reason: JSON.stringify(last_error ?? null) }));
    },
    history: (account) =>
      [...lines, ...(process?.lines ?? [])]
        .filter((line) => line.account === account && line.event !== 'transaction')
        .slice(-HISTORY_LINES),
    async retry(ids) {
      for (const id of ids) await ask(`/admin/accounts/${encodeURIComponent(id)}/retry`, 'POST');
    },
    async stop() {
      const ended = (await process?.stop()) ?? { code: 0 };
      lines.push(...(process?.lines ?? []));
      process = undefined;
      rmSync(state, { recursive: true, force: true });
      return ended;
    },
  };
}
