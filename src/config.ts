/**
 * Settings: flags, then environment (`XOAUTH2_RELAY_<NAME>`), then config file, then defaults. In: those
 * sources. Out: checked `Settings`, or one error that names source and key of everything that is wrong.
 * Reads the config file and secret files; owns nothing.
 */
import { dirname, resolve } from 'node:path';
import { Secret } from './accounts/credential.ts';
import { createLineIndex, JsonSyntaxError, parseJsonText } from './accounts/json-text.ts';
import { readSecretText, readSmallFile, SecretSourceError } from './accounts/secret-source.ts';
import { readTextAtRest, TextFileError, type TextFileFault } from './accounts/text-at-rest.ts';
import { SETTINGS, type SettingName, settingFlag, settingVariable } from './config/settings.ts';
import { OTHER_VARIABLES, readVariable } from './config/variables.ts';
import { completeListener, type ListenerEntry, type ListenerOptions } from './listener/options.ts';
import { type SettingDefinition, type SettingValue, settingKey } from './setting.ts';

type SecretName = 'smtpProxy' | 'store' | 'stateKey' | 'adminToken' | 'adminReadToken' | 'alertWebhook';

/** Checked settings; durations in ms, sizes in octets, paths absolute, secrets unprintable. */
export type Settings = {
  readonly [N in Exclude<SettingName, SecretName | 'listeners'>]: SettingValue<(typeof SETTINGS)[N]>;
} & {
  readonly [N in SecretName]: Secret | undefined;
} & {
  /** At least one. */
  readonly listeners: readonly ListenerOptions[];
};

export interface SettingsProblem {
  /** `--port`, `XOAUTH2_RELAY_PORT`, or the config file with line and key. */
  readonly source: string;
  readonly message: string;
}

/** Everything that is wrong with the settings, one line each. Never holds a secret. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
  readonly problems: readonly SettingsProblem[];
  constructor(problems: readonly SettingsProblem[]) {
    super(problems.map(({ source, message }) => `${source}: ${message}`).join('\n'));
    this.problems = problems;
  }
}

export interface SettingsSources {
  /** Flags by camel-case name, as text or already typed; `config` names the config file. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string | undefined>>;
}

interface Found {
  readonly source: string;
  readonly value: unknown;
  /** What relative paths in it start from. */
  readonly directory: string;
}

/** Names that look like settings and are none: most likely typing mistakes. */
export function unknownVariables(env: SettingsSources['env']): readonly string[] {
  const names = (Object.keys(SETTINGS) as SettingName[]).map(settingVariable);
  const known = new Set([
    ...names,
    ...names.map((name) => `${name}_FILE`),
    ...OTHER_VARIABLES.map(([name]) => name),
  ]);
  return Object.keys(env).filter((name) => name.startsWith('XOAUTH2_RELAY_') && !known.has(name));
}

/** Finds, checks and completes all settings. Throws `SettingsError` with everything that is wrong. */
export async function loadSettings({ flags, env }: SettingsSources): Promise<Settings> {
  const problems: SettingsProblem[] = [];
  const configPath =
    typeof flags.config === 'string' ? flags.config : readVariable(env, 'XOAUTH2_RELAY_CONFIG') || undefined;
  const file = configPath === undefined ? undefined : await readConfigFile(configPath, problems);
  const values: Record<string, unknown> = {};
  for (const name of Object.keys(SETTINGS) as SettingName[]) {
    const definition: SettingDefinition = SETTINGS[name];
    values[name] = resolveDefault(definition);
    try {
      const found = findValue(name, definition, flags, env, file);
      if (found === undefined) continue;
      const value = readValue(definition, found, env);
      const result = definition.schema.safeParse(value);
      if (result.success)
        values[name] =
          definition.kind === 'secret' && typeof result.data === 'string'
            ? new Secret(result.data)
            : result.data;
      else
        for (const issue of result.error.issues)
          problems.push({
            source:
              issue.path.length === 0 ? found.source : `${found.source}.${issue.path.map(String).join('.')}`,
            message: explainIssue(issue.code, issue.message),
          });
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      problems.push({ source: error.source, message: error.message });
    }
  }
  if (problems.length > 0) throw new SettingsError(problems);
  const flat = values as unknown as Omit<Settings, 'listeners'> & { listeners: ListenerEntry[] | undefined };
  const directory = configPath === undefined ? process.cwd() : dirname(resolve(configPath));
  const listeners = (flat.listeners ?? [{}]).map((entry) =>
    completeListener(entry, flat, (path) => resolve(directory, path)),
  );
  for (const [index, listener] of listeners.entries())
    if (listener.tls !== 'none' && (listener.certFile === undefined || listener.keyFile === undefined))
      problems.push({
        source: flat.listeners === undefined ? 'tls' : `listeners.${index}.tls`,
        message: `${listener.tls} needs cert_file and key_file`,
      });
  if (problems.length > 0) throw new SettingsError(problems);
  return { ...flat, listeners };
}

const resolveDefault = ({ kind, fallback }: SettingDefinition): unknown =>
  kind === 'path' && typeof fallback === 'string' ? resolve(fallback) : fallback;

/** A value that cannot be read at all. */
class ValueError extends Error {
  readonly source: string;
  constructor(source: string, message: string) {
    super(message);
    this.source = source;
  }
}

function findValue(
  name: SettingName,
  { kind }: SettingDefinition,
  flags: SettingsSources['flags'],
  env: SettingsSources['env'],
  file: ReadonlyMap<string, Found> | undefined,
): Found | undefined {
  const directory = process.cwd();
  const flag = flags[name];
  if (flag !== undefined) return { source: settingFlag(name), value: flag, directory };
  if (kind === 'secret') {
    const path = flags[`${name}File`];
    if (typeof path === 'string')
      return { source: `${settingFlag(name)}-file`, value: { file: path }, directory };
  }
  const variable = settingVariable(name);
  if (env[variable] !== undefined && env[variable] !== '')
    return { source: variable, value: env[variable], directory };
  const path = env[`${variable}_FILE`];
  if (kind === 'secret' && path !== undefined && path !== '')
    return { source: `${variable}_FILE`, value: { file: path }, directory };
  if (name === 'precache' && isTrue(readVariable(env, 'XOAUTH2_RELAY_NO_PRECACHE')))
    return { source: 'XOAUTH2_RELAY_NO_PRECACHE', value: false, directory };
  return file?.get(settingKey(name));
}

const isTrue = (text: string | undefined): boolean => text !== undefined && /^(?:1|true|yes|on)$/i.test(text);
const isFalse = (text: string): boolean => /^(?:0|false|no|off)$/i.test(text);

/** From text to the kind's raw value; a value that is already typed passes to the schema. */
function readValue(definition: SettingDefinition, found: Found, env: SettingsSources['env']): unknown {
  const { value, source, directory } = found;
  if (definition.kind === 'secret') return readSecretValue(found, env);
  if (typeof value !== 'string') return value;
  switch (definition.kind) {
    case 'text':
      return value;
    case 'path':
      return value === '' ? value : resolve(directory, value);
    case 'number':
      if (!/^\d+$/.test(value)) throw new ValueError(source, 'expected a whole number without unit');
      return Number(value);
    case 'boolean':
      if (isTrue(value)) return true;
      if (isFalse(value)) return false;
      throw new ValueError(source, 'expected true or false');
    case 'list':
      if (value.trimStart().startsWith('[')) return parseJsonValue(value, source);
      return value.split(',').map((item) => item.trim());
    case 'json':
      return parseJsonValue(value, source);
    default:
      return definition.kind satisfies never;
  }
}

function parseJsonValue(text: string, source: string): unknown {
  try {
    return parseJsonText(text).value;
  } catch (error) {
    if (error instanceof JsonSyntaxError) throw new ValueError(source, `not JSON: ${error.message}`);
    throw error;
  }
}

function readSecretValue({ value, source, directory }: Found, env: SettingsSources['env']): unknown {
  if (typeof value === 'string' || typeof value !== 'object' || value === null) return value;
  const place = value as { env?: unknown; file?: unknown };
  try {
    if (typeof place.env === 'string') return readSecretText({ env: place.env }, { env, directory });
    if (typeof place.file === 'string') return readSmallFile(resolve(directory, place.file));
  } catch (error) {
    if (error instanceof SecretSourceError) throw new ValueError(source, error.message);
    throw error;
  }
  throw new ValueError(source, 'expected a text, { "env": "NAME" } or { "file": "PATH" }');
}

/** zod's own words except where they would be unclear or repeat a value. */
function explainIssue(code: string | undefined, message: string): string {
  if (code === 'unrecognized_keys') return message.replace('Unrecognized', 'unknown');
  return message.replace(/^Invalid input: /, '').replace(/^Invalid option: /, '');
}

const CURES: Readonly<Partial<Record<TextFileFault, string>>> = {
  missing: ': name another with --config, or none',
  directory: ': name the config file in it',
  being_written: ': try again when that has ended',
};

async function readConfigFile(
  path: string,
  problems: SettingsProblem[],
): Promise<ReadonlyMap<string, Found> | undefined> {
  const found = new Map<string, Found>();
  try {
    const { text } = await readTextAtRest(path);
    const root = parseJsonText(text);
    if (root.members === undefined) {
      problems.push({ source: path, message: 'expected a JSON object of settings' });
      return undefined;
    }
    const keys = new Set((Object.keys(SETTINGS) as SettingName[]).map(settingKey));
    const positionOf = createLineIndex(text);
    for (const [key, node] of root.members) {
      if (key === '$schema' || key === 'comment') continue;
      const source = `${path}:${positionOf(node.start).line} ${key}`;
      if (keys.has(key)) found.set(key, { source, value: node.value, directory: dirname(resolve(path)) });
      else
        problems.push({ source, message: 'unknown setting: remove or correct it (serve --help lists all)' });
    }
    return found;
  } catch (error) {
    if (error instanceof TextFileError)
      problems.push({ source: path, message: error.message + (CURES[error.code] ?? '') });
    else if (error instanceof JsonSyntaxError)
      problems.push({ source: path, message: `not JSON: ${error.message}` });
    else throw error;
    return undefined;
  }
}
