/** `account show|refresh|drain|resume|invite`: one account of the running relay. In: its admin API. Out: words and an exit code. */

import type { AccountDetail } from '../admin/shapes.ts';
import { isLoopbackHost } from '../protocol/cidr.ts';
import { shownStatus } from '../protocol/vocabulary.ts';
import { adminOf, createAdminClient } from './admin-client.ts';
import {
  accountArgument,
  type CommandContext,
  type CommandDefinition,
  isSet,
  jsonOption,
} from './definition.ts';
import { adminOptions, commandSettings } from './setting-options.ts';
import { describeAccount, isUnusable } from './status.ts';
import { printJson, printTable, type Terminal } from './terminal.ts';

async function show(context: CommandContext, detail: AccountDetail): Promise<number> {
  if (isSet(context, 'json')) printJson(context.terminal, detail);
  else printTable(context.terminal, rowsOf(context.terminal, detail));
  return isUnusable(detail) ? 1 : 0;
}

function rowsOf(terminal: Terminal, detail: AccountDetail): readonly (readonly string[])[] {
  const { token, pool, messages } = detail;
  const rate = (count: number | null, unit: string): string => (count === null ? '' : `, ${count} ${unit}`);
  const rows: readonly (readonly [string, string | null])[] = [
    ['status', describeAccount(terminal, detail)],
    ['why', detail.reason],
    ['cure', detail.cure],
    ['until', detail.until],
    ['provider', `${detail.provider}, ${detail.smtp}, as ${detail.user}`],
    ['senders', detail.senders.join(' ')],
    ['preference', detail.group.length === 0 ? null : `${detail.preference}`],
    ['shares with', detail.group.map((a) => `${a.id} (${a.preference}, ${shownStatus(a)})`).join(' ')],
    ['token', token.expires_in_s === null ? 'none' : `${Math.round(token.expires_in_s / 60)} min left`],
    ['connections', `${pool.busy} busy, ${pool.idle} idle, at most ${pool.max}`],
    ['messages', `${messages.relayed} relayed, ${messages.deferred} deferred, ${messages.rejected} rejected`],
    [
      'limits',
      `${detail.max_recipients} recipients${rate(detail.messages_per_minute, 'a minute')}${rate(detail.messages_per_day, 'a day')}`,
    ],
    ['last error', detail.last_error === null ? null : `${detail.last_error} (${detail.last_error_at})`],
  ];
  return [
    [terminal.paint.bold(detail.id), ''],
    ...rows.filter((row): row is [string, string] => row[1] !== null && row[1] !== ''),
  ];
}

export const accountShow: CommandDefinition = {
  name: 'account show',
  summary: 'show one account of the running relay: status, why, cure, limits',
  arguments: accountArgument,
  options: [jsonOption, ...adminOptions('adminReadToken')],
  examples: ['xoauth2-relay account show alice@example.com'],
  exitCodes: { 1: 'no relay answers, no such account, or it needs somebody' },
  run: async (context) => show(context, await (await adminOf(context)).account(context.arguments[0] ?? '')),
};

/** A command that acts on one account and shows what became of it. */
function action(
  name: 'refresh' | 'drain' | 'resume',
  summary: string,
  details: readonly string[],
): CommandDefinition {
  return {
    name: `account ${name}`,
    summary,
    details,
    arguments: accountArgument,
    options: [jsonOption, ...adminOptions()],
    examples: [`xoauth2-relay account ${name} alice@example.com`],
    exitCodes: { 1: 'no relay answers, no such account, or it cannot be done' },
    async run(context) {
      const client = await adminOf(context);
      const id = context.arguments[0] ?? '';
      await client.act(id, name);
      const exitCode = await show(context, await client.account(id));
      return name === 'refresh' ? exitCode : 0;
    },
  };
}

export const accountRefresh: CommandDefinition = action(
  'refresh',
  'fetch a new token for an account of the running relay now',
  ['What was paused for the account is tried again at once.'],
);
export const accountDrain: CommandDefinition = action(
  'drain',
  'let an account of the running relay take no new message until it is resumed',
  [
    'Its senders hear 451 meanwhile, so that their mail waits. A restart leaves it so where the relay has --state-dir or Redis, else it resumes it.',
  ],
);
export const accountResume: CommandDefinition = action(
  'resume',
  'let a drained account of the running relay take messages again',
  [],
);

export const accountInvite: CommandDefinition = {
  name: 'account invite',
  summary: 'print a link with which the owner of a mailbox signs in once, within a day',
  details: [
    'Whoever has the link can do that and nothing else. The key stands behind #, where neither servers nor their logs see it; another invitation for the account ends this one.',
    'The link begins with --admin-url, the address under which browsers reach the relay (behind TLS), else with the admin address.',
  ],
  arguments: accountArgument,
  options: [jsonOption, ...adminOptions('adminUrl')],
  examples: [
    'xoauth2-relay account invite alice@example.com',
    'xoauth2-relay account invite alice@example.com --admin-url https://relay.example.org',
  ],
  exitCodes: { 1: 'no relay answers, no such account, or nobody can sign in to it' },
  async run(context) {
    const { terminal } = context;
    const settings = await commandSettings(context);
    const client = createAdminClient(settings);
    const invitation = await client.invite(context.arguments[0] ?? '');
    const base = settings.adminUrl ?? client.url;
    if (isSet(context, 'json'))
      terminal.print(JSON.stringify({ ...invitation, url: base + invitation.path }));
    else terminal.print(base + invitation.path);
    terminal.note(`good for one sign-in until ${invitation.until}`);
    if (isLoopbackHost(new URL(base).hostname))
      terminal.note(
        'it opens on this host only: put TLS in front of the admin address and name it with --admin-url',
      );
    return 0;
  },
};
