/** What every bench stands on: child processes with their costs, the relay as a user starts it, a table. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { issueCertificate, testAuthority } from '../support/certificate.ts';
import { repositoryRoot } from '../support/relay-process.ts';
import type { TokenEndpoint } from '../support/token-endpoint.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Table } from './baseline.ts';

export const MIB = 1_048_576;

export const directory = mkdtempSync(join(tmpdir(), 'relay-bench-'));
const children: ChildProcess[] = [];
export const median = (values: readonly number[]): number => quantile(values, 0.5);
export const quantile = (values: readonly number[], part: number): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length * part)] ?? 0;
/** Of all its threads, to the nanosecond: ticks of 10 ms would be a tenth of a short round. */
export const cpuSeconds = (pid: number): number =>
  readdirSync(`/proc/${pid}/task`)
    .map((thread) => Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0]))
    .reduce((sum, ns) => sum + ns, 0) / 1e9;
export const rssMiB = (pid: number, which: 'VmRSS' | 'VmHWM'): number =>
  Number(new RegExp(`${which}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) /
  1024;

/** Lines of 76 characters, as base64 makes them. */
export const bodyOf = (octets: number): Buffer => {
  const head = 'From: ann@example.com\r\nTo: bob@example.net\r\nSubject: bench\r\n\r\n';
  return Buffer.from(
    head + `${'QUJD'.repeat(19)}\r\n`.repeat(Math.max(1, Math.round((octets - head.length) / 78))),
  );
};

export async function helper(name: string, args: readonly string[]): Promise<{ port: number; pid: number }> {
  const child = spawn(process.execPath, [fileURLToPath(new URL(`./${name}.js`, import.meta.url)), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const port = await new Promise<number>((resolve, reject) => {
    child.stdout?.once('data', (line: Buffer) => resolve(Number(line.toString())));
    child.once('exit', () => reject(new Error(`${name} ended`)));
  });
  return { port, pid: child.pid ?? 0 };
}

/** A program that is ended with the bench; its process id. */
export function spawnChild(program: string, args: readonly string[]): number {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  children.push(child);
  return child.pid ?? 0;
}

/** Whether somebody listens there. */
export const isOpen = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });

/** An entry of the accounts file at a sink; without the pauses and limits that a provider's own sending would need. */
export function benchEntry(
  tokens: Pick<TokenEndpoint, 'account' | 'add' | 'url'>,
  email: string,
  port: number,
  more: object = {},
): object {
  const account = tokens.account(email) ?? tokens.add(email);
  return {
    email,
    provider: 'gmail',
    client_id: account.clientId,
    client_secret: account.clientSecret,
    refresh_token: account.refreshToken,
    token_url: tokens.url,
    smtp: `smtps://localhost:${port}`,
    login_interval_ms: 0,
    ...more,
  };
}

export interface Relay {
  readonly smtp: number;
  readonly pid: number;
  readonly admin: number;
  /** From spawning to the port being there. */
  readonly listeningMs: number;
  /** Its accounts file. */
  readonly accounts: string;
  /** Reloads so far. */
  reloads(): number;
  /** The first round of tokens and connections is over. */
  ready(): Promise<{ readonly ms: number; readonly warm: number }>;
  /** The longest its event loop has been busy since the question before, ms. Only where it is watched. */
  longestTurn(): Promise<number>;
  /** Resolves with the milliseconds it took. */
  stop(): Promise<number>;
}

/** Longest that a relay with 100,000 accounts takes on a busy machine, ms. */
const PATIENCE_MS = 1_200_000;

/** Begins a relay as a user starts it; resolves when it listens. `isWatched`: it can tell how busy its loop was. */
export async function beginRelay(
  accounts: readonly object[],
  more: readonly string[] = [],
  { isWatched = false }: { readonly isWatched?: boolean } = {},
): Promise<Relay> {
  const file = join(directory, `accounts-${children.length}.json`);
  const log = join(directory, `log-${children.length}`);
  writeFileSync(file, JSON.stringify(accounts), { mode: 0o600 });
  const out = openSync(log, 'w');
  const startedAt = Date.now();
  const child = spawn(
    process.execPath,
    [
      ...(isWatched ? ['--import', new URL('./loop-watch.js', import.meta.url).href] : []),
      join(repositoryRoot, 'bin/xoauth2-relay.js'),
      'serve',
      '--accounts',
      file,
      '--port',
      '0',
      '--admin-port',
      '0',
      ...more,
    ],
    {
      stdio: ['ignore', out, 'inherit', ...(isWatched ? (['ipc'] as const) : [])],
      env: { ...process.env, NODE_EXTRA_CA_CERTS: testAuthority().file },
    },
  );
  closeSync(out);
  const events = followLog(log, ['listening', 'ready', 'reloaded']);
  children.push(child);
  const ended = new Promise<never>((_, reject) => {
    child.once('exit', (code) => reject(new Error(`the relay ended with ${code}`)));
  });
  ended.catch(() => {});
  const event = async (name: string): Promise<Record<string, unknown>> =>
    Promise.race([
      ended,
      waitFor(() => events(name)[0], {
        timeoutMs: PATIENCE_MS,
        everyMs: 20,
        what: `the relay being ${name}`,
      }),
    ]);
  const listening = (await event('listening')) as unknown as Record<'smtp' | 'admin', { port: number }> & {
    time: string;
  };
  return {
    smtp: listening.smtp.port,
    admin: listening.admin.port,
    pid: child.pid ?? 0,
    listeningMs: new Date(listening.time).getTime() - startedAt,
    accounts: file,
    reloads: () => events('reloaded').length,
    async ready() {
      const { ms, warm } = await event('ready');
      return { ms: Number(ms), warm: Number(warm) };
    },
    longestTurn: () =>
      new Promise((resolve) => {
        child.once('message', (ms) => resolve(Number(ms)));
        child.send('longest');
      }),
    stop: () =>
      new Promise((resolve) => {
        const askedAt = performance.now();
        child.once('exit', () => resolve(performance.now() - askedAt));
        child.kill('SIGTERM');
      }),
  };
}

/** A relay that is ready. */
export async function startRelay(
  accounts: readonly object[],
  more: readonly string[] = [],
): Promise<Relay & { readonly readyMs: number; readonly warm: number }> {
  const relay = await beginRelay(accounts, more);
  const { ms, warm } = await relay.ready();
  return { ...relay, readyMs: ms, warm };
}

/** Reads a log as it grows: what stands in it is read once, however often somebody asks. */
function followLog(
  file: string,
  names: readonly string[],
): (name: string) => readonly Record<string, unknown>[] {
  const fd = openSync(file, 'r');
  const found = new Map(names.map((name) => [name, [] as Record<string, unknown>[]]));
  const chunk = Buffer.alloc(MIB);
  let rest = '';
  return (name) => {
    for (let read = readSync(fd, chunk); read > 0; read = readSync(fd, chunk)) {
      const lines = (rest + chunk.toString('utf8', 0, read)).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const event = /"event":"(\w+)"/.exec(line)?.[1] ?? '';
        found.get(event)?.push(JSON.parse(line));
      }
    }
    return found.get(name) ?? [];
  };
}

/** Upstream round trips of a transaction, mean of all so far. */
export async function flights(relay: Relay): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${relay.admin}/metrics`, { headers: { connection: 'close' } });
  const text = await answer.text();
  const total = (name: string): number =>
    [...text.matchAll(new RegExp(`^xoauth2_relay_transaction_flights_${name}(?:{[^}]*})? (\\S+)$`, 'gm'))]
      .map((match) => Number(match[1]))
      .reduce((sum, value) => sum + value, 0);
  return `${(total('sum') / total('count')).toFixed(3)} of ${total('count')} messages`;
}

/** All tables of this run. */
export const printed: Table[] = [];

export function table(title: string, rows: readonly (readonly string[])[]): void {
  printed.push({ title, rows });
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((r) => r[i]?.length ?? 0))) ?? [];
  console.log(`\n${title}`);
  for (const row of rows) console.log(`  ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('   ')}`);
}

/** Certificate and key of an upstream, as files. */
export function certificateFiles(): readonly [string, string] {
  const certificate = issueCertificate();
  const files = [join(directory, 'cert.pem'), join(directory, 'key.pem')] as const;
  writeFileSync(files[0], certificate.certPem);
  writeFileSync(files[1], certificate.keyPem);
  return files;
}

/** Ends what is still running and removes the files. */
export function clear(): void {
  for (const child of children) if (child.exitCode === null) child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
}
