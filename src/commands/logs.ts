/** `logs`: the log for people. In: a log file or the journal of a systemd unit. Out: coloured lines. */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { createInterface } from 'node:readline';
import { explainFileError } from '../accounts/secret-source.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { OUTCOMES } from '../protocol/vocabulary.ts';
import { logFileOf } from './background-files.ts';
import { type CommandDefinition, isSet, numberOption, option, textOption } from './definition.ts';
import { createLogFormat } from './log-format.ts';
import { commandSettings, settingOptions } from './setting-options.ts';

export const logs: CommandDefinition = {
  name: 'logs',
  summary: 'show the log of a relay in the background, readable',
  options: [
    option('-f, --follow', 'go on with what is written from now on'),
    option(
      '-n, --lines <number>',
      'lines to begin with, before any filter (default 50, with a filter 10000)',
    ),
    option('--account <account>', 'only lines of this account'),
    option('--outcome <outcome>', 'only transactions that ended so', {
      choices: OUTCOMES,
    }),
    option(
      '--unit <name>',
      'read the journal of this systemd unit (default xoauth2-relay when there is no log file)',
    ),
    ...settingOptions(['logFile', 'stateDir']),
  ],
  examples: [
    'xoauth2-relay logs --follow',
    'xoauth2-relay logs -n 10000 --account alice@example.com --outcome rejected',
    'xoauth2-relay logs --unit xoauth2-relay -n 200',
  ],
  exitCodes: { 1: 'no log, or no line of that kind, was found' },
  async run(context) {
    const { terminal } = context;
    const isFiltered = ['account', 'outcome'].some((name) => textOption(context, name) !== undefined);
    const lines = String(numberOption(context, 'lines', isFiltered ? 10_000 : 50));
    const file = logFileOf(context, await commandSettings(context));
    const named = textOption(context, 'unit');
    const unit = named ?? (isThere(file) ? undefined : 'xoauth2-relay');
    const follow = isSet(context, 'follow');
    const [program, args] =
      unit === undefined
        ? ['tail', ['-n', lines, ...(follow ? ['-F'] : []), '--', file]]
        : ['journalctl', ['-u', unit, '-o', 'cat', '-n', lines, '--no-pager', ...(follow ? ['-f'] : [])]];
    const format = createLogFormat({ paint: terminal.paint, withDate: true });
    const wants = createFilter(textOption(context, 'account'), textOption(context, 'outcome'));
    let shown = 0;
    const reader = spawn(program, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    // One that follows would stay until the next line.
    process.once('exit', () => reader.kill());
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
      process.once(signal, () => {
        reader.kill();
        process.kill(process.pid, signal);
      });
    terminal.unread.addEventListener('abort', () => reader.kill());
    createInterface({ input: reader.stdout }).on('line', (line) => {
      if (!wants(line)) return;
      shown += 1;
      terminal.write(format(line));
    });
    const code = await new Promise<number | null>((resolve) => {
      reader.once('error', () => resolve(null));
      reader.once('close', resolve);
    });
    if ((code === 0 && shown > 0) || terminal.unread.aborted) return 0;
    // A journal without the unit is no error of journalctl.
    if (code === 0 && (unit === undefined || named !== undefined || isFiltered)) {
      terminal.note(
        `no line of that kind among the last ${lines}${unit === undefined ? ` of ${file}` : ''}; -n looks further back`,
      );
      return 1;
    }
    throw new OperatorError(
      unit === undefined
        ? `cannot read ${file}`
        : `no log file ${file}, and no journal of the unit ${unit} (start with "xoauth2-relay start")`,
    );
  },
};

/** Throws an `OperatorError` where this user may not read it. */
function isThere(file: string): boolean {
  try {
    accessSync(file, constants.R_OK);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') return false;
    throw new OperatorError(`cannot read ${file}: ${explainFileError(error)}`, 1, { cause: error });
  }
}

/** Whether a line is of the account and outcome asked for; a line that is no JSON is of neither. */
function createFilter(account: string | undefined, outcome: string | undefined): (line: string) => boolean {
  if (account === undefined && outcome === undefined) return () => true;
  const wanted = account?.toLowerCase();
  return (line) => {
    let fields: Record<string, unknown>;
    try {
      fields = JSON.parse(line) as Record<string, unknown>;
    } catch {
      return false;
    }
    if (outcome !== undefined && fields.outcome !== outcome) return false;
    return (
      wanted === undefined || (typeof fields.account === 'string' && fields.account.toLowerCase() === wanted)
    );
  };
}
