/** `unclear list|delivered|again`: messages of which nobody knows whether Graph sent them. In: the admin API. Out: words. */
import { adminOf } from './admin-client.ts';
import { type CommandDefinition, isSet, jsonOption } from './definition.ts';
import { adminOptions } from './setting-options.ts';
import { printJson, printTable } from './terminal.ts';

const MEANING =
  'After an unclear answer of Microsoft Graph the mail server hears 451 and keeps the message. With graph_permissions read_write its next retry looks at the draft again; with send nothing can be looked at, and the message waits until a person has looked in Sent Items of the mailbox and decides.';

export const unclearList: CommandDefinition = {
  name: 'unclear list',
  summary: 'list messages of which nobody knows whether Microsoft Graph sent them',
  details: [MEANING],
  options: [jsonOption, ...adminOptions('adminReadToken')],
  examples: ['xoauth2-relay unclear list'],
  exitCodes: { 1: 'no relay answers, or a message waits for a person' },
  async run(context) {
    const { terminal } = context;
    const rows = await (await adminOf(context)).unclear();
    if (isSet(context, 'json')) printJson(terminal, { messages: rows });
    else if (rows.length === 0) terminal.print('none');
    else {
      const head = ['key', 'account', 'Message-ID', 'since', 'waits for', 'why'];
      const table = rows.map((row) => [
        row.key,
        row.account ?? '?',
        row.message_id ?? 'none',
        row.since,
        row.clears === 'person' ? 'a person' : 'a retry',
        row.reason,
      ]);
      printTable(terminal, [head.map(terminal.paint.bold), ...table]);
    }
    return rows.some((row) => row.clears === 'person') ? 1 : 0;
  },
};

const decide = (
  decision: 'delivered' | 'again',
  summary: string,
  details: string,
  done: string,
): CommandDefinition => ({
  name: `unclear ${decision}`,
  summary,
  details: [details],
  arguments: [{ name: '<key>', help: 'as "xoauth2-relay unclear list" names it' }],
  options: adminOptions(),
  examples: [`xoauth2-relay unclear ${decision} hP2x0cVfQmB3kL9sT7wYzA1dE5gJ8uNr`],
  exitCodes: { 1: 'no relay answers, no such message, or it is worked on now' },
  async run(context) {
    await (await adminOf(context)).decide(context.arguments[0] ?? '', decision);
    context.terminal.print(done);
    return 0;
  },
});

export const unclearDelivered: CommandDefinition = decide(
  'delivered',
  'say that an unclear message was delivered: it is not sent again',
  'Its next retry by the mail server hears 250, and nothing is sent.',
  'noted: the next retry of the mail server hears 250',
);
export const unclearAgain: CommandDefinition = decide(
  'again',
  'say that an unclear message was not delivered: send it again',
  'Its next retry by the mail server is sent. Look in Sent Items first: if it was delivered, it is delivered twice.',
  'noted: the next retry of the mail server is sent',
);
