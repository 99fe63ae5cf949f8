/** `completion`: scripts for bash and zsh, made of the command definitions. */

import { OperatorError } from '../enrol/operator-error.ts';
import { type CommandDefinition, EXIT_CONFIGURATION, GROUPS } from './definition.ts';

export function createCompletion(commands: () => readonly CommandDefinition[]): CommandDefinition {
  return {
    name: 'completion',
    summary: 'print a shell completion script',
    arguments: [{ name: '<shell>', help: 'bash or zsh' }],
    options: [],
    examples: [
      'source <(xoauth2-relay completion bash)',
      'xoauth2-relay completion zsh > /usr/local/share/zsh/site-functions/_xoauth2-relay',
    ],
    exitCodes: {},
    async run({ arguments: [shell], terminal }) {
      if (shell === 'bash') terminal.write(formatBash(commands()));
      else if (shell === 'zsh') terminal.write(formatZsh(commands()));
      else throw new OperatorError('expected bash or zsh', EXIT_CONFIGURATION);
      return 0;
    },
  };
}

interface Flag {
  readonly names: readonly string[];
  readonly takesValue: boolean;
  readonly isPath: boolean;
  readonly choices: readonly string[];
  readonly help: string;
}

function flagsOf({ options }: CommandDefinition): readonly Flag[] {
  return [
    ...options.map(({ flags, isPath = false, choices = [], help }) => ({
      names: flags.match(/(?<=^|, )-{1,2}[\w-]+/g) ?? [],
      takesValue: flags.includes('<'),
      isPath,
      choices,
      help,
    })),
    { names: ['--help'], takesValue: false, isPath: false, choices: [], help: 'show help' },
  ];
}

/** Commands of one word, and the others by the word they begin with, under their second one. */
function grouped(commands: readonly CommandDefinition[]) {
  const plain = commands.filter(({ name }) => !name.includes(' '));
  const groups = new Map<string, { readonly word: string; readonly command: CommandDefinition }[]>();
  for (const command of commands) {
    const [group = '', word] = command.name.split(' ');
    if (word !== undefined) groups.set(group, [...(groups.get(group) ?? []), { word, command }]);
  }
  return { plain, groups: [...groups] };
}

const takesPath = ({ arguments: own = [] }: CommandDefinition): boolean =>
  own.some(({ name }) => /file/.test(name));

/** A bash completion function: words by command, values by option. */
function formatBash(commands: readonly CommandDefinition[]): string {
  const first = [...new Set(commands.map(({ name }) => name.split(' ')[0]))].join(' ');
  const { groups } = grouped(commands);
  const cases = commands.map((command) => {
    const flags = flagsOf(command);
    const values = flags
      .filter(({ takesValue }) => takesValue)
      .map(({ names, isPath, choices }) => {
        const reply = isPath
          ? 'COMPREPLY=($(compgen -f -- "$cur"))'
          : choices.length > 0
            ? `COMPREPLY=($(compgen -W "${choices.join(' ')}" -- "$cur"))`
            : ':';
        return `        ${names.join('|')}) ${reply}; return ;;`;
      });
    const words = flags.flatMap(({ names }) => names).join(' ');
    return [
      `    "${command.name}")`,
      '      case "$prev" in',
      ...values,
      '      esac',
      takesPath(command)
        ? `      [[ $cur == -* ]] && COMPREPLY=($(compgen -W "${words}" -- "$cur")) || COMPREPLY=($(compgen -f -- "$cur")) ;;`
        : `      COMPREPLY=($(compgen -W "${command.name === 'completion' ? 'bash zsh ' : ''}${words}" -- "$cur")) ;;`,
    ].join('\n');
  });
  const groupCases = groups.map(([group, members]) => {
    const words = members.map(({ word }) => word).join(' ');
    return `    "${group}") COMPREPLY=($(compgen -W "${words}" -- "$cur")); return ;;`;
  });
  return `_xoauth2_relay() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} command=\${COMP_WORDS[1]}
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "${first} --help --version" -- "$cur")); return
  fi
  if [[ $COMP_CWORD -eq 2 ]]; then
    case "$command" in
${groupCases.join('\n')}
    esac
  fi
  [[ " ${groups.map(([group]) => group).join(' ')} " == *" $command "* ]] && command="$command \${COMP_WORDS[2]}"
  case "$command" in
${cases.join('\n')}
  esac
}
complete -F _xoauth2_relay xoauth2-relay
`;
}

const quoteZsh = (text: string): string => text.replace(/'/g, "'\\''").replace(/[[\]:]/g, '\\$&');

/** A zsh completion function. */
function formatZsh(commands: readonly CommandDefinition[]): string {
  const describe = (list: readonly { readonly word: string; readonly help: string }[]): string =>
    list.map(({ word, help }) => `      '${word}:${quoteZsh(help)}'`).join('\n');
  const { plain, groups } = grouped(commands);
  const top = [
    ...plain.map(({ name, summary }) => ({ word: name, help: summary })),
    ...groups.map(([word]) => ({ word, help: GROUPS[word] ?? '' })),
  ];
  const argumentsOf = (command: CommandDefinition): string => {
    const specs = flagsOf(command).flatMap(({ names, takesValue, isPath, choices, help }) =>
      names.map((name) => {
        const action = isPath ? '_files' : choices.length > 0 ? `(${choices.join(' ')})` : ' ';
        return `'${name}[${quoteZsh(help)}]${takesValue ? `:value:${action}` : ''}'`;
      }),
    );
    if (command.name === 'completion') specs.push("'1:shell:(bash zsh)'");
    else if (takesPath(command)) specs.push("'*:file:_files'");
    return `_arguments ${specs.join(' ')}`;
  };
  const cases = plain.map((command) => `    ${command.name}) ${argumentsOf(command)} ;;`);
  const groupCases = groups.map(([group, members]) => {
    const words = members.map(({ word, command }) => ({ word, help: command.summary }));
    const inner = members.map(({ word, command }) => `        ${word}) ${argumentsOf(command)} ;;`);
    return `    ${group})
      local -a subcommands=(
${describe(words)}
      )
      if (( CURRENT == 2 )); then _describe command subcommands; return; fi
      shift words; (( CURRENT-- ))
      case $words[1] in
${inner.join('\n')}
      esac ;;`;
  });
  return `#compdef xoauth2-relay
_xoauth2_relay() {
  local -a commands=(
${describe(top)}
  )
  if (( CURRENT == 2 )); then _describe command commands; return; fi
  shift words; (( CURRENT-- ))
  case $words[1] in
${[...cases, ...groupCases].join('\n')}
  esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _xoauth2_relay "$@"; else compdef _xoauth2_relay xoauth2-relay; fi
`;
}
