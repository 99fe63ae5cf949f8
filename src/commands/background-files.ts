/** Where a relay in the background keeps its pid and its log. In: options, environment. Out: paths. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Settings } from '../config.ts';
import { type CommandContext, option, textOption } from './definition.ts';

export const pidFileOption = option(
  '--pid-file <path>',
  'file with the process id (default relay.pid beside the state)',
  { isPath: true },
);

/** The state directory, else XDG_STATE_HOME (~/.local/state). */
const directoryOf = ({ env }: CommandContext, settings: Settings): string =>
  settings.stateDir ?? join(env.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'xoauth2-relay');

export const pidFileOf = (context: CommandContext, settings: Settings): string =>
  resolve(textOption(context, 'pidFile') ?? join(directoryOf(context, settings), 'relay.pid'));

export const logFileOf = (context: CommandContext, settings: Settings): string =>
  resolve(settings.logFile ?? join(directoryOf(context, settings), 'relay.log'));
