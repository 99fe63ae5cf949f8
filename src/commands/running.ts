/** `status`, `reload`, `stop`: a relay that runs, seen from outside. In: its admin API, its pid file. */
import { readFile } from 'node:fs/promises';
import { type AccountRow, createAdminClient } from './admin-client.ts';
import { pidFileOf, pidFileOption } from './background.ts';
import { type CommandDefinition, CommandError, isSet, numberOption } from './definition.ts';
import { commandSettings, settingOptions } from './setting-options.ts';
import { formatTable, type Terminal } from './terminal.ts';
import { waitUntil } from './wait-until.ts';

const adminOptions = settingOptions(['adminHost', 'adminPort', 'adminToken', 'adminReadToken']);
const WATCH_MS = 1_000;

export const status: CommandDefinition = {
  name: 'status',
  summary: 'show the accounts of the running relay',
  options: [
    { flags: '-w, --watch', help: 'show anew every second until interrupted' },
    { flags: '--json', help: 'print the answer of the admin API' },
    ...adminOptions,
  ],
  examples: ['xoauth2-relay status', 'xoauth2-relay status --watch', 'xoauth2-relay status --json'],
  exitCodes: { 1: 'no relay answers, or some account is not usable' },
  async run(context) {
    const { terminal } = context;
    const client = createAdminClient(await commandSettings(context));
    const show = async (): Promise<number> => {
      const accounts = await client.accounts();
      if (isSet(context, 'json')) terminal.print(JSON.stringify({ accounts }, null, 2));
      else {
        if (isSet(context, 'watch') && terminal.isLive) terminal.write('\x1b[H\x1b[2J');
        showAccounts(terminal, accounts);
      }
      return accounts.some((row) => NEEDS_SOMEBODY.includes(row.status)) ? 1 : 0;
    };
    if (!isSet(context, 'watch')) return show();
    for (;;) {
      await show();
      await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    }
  },
};

const NEEDS_SOMEBODY = ['needs_consent', 'misconfigured', 'unreachable'];

function showAccounts(terminal: Terminal, accounts: readonly AccountRow[]): void {
  const { paint } = terminal;
  const colour = (row: AccountRow): string =>
    row.status === 'ready'
      ? paint.green(row.status)
      : NEEDS_SOMEBODY.includes(row.status)
        ? paint.red(row.status)
        : paint.yellow(row.status);
  const life = (seconds: number | null): string =>
    seconds === null ? '-' : seconds < 0 ? 'over' : `${Math.floor(seconds / 60)} min`;
  const rows = accounts.map((row) => [
    row.id,
    row.provider,
    colour(row),
    life(row.token.expires_in_s),
    `${row.pool.busy}/${row.pool.idle}/${row.pool.max}`,
    String(row.messages.relayed),
    String(row.messages.deferred),
    String(row.messages.rejected),
  ]);
  const header = [
    'account',
    'provider',
    'status',
    'token',
    'busy/idle/max',
    'relayed',
    'deferred',
    'rejected',
  ];
  for (const line of formatTable([header, ...rows])) terminal.print(line);
  for (const row of accounts) {
    if (row.status === 'ready') continue;
    const why = row.reason ?? row.last_error;
    if (why !== null) terminal.print(`${row.id}: ${why}${row.cure === null ? '' : ` — ${row.cure}`}`);
  }
}

export const reload: CommandDefinition = {
  name: 'reload',
  summary: 'let the running relay read its accounts file again',
  details: ['A broken file changes nothing and is reported.'],
  options: [{ flags: '--json', help: 'print the answer of the admin API' }, ...adminOptions],
  examples: ['xoauth2-relay reload'],
  exitCodes: { 1: 'no relay answers, or the file was refused or holds bad accounts' },
  async run(context) {
    const { terminal } = context;
    const result = await createAdminClient(await commandSettings(context)).reload();
    if (isSet(context, 'json')) terminal.print(JSON.stringify(result, null, 2));
    else {
      for (const kind of ['added', 'changed', 'removed', 'untouched'] as const)
        terminal.print(
          `${kind}: ${result[kind].length}${kind === 'untouched' ? '' : ` ${result[kind].join(' ')}`}`.trimEnd(),
        );
      for (const { path, message } of result.errors) terminal.note(`${path}: ${message}`);
    }
    return result.ok && result.errors.length === 0 ? 0 : 1;
  },
};

/** Above the default drain deadline of 30 s. */
const STOP_TIMEOUT_MS = 40_000;

export const stop: CommandDefinition = {
  name: 'stop',
  summary: 'stop a relay that was started with start; transactions finish first',
  options: [
    pidFileOption,
    { flags: '--timeout-ms <number>', help: `longest wait for its end, ms (default ${STOP_TIMEOUT_MS})` },
    ...settingOptions(['stateDir']),
  ],
  examples: ['xoauth2-relay stop'],
  exitCodes: { 1: 'no such process, or it did not end in time' },
  async run(context) {
    const path = pidFileOf(context, await commandSettings(context));
    const pid = await readPid(path);
    if (pid === undefined || !(await isRelay(pid))) throw new CommandError(`no relay is running (${path})`);
    process.kill(pid, 'SIGTERM');
    const timeoutMs = numberOption(context, 'timeoutMs', '--timeout-ms', STOP_TIMEOUT_MS);
    if (!(await waitUntil(() => !isAlive(pid), timeoutMs)))
      throw new CommandError(
        `process ${pid} has not ended within ${timeoutMs} ms; a second stop signal cuts: kill ${pid}`,
      );
    context.terminal.print('stopped');
    return 0;
  },
};

/** The process id in a pid file; undefined where there is none. */
export async function readPid(path: string): Promise<number | undefined> {
  const text = await readFile(path, 'utf8').catch(() => '');
  const pid = Number(text.trim());
  return Number.isInteger(pid) && pid > 1 ? pid : undefined;
}

/** Whether `pid` is a relay that `start` made: a number in an old pid file may be another program's by now. */
export async function isRelay(pid: number): Promise<boolean> {
  if (!isAlive(pid)) return false;
  const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => undefined);
  // Without /proc there is nothing better to go by.
  return commandLine === undefined || /\0serve\0/.test(`${commandLine}\0`);
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
