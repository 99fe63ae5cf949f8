/** `manual`: the manual page xoauth2-relay(1) in man(7) format, made of commands, settings, the accounts file's schema and the reply codes. */
import { SECRET_FORMS } from '../accounts/schema.ts';
import { SETTINGS, settingVariable } from '../config/settings.ts';
import { OTHER_VARIABLES } from '../config/variables.ts';
import { type SettingDefinition, settingKey } from '../setting.ts';
import { accountKeys, type KeyRow } from './account-keys.ts';
import type { CommandDefinition } from './definition.ts';
import { REPLY_CODES } from './reply-codes.ts';
import { describeFallback } from './setting-options.ts';

export function createManual(
  commands: () => readonly CommandDefinition[],
  version: string,
): CommandDefinition {
  return {
    name: 'manual',
    summary: 'print the manual page in man format',
    options: [],
    examples: [
      'xoauth2-relay manual | man -l -',
      'xoauth2-relay manual > /usr/local/share/man/man1/xoauth2-relay.1',
    ],
    exitCodes: {},
    async run({ terminal }) {
      terminal.write(formatManual(commands(), version));
      return 0;
    },
  };
}

/** Text as roff: backslashes, leading dots and quotes, hyphens that are to be copied. */
const roff = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('’', "'")
    .replaceAll('–', '\\(en')
    .replaceAll('…', '...')
    .replace(/^([.'])/gm, '\\&$1');

function formatManual(commands: readonly CommandDefinition[], version: string): string {
  const lines = [
    `.TH XOAUTH2\\-RELAY 1 "" "xoauth2\\-relay ${version}" "User Commands"`,
    '.SH NAME',
    'xoauth2\\-relay \\- SMTP relay for Gmail and Microsoft 365 with OAuth2',
    '.SH SYNOPSIS',
    '.B xoauth2\\-relay',
    '.I command',
    '[options]',
    '.SH DESCRIPTION',
    roff(
      'Takes mail by SMTP from a mail server, application or device and relays it to Gmail or Microsoft 365 over an authenticated connection (SASL XOAUTH2). It answers 250 only after the provider has; it keeps no mail itself.',
    ),
    '.SH COMMANDS',
  ];
  for (const { name, arguments: own = [], summary, details = [], options, examples, exitCodes } of commands) {
    lines.push(`.SS ${roff([name, ...own.map((argument) => argument.name)].join(' '))}`, `${roff(summary)}.`);
    for (const paragraph of details) lines.push('.PP', roff(paragraph));
    for (const { name: argument, help } of own) lines.push('.TP', `.I ${roff(argument)}`, roff(help));
    // The settings stand below, once.
    for (const { flags, help, group } of options)
      if (group === undefined) lines.push('.TP', `.B ${roff(flags)}`, roff(help));
    if (options.some(({ group }) => group !== undefined)) lines.push('.PP', 'Takes settings; see SETTINGS.');
    lines.push('.PP', 'Examples:', '.PP', '.nf', '.RS', ...examples.map(roff), '.RE', '.fi');
    const codes = Object.entries(exitCodes).map(([code, meaning]) => `${code}: ${meaning}`);
    if (codes.length > 0) lines.push('.PP', `Exit status ${roff(codes.join('; '))}.`);
  }
  lines.push(
    '.SH SETTINGS',
    'Given as option, in the environment, or as a key of the JSON file that',
    '.B \\-\\-config',
    'names; the first of these counts.',
  );
  for (const [name, definition] of Object.entries(SETTINGS) as [string, SettingDefinition][]) {
    const { help, why, fallback } = definition;
    const because = why === '' ? '' : ` ${why[0]?.toUpperCase()}${why.slice(1)}.`;
    lines.push(
      '.TP',
      `.B ${roff(settingKey(name))}`,
      roff(`${help}${describeFallback(fallback)}.${because}`),
    );
    lines.push('.br', roff(settingVariable(name)));
  }
  lines.push('.SH ENVIRONMENT', 'Beside the settings:');
  for (const [name, help] of OTHER_VARIABLES) lines.push('.TP', roff(name), roff(`${help}.`));
  lines.push(...accountsFileSection());
  lines.push(
    '.SH REPLIES',
    roff('What the client hears. 4xx: its queue keeps the mail. 5xx: it is returned to the sender.'),
  );
  for (const [situation, reply] of REPLY_CODES)
    lines.push('.TP', roff(reply.replaceAll('`', '')), roff(situation.replaceAll('`', '')));
  lines.push(
    '.SH SIGNALS',
    'SIGHUP reads the accounts file again. SIGTERM and SIGINT finish transactions and stop; a second one stops at once.',
    '.SH EXIT STATUS',
    '0 done, 1 failed, 2 usage or configuration wrong; what differs stands with the command.',
    '.SH SEE ALSO',
    'postfix(1), exim(8), msmtp(1), swaks(1)',
    '',
  );
  return lines.join('\n');
}

/** Keys of an account and of a provider, from the schema that also checks them. */
function accountsFileSection(): readonly string[] {
  const { account, provider } = accountKeys();
  const list = (rows: readonly KeyRow[]): readonly string[] =>
    rows.flatMap(({ key, form, help }) => ['.TP', `.B ${roff(key)}`, roff(`${help} (${form})`)]);
  return [
    '.SH ACCOUNTS FILE',
    roff(
      `JSON: { "providers": {…}, "accounts": [ … ] } or an array of accounts. A secret is ${SECRET_FORMS}. The command schema prints the JSON Schema for editors, account add writes entries.`,
    ),
    '.PP',
    'Keys of an account:',
    ...list(account),
    '.PP',
    'Keys of a provider:',
    ...list(provider),
  ];
}
