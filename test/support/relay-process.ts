/**
 * The relay as its users run it: `bin/xoauth2-relay.js serve` as a child process with an accounts file
 * of its own. In: accounts. Out: addresses, log lines, exit. Owns the child and a temporary directory.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { AccountEntry } from './provider.ts';
import { PATIENCE_MS, waitFor, within } from './wait-for.ts';

/** The repository, seen from where the compiled test support lies. */
export const repositoryRoot: string = fileURLToPath(new URL('../../../', import.meta.url));

/** One JSON line of the log. */
export type LogLine = Record<string, unknown> & { readonly event?: string; readonly msg?: string };

export interface RelayOptions {
  readonly accounts: readonly AccountEntry[] | string;
  /** `caFile` of the provider simulator. */
  readonly caFile: string;
  /** Further arguments of `serve`. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Default `debug`. */
  readonly logLevel?: string;
  /** What to wait for before returning; default `ready`. */
  readonly until?: 'listening' | 'ready';
  /** Open descriptors handed over as 3, 4, …, as socket activation does. */
  readonly descriptors?: readonly number[];
  /** Runs this file instead of `bin/xoauth2-relay.js`. */
  readonly bin?: string;
  /** Another Node than the one that runs the tests. */
  readonly node?: string;
}

export interface RelayProcess {
  readonly smtpPort: number;
  readonly adminPort: number;
  /** `http://127.0.0.1:<port>` of the admin API. */
  readonly adminUrl: string;
  readonly pid: number;
  readonly accountsFile: string;
  /** Parsed stdout lines so far. */
  readonly lines: readonly LogLine[];
  /** Everything on stdout and stderr, as it came. */
  output(): string;
  /** The first line that `matches`, from `from` on; rejects after `timeoutMs` (default `PATIENCE_MS`). */
  line(
    matches: (line: LogLine) => boolean,
    options?: { from?: number; timeoutMs?: number },
  ): Promise<LogLine>;
  event(name: string, options?: { from?: number; timeoutMs?: number }): Promise<LogLine>;
  /** Replaces the accounts file; text is written as it is. */
  writeAccounts(accounts: readonly AccountEntry[] | string): void;
  /** Writes the accounts, sends SIGHUP and waits for the line that reports the reload. */
  reload(accounts: readonly AccountEntry[] | string): Promise<LogLine>;
  /** Parsed JSON of a GET to the admin API. */
  admin<T = Record<string, unknown>>(path: string): Promise<T>;
  signal(name: NodeJS.Signals): void;
  /** Resolves with exit code and signal. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** SIGTERM, SIGKILL after 10 s; removes the directory. Idempotent. */
  stop(): Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/** The port in what a log line says of an address: `host:port`, `{ port }` or a list of such. */
function portOf(address: unknown): number | undefined {
  if (typeof address === 'string') {
    const match = /:(\d+)\/?$/.exec(address);
    return match === null ? undefined : Number(match[1]);
  }
  if (Array.isArray(address)) return portOf(address[0]);
  if (typeof address === 'object' && address !== null && 'port' in address) return Number(address.port);
  return undefined;
}

export async function startRelay(options: RelayOptions): Promise<RelayProcess> {
  const directory = mkdtempSync(join(tmpdir(), 'relay-test-'));
  const accountsFile = join(directory, 'accounts.json');
  const writeAccounts = (accounts: readonly AccountEntry[] | string): void => {
    const text = typeof accounts === 'string' ? accounts : JSON.stringify({ accounts }, null, 2);
    writeFileSync(accountsFile, text, { mode: 0o600 });
  };
  writeAccounts(options.accounts);
  const args = [
    options.bin ?? join(repositoryRoot, 'bin/xoauth2-relay.js'),
    'serve',
    ...['--accounts', accountsFile, '--host', '127.0.0.1', '--port', '0'],
    ...['--admin-port', '0', '--log-level', options.logLevel ?? 'debug'],
    ...(options.args ?? []),
  ];
  const child: ChildProcess = spawn(options.node ?? process.execPath, args, {
    cwd: directory,
    env: { ...process.env, NODE_EXTRA_CA_CERTS: options.caFile, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe', ...(options.descriptors ?? [])],
  });
  const lines: LogLine[] = [];
  let output = '';
  const { stdout, stderr } = child;
  if (stdout === null || stderr === null) throw new Error('no pipes');
  createInterface({ input: stdout }).on('line', (text) => {
    output += `${text}\n`;
    try {
      lines.push(JSON.parse(text) as LogLine);
    } catch {
      lines.push({ unparsed: text });
    }
  });
  stderr.on('data', (chunk) => {
    output += String(chunk);
  });
  let gone = false;
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once('close', (code, signal) => {
      gone = true;
      resolve({ code, signal });
    });
  });
  const line: RelayProcess['line'] = (matches, { from = 0, timeoutMs = PATIENCE_MS } = {}) =>
    waitFor(
      () => {
        const found = lines.slice(from).find(matches);
        if (found === undefined && gone) throw new Error(`the relay has ended:\n${output.slice(-4000)}`);
        return found;
      },
      { timeoutMs, what: 'the log line' },
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${output.slice(-4000)}`);
    });
  const event: RelayProcess['event'] = (name, waitOptions) => line((l) => l.event === name, waitOptions);
  const stop = async (): ReturnType<RelayProcess['stop']> => {
    if (!gone) child.kill('SIGTERM');
    const result = await within(exited, 10_000, 'exit after SIGTERM').catch(() => {
      child.kill('SIGKILL');
      return exited;
    });
    rmSync(directory, { recursive: true, force: true });
    return result;
  };
  try {
    const listening = await event('listening');
    if ((options.until ?? 'ready') === 'ready') await event('ready');
    const smtpPort = portOf(listening.smtp);
    const adminPort = portOf(listening.admin);
    if (smtpPort === undefined || adminPort === undefined) {
      throw new Error(`no addresses in ${JSON.stringify(listening)}`);
    }
    const adminUrl = `http://127.0.0.1:${adminPort}`;
    return {
      smtpPort,
      adminPort,
      adminUrl,
      pid: child.pid ?? 0,
      accountsFile,
      lines,
      output: () => output,
      line,
      event,
      writeAccounts,
      async reload(accounts) {
        const from = lines.length;
        writeAccounts(accounts);
        child.kill('SIGHUP');
        return line((l) => l.event === 'reloaded' || l.event === 'reload_failed', { from });
      },
      async admin<T>(path: string): Promise<T> {
        const response = await fetch(adminUrl + path, { headers: { connection: 'close' } });
        return (await response.json()) as T;
      },
      signal: (name) => void child.kill(name),
      exited,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
