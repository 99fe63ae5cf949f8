/** Settings as command line options. In: the settings table. Out: option definitions, and settings from a command. */

import { SETTINGS, type SettingName, settingFlag } from '../config/settings.ts';
import { loadSettings, type Settings } from '../config.ts';
import type { SettingDefinition } from '../setting.ts';
import type { CommandContext, OptionDefinition } from './definition.ts';

const VALUE: Record<SettingDefinition['kind'], string> = {
  text: ' <text>',
  path: ' <path>',
  number: ' <number>',
  boolean: '',
  list: ' <list>',
  json: ' <json>',
  secret: ' <path>',
};

/** One option per setting. A secret is never given on the command line, only the file it stands in. */
export function settingOptions(names = Object.keys(SETTINGS) as SettingName[]): OptionDefinition[] {
  return [
    ...names.map(settingOption),
    {
      flags: '--config <path>',
      help: 'config file (JSON), keys as the flags with _ for -',
      isPath: true,
      group: 'Serving',
    },
  ];
}

/** Of commands that talk to the running relay: those that only read take its reading token, too. */
export const adminOptions = (...further: readonly SettingName[]): OptionDefinition[] =>
  settingOptions(['adminHost', 'adminPort', 'adminToken', ...further]);

function settingOption(name: SettingName): OptionDefinition {
  const definition: SettingDefinition = SETTINGS[name];
  const { kind, group, fallback } = definition;
  const choices = choicesOf(definition);
  if (name === 'precache')
    return { flags: '--no-precache', help: 'fetch tokens and connect when first needed', group };
  // An address without password is no secret; one with a password belongs into the environment.
  if (name === 'store') return { flags: '--store <place>', help: definition.help, group };
  if (kind === 'secret')
    return {
      flags: `${settingFlag(name)}-file <path>`,
      help: `file that holds: ${definition.help}`,
      isPath: true,
      group,
    };
  return {
    flags: `${settingFlag(name)}${VALUE[kind]}`,
    help: `${definition.help}${describeFallback(fallback)}`,
    ...(choices === undefined ? {} : { choices }),
    ...(kind === 'path' ? { isPath: true } : {}),
    group,
  };
}

/** `(default 2525)`, nothing where there is no default worth telling. */
export function describeFallback(fallback: unknown): string {
  if (fallback === undefined || fallback === false || fallback === '') return '';
  if (Array.isArray(fallback) && fallback.length === 0) return '';
  return ` (default ${String(fallback)})`;
}

/** The closed set of values of a setting, if it has one. */
function choicesOf({ schema }: SettingDefinition): readonly string[] | undefined {
  const options: unknown = (schema as { options?: unknown }).options;
  return Array.isArray(options) && options.every((option) => typeof option === 'string')
    ? options
    : undefined;
}

/** The settings a command runs with: its flags, the environment, the config file. Rejects with `SettingsError`. */
export const commandSettings = (context: CommandContext): Promise<Settings> =>
  loadSettings({ flags: context.options, env: context.env });
