/** `status`: the accounts of a running relay, those that need somebody first. In: its admin API, its pid file. Out: at most the width of the terminal. */
import { readFile } from 'node:fs/promises';
import type { AccountRow, FleetView } from '../admin/shapes.ts';
import { pause, systemClock } from '../clock.ts';
import { needsPerson, SHOWN_ORDER, shownStatus } from '../protocol/vocabulary.ts';
import { createAdminClient } from './admin-client.ts';
import { pidFileOf, pidFileOption } from './background-files.ts';
import { type CommandDefinition, isSet, jsonOption, option } from './definition.ts';
import { findRelay, type RunningRelay } from './pid-file.ts';
import { adminOptions, commandSettings } from './setting-options.ts';
import { formatTable, printJson, type Terminal, visibleLength } from './terminal.ts';

const WATCH_MS = 1_000;
/** Whether mail of the account waits until somebody, here or at the provider, does something. */
export const isUnusable = ({ status }: Pick<AccountRow, 'status'>): boolean =>
  needsPerson(status) || status === 'unreachable';

export const status: CommandDefinition = {
  name: 'status',
  summary: 'show the accounts of the running relay, those that need somebody first',
  details: [
    'The column "token" says how long the access token is good for, "conn" how many upstream connections are busy, idle and allowed.',
  ],
  options: [
    option('-w, --watch', 'show anew every second until interrupted'),
    jsonOption,
    pidFileOption,
    ...adminOptions('adminReadToken', 'stateDir'),
  ],
  examples: ['xoauth2-relay status', 'xoauth2-relay status --watch', 'xoauth2-relay status --json'],
  exitCodes: { 1: 'no relay answers, or some account is not usable' },
  async run(context) {
    const { terminal } = context;
    const settings = await commandSettings(context);
    const client = createAdminClient(settings);
    const show = async (): Promise<number> => {
      // A relay of another version may have no word for it.
      const fleet = client.fleet().catch(() => undefined);
      const accounts = await client.accounts();
      if (isSet(context, 'json')) printJson(terminal, { accounts });
      else {
        const lines = [
          await describeProcess(client.url, await findRelay(pidFileOf(context, settings))),
          ...describeFleet(terminal, await fleet),
          ...formatAccounts(terminal, accounts),
        ];
        const isWatching = isSet(context, 'watch') && terminal.isLive;
        if (isWatching) terminal.write('\x1b[H\x1b[2J');
        for (const line of isWatching ? cut(lines, terminal.rows - 1) : lines) terminal.print(line);
      }
      return accounts.some((row) => isUnusable(row)) ? 1 : 0;
    };
    for (;;) {
      const code = await show();
      if (!isSet(context, 'watch') || terminal.unread.aborted) return code;
      await pause(systemClock, WATCH_MS);
    }
  },
};

/** Address, and of a relay in the background pid, uptime and memory. */
async function describeProcess(url: string, relay: RunningRelay | undefined): Promise<string> {
  if (relay === undefined) return url;
  const { pid, started } = relay;
  const read = (name: string): Promise<string> => readFile(`/proc/${name}`, 'utf8').catch(() => '');
  const [status, uptime] = await Promise.all([read(`${pid}/status`), read('uptime')]);
  const memory = /VmRSS:\s+(\d+) kB/.exec(status)?.[1];
  const seconds = Number.parseFloat(uptime) - Number.parseInt(started, 10) / 100;
  return [
    url,
    `process ${pid}`,
    ...(Number.isFinite(seconds) ? [`up ${formatSpan(seconds)}`] : []),
    ...(memory === undefined ? [] : [`${Math.round(Number(memory) / 1024)} MiB`]),
  ].join(', ');
}

/** Nothing while all is as it should be. */
const describeFleet = ({ paint }: Terminal, fleet: FleetView | undefined): readonly string[] =>
  fleet?.shared === true && fleet.apart
    ? [
        paint.yellow(
          `Redis is away: this relay keeps to its share, ${Math.round(fleet.share * 100)} % of every limit`,
        ),
      ]
    : [];

/** `4 min`, `3 h`, `12 d`. */
const formatSpan = (seconds: number): string =>
  seconds < 5400
    ? `${Math.floor(seconds / 60)} min`
    : seconds < 172_800
      ? `${Math.floor(seconds / 3600)} h`
      : `${Math.floor(seconds / 86_400)} d`;

/** The status in words and colour; what is paused until when, and that it is drained, stand with it. */
export function describeAccount({ paint }: Terminal, row: AccountRow): string {
  if (shownStatus(row) === 'drained') return paint.yellow('drained');
  const colour = row.status === 'ready' ? paint.green : isUnusable(row) ? paint.red : paint.yellow;
  const until = row.until === null ? '' : ` until ${new Date(row.until).toTimeString().slice(0, 5)}`;
  return colour(row.status + (row.drained ? ', drained' : until));
}

export function formatAccounts(terminal: Terminal, accounts: readonly AccountRow[]): readonly string[] {
  const rank = (row: AccountRow): number => SHOWN_ORDER.indexOf(shownStatus(row));
  const sorted = [...accounts].sort((a, b) => rank(a) - rank(b));
  const life = (seconds: number | null): string =>
    seconds === null ? '-' : seconds < 0 ? 'over' : `${Math.floor(seconds / 60)} min`;
  const rows = sorted.map((row) => [
    row.id,
    describeAccount(terminal, row),
    life(row.token.expires_in_s),
    `${row.pool.busy}/${row.pool.idle}/${row.pool.max}`,
    String(row.messages.relayed),
    String(row.messages.deferred),
    String(row.messages.rejected),
  ]);
  const header = ['account', 'status', 'token', 'conn', 'relayed', 'defer', 'reject'];
  const others = Math.max(
    0,
    ...formatTable([header, ...rows].map((row) => ['', ...row.slice(1)])).map(visibleLength),
  );
  // Long addresses give way, so that the rest of the line stands.
  const room = Math.max(16, terminal.columns - others);
  const short = (id: string): string => (id.length <= room ? id : `${id.slice(0, room - 1)}…`);
  const lines = formatTable([header, ...rows].map(([id = '', ...rest]) => [short(id), ...rest]));
  for (const row of sorted) {
    const why = row.reason ?? row.last_error;
    if (row.status === 'ready' || why === null) continue;
    lines.push(...wrap(`${row.id}: ${why}${row.cure === null ? '' : ` — ${row.cure}`}`, terminal.columns));
  }
  return lines;
}

/** Lines of at most `width` columns, broken between words, the second and further ones indented. */
function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = `  ${word}`;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

function cut(lines: readonly string[], rows: number): readonly string[] {
  if (lines.length <= rows) return lines;
  return [
    ...lines.slice(0, rows - 1),
    `… ${lines.length - rows + 1} more lines; status without --watch shows all`,
  ];
}
