/**
 * From command definitions to a command line: the one file that knows commander. In: definitions and
 * arguments. Out: the exit code of the command that ran.
 */
import { Command, CommanderError, Option } from 'commander';
import { type CommandContext, type CommandDefinition, EXIT_CONFIGURATION, GROUPS } from './definition.ts';

export interface ProgramOptions {
  readonly version: string;
  readonly env: CommandContext['env'];
  readonly terminal: CommandContext['terminal'];
}

const FIRST_STEPS = `
From nothing to a sent mail:
  xoauth2-relay account add alice@example.com  sign in to a first mailbox
  xoauth2-relay start                          relay in the background
  xoauth2-relay send you@example.net           a message, with the dialogue

Each command has --help with examples and exit codes. The manual, with every
setting, the accounts file and the replies: xoauth2-relay manual | man -l -
`;

/** Runs the command that `argv` (without node and script) names. Rejects with what the command rejects with. */
export async function runProgram(
  commands: readonly CommandDefinition[],
  argv: readonly string[],
  options: ProgramOptions,
): Promise<number> {
  let exitCode = 0;
  const root = base(new Command('xoauth2-relay'), options)
    .description(
      'SMTP relay that lets any mail server, application or device send through Gmail and Microsoft 365 with OAuth2',
    )
    .version(options.version, '-V, --version', 'print the version')
    .helpCommand(false)
    .addHelpText('after', FIRST_STEPS)
    .showSuggestionAfterError();
  const groups = new Map<string, Command>();
  for (const definition of commands) {
    const words = definition.name.split(' ');
    const last = words.pop() ?? '';
    const [groupName] = words;
    let parent = root;
    if (groupName !== undefined) {
      parent =
        groups.get(groupName) ??
        base(root.command(groupName).description(GROUPS[groupName] ?? ''), options).helpCommand(false);
      groups.set(groupName, parent);
    }
    const command = base(parent.command(last), options).summary(definition.summary);
    command.description([definition.summary, ...(definition.details ?? [])].join('\n\n'));
    for (const argument of definition.arguments ?? []) command.argument(argument.name, argument.help);
    for (const item of definition.options) {
      const option = new Option(item.flags, item.help);
      if (item.choices !== undefined) option.choices([...item.choices]);
      if (item.group !== undefined) option.helpGroup(`${item.group}:`);
      command.addOption(option);
    }
    command.addHelpText('after', formatHelpEnd(definition));
    command.action(async () => {
      exitCode = await definition.run({
        arguments: command.args,
        // An option that was not given must not hide the environment or the config file.
        options: Object.fromEntries(
          Object.entries(command.opts()).filter(([name]) => command.getOptionValueSource(name) === 'cli'),
        ),
        env: options.env,
        terminal: options.terminal,
      });
    });
  }
  try {
    await root.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? 0 : EXIT_CONFIGURATION;
  }
}

function base(command: Command, { terminal }: ProgramOptions): Command {
  return command.exitOverride().configureOutput({
    writeOut: (text) => terminal.write(text),
    writeErr: (text) => terminal.note(text.trimEnd()),
  });
}

/** Examples and exit codes under --help. */
function formatHelpEnd({ examples, exitCodes }: CommandDefinition): string {
  const codes = {
    0: 'done',
    ...exitCodes,
    [EXIT_CONFIGURATION]: exitCodes[2] ?? 'usage or configuration wrong',
  };
  return [
    '',
    'Examples:',
    ...examples.map((example) => `  ${example}`),
    '',
    'Exit codes:',
    ...Object.entries(codes).map(([code, meaning]) => `  ${code}  ${meaning}`),
    '',
  ].join('\n');
}
