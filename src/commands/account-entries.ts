/** `account list`, `account remove`, `account import`: the accounts file without an editor. */
import { accountEntries, appendAccount, removeAccount } from '../accounts/accounts-edit.ts';
import { readAccountsFile } from '../accounts/accounts-file.ts';
import {
  editAccounts,
  findAccount,
  mistakesOf,
  parseAt,
  readOrEmpty,
  readWhole,
} from '../enrol/accounts-on-disk.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { cleanText } from '../protocol/text.ts';
import { showProblems } from './check.ts';
import { accountArgument, type CommandDefinition, EXIT_CONFIGURATION, isSet, option } from './definition.ts';
import { convertEarlierAccount } from './earlier-tools.ts';
import { noteOtherFile } from './other-file.ts';
import { reloadRunning } from './reload-running.ts';
import { adminOptions, commandSettings } from './setting-options.ts';
import { printJson, printTable } from './terminal.ts';

const running = adminOptions('accounts');

export const accountList: CommandDefinition = {
  name: 'account list',
  summary: 'list the accounts of the accounts file',
  options: [option('--json', 'print the list as JSON'), ...running],
  examples: ['xoauth2-relay account list', 'xoauth2-relay account list --json | jq -r .accounts[].email'],
  exitCodes: { 1: 'some account of the file cannot be used' },
  async run(context) {
    const { terminal } = context;
    const settings = await commandSettings(context);
    const file = await readAccountsFile(settings.accounts, context.env);
    await noteOtherFile(settings, terminal);
    const rows = [
      ...file.accounts.map(({ account, credential }) => ({ account, grant: credential.grant, usable: true })),
      ...file.unusable.map(({ account }) => ({ account, grant: '', usable: false })),
    ].map(({ account, grant, usable }) => ({
      id: account.id,
      email: account.email,
      provider: account.provider,
      grant,
      senders: account.senders,
      password: account.clientPassword !== undefined,
      usable,
    }));
    if (isSet(context, 'json')) printJson(terminal, { accounts: rows });
    else {
      // Of an entry that cannot be used anything may stand there.
      const cells = rows.map((row) => [
        cleanText(row.id),
        cleanText(row.email),
        cleanText(row.provider),
        row.usable ? row.grant : terminal.paint.red('unusable'),
        row.password ? 'password' : '',
        row.senders.slice(1).join(' '),
      ]);
      printTable(terminal, [['id', 'email', 'provider', 'grant', 'client', 'further senders'], ...cells]);
      showProblems(terminal, settings.accounts, file.problems, file.warnings);
    }
    return file.problems.length > 0 ? 1 : 0;
  },
};

export const accountRemove: CommandDefinition = {
  name: 'account remove',
  summary: 'remove an account from the accounts file',
  details: ['The consent at the provider stays; revoke it there.'],
  arguments: accountArgument,
  options: [option('-y, --yes', 'do not ask'), ...running],
  examples: ['xoauth2-relay account remove alice@example.com'],
  exitCodes: { 1: 'not removed' },
  async run(context) {
    const { terminal } = context;
    const settings = await commandSettings(context);
    await noteOtherFile(settings, terminal);
    const text = await readWhole(settings.accounts);
    const name = context.arguments[0] ?? '';
    const index = findAccount(text, name);
    if (index < 0) throw new OperatorError(`no account ${name} in ${settings.accounts}`, EXIT_CONFIGURATION);
    if (!isSet(context, 'yes') && !(await terminal.confirm(`Remove ${name}?`, false))) return 1;
    await editAccounts(settings.accounts, (current) => {
      const now = findAccount(current, name);
      if (now < 0) throw new OperatorError(`${name} was removed by somebody else meanwhile`);
      return removeAccount(current, now);
    });
    terminal.print(`${name} removed from ${settings.accounts}`);
    await reloadRunning(settings, terminal);
    return 0;
  },
};

export const accountImport: CommandDefinition = {
  name: 'account import',
  summary: 'take over the accounts of another tool’s JSON file',
  details: [
    'Understands what earlier tools call otherwise, such as ip_address for local_address, and says what became what; what has no counterpart is named and left out. Accounts that are there already stay as they are. An entry with { "command": … } is named and not imported, and its program is not run.',
  ],
  arguments: [{ name: '<file>', help: 'JSON: an array of accounts, or an object with "accounts"' }],
  options: [option('--dry-run', 'show what would be imported, write nothing'), ...running],
  examples: ['xoauth2-relay account import old-accounts.json --dry-run'],
  exitCodes: { 1: 'some account could not be imported; the others were' },
  async run(context) {
    const { terminal } = context;
    const settings = await commandSettings(context);
    const source = context.arguments[0] ?? '';
    const entries = accountEntries(await readWhole(source));
    await noteOtherFile(settings, terminal);
    const taken = { imported: 0, failed: 0 };
    const take = async (text: string): Promise<string> => {
      Object.assign(taken, { imported: 0, failed: 0 });
      let result = text;
      for (const [index, value] of entries.entries()) {
        const { entry, notes } = convertEarlierAccount(value);
        const name = typeof entry.email === 'string' ? entry.email : `accounts[${index}]`;
        if (findAccount(result, name) >= 0) {
          terminal.note(`${name}: is there already, left as it is`);
          continue;
        }
        const next = appendAccount(result, entry);
        // No program of an entry that nobody has read yet, and those of the accounts that are there are of no use here.
        const parsed = await parseAt(next, settings.accounts, context.env, false);
        const position = accountEntries(next).length - 1;
        const mistakes = mistakesOf(parsed, position);
        if (mistakes.length > 0) {
          taken.failed += 1;
          for (const mistake of mistakes) terminal.note(`${name}: ${mistake}`);
          continue;
        }
        for (const note of notes) terminal.note(`${name}: ${note}`);
        result = next;
        taken.imported += 1;
      }
      return result;
    };
    if (isSet(context, 'dryRun')) {
      await take(await readOrEmpty(settings.accounts));
      terminal.print(`${taken.imported} of ${entries.length} accounts would be imported`);
      return taken.failed > 0 ? 1 : 0;
    }
    await editAccounts(settings.accounts, async (text) => {
      const next = await take(text);
      return taken.imported > 0 ? next : undefined;
    });
    const { imported, failed } = taken;
    if (imported > 0) await reloadRunning(settings, terminal);
    terminal.print(`${imported} of ${entries.length} accounts imported into ${settings.accounts}`);
    return failed > 0 ? 1 : 0;
  },
};
