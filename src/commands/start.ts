/** `start`: a relay in the background for machines without a service manager. In: settings. Out: a process that is ready. */
import { spawn } from 'node:child_process';
import { type FileHandle, lstat, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { explainFileError } from '../accounts/secret-source.ts';
import type { Settings } from '../config.ts';
import { makeDirectories } from '../directories.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { logFileOf, pidFileOf, pidFileOption } from './background-files.ts';
import { type CommandDefinition, EXIT_CONFIGURATION, timeoutOf, timeoutOption } from './definition.ts';
import { describeStart } from './log-format.ts';
import { findRelay, runsAlready } from './pid-file.ts';
import { commandSettings, settingOptions } from './setting-options.ts';
import { hearRelay, type Told } from './starter.ts';
import type { Terminal } from './terminal.ts';

/** A thousand accounts are ready in about 10 s; a slow token endpoint takes longer. */
const READY_TIMEOUT_MS = 60_000;

export const start: CommandDefinition = {
  name: 'start',
  summary: 'run serve in the background and wait until it is ready',
  details: [
    'Takes the options of serve. For machines without systemd or another service manager.',
    'Its log (relay.log, a link to the newest of the files, which are rotated at 10 MiB) and relay.pid stand in the state directory, without one in ~/.local/state/xoauth2-relay. What it says outside its log is in relay.log.stderr.',
    'On a terminal it says where the relay listens, where its dashboard is and how many accounts can send; elsewhere one line of JSON.',
  ],
  options: [pidFileOption, timeoutOption('until it is ready', READY_TIMEOUT_MS), ...settingOptions()],
  examples: ['xoauth2-relay start --accounts accounts.json', 'xoauth2-relay stop'],
  exitCodes: {
    1: 'one is running already, or it did not become ready',
    2: 'settings or accounts file wrong',
  },
  async run(context) {
    const settings = await commandSettings(context);
    const pidFile = pidFileOf(context, settings);
    const logFile = logFileOf(context, settings);
    const running = await findRelay(pidFile);
    if (running !== undefined) throw runsAlready(running.pid, pidFile);
    for (const path of [pidFile, logFile]) makeRoom(path);

    const errors = `${logFile}.stderr`;
    // Another relay that runs, or starts at the same moment, keeps its own until this one is the one.
    const begun = `${errors}.${process.pid}`;
    const stderr = await openNew(begun, errors);
    const child = spawn(process.execPath, [serverScript, 'serve', ...serveArguments()], {
      detached: true,
      stdio: ['ignore', 'ignore', stderr.fd, 'ipc'],
      env: { ...context.env, XOAUTH2_RELAY_LOG_FILE: logFile, XOAUTH2_RELAY_PID_FILE: pidFile },
    });
    await stderr.close();

    const timeoutMs = timeoutOf(context, READY_TIMEOUT_MS);
    const heard = await hearRelay(child, timeoutMs);
    if (heard !== undefined && 'exitCode' in heard) {
      const said = (await readFile(begun, 'utf8')).trim();
      await rm(begun);
      if (said === '')
        throw new OperatorError('the relay did not start: it was stopped or killed meanwhile', 1);
      context.terminal.note(said);
      throw new OperatorError('the relay did not start', heard.exitCode || 1);
    }
    await rename(begun, errors);
    if (child.connected) child.disconnect();
    child.unref();
    if (heard === undefined)
      throw new OperatorError(
        `process ${child.pid} runs but is not ready after ${timeoutMs} ms; see xoauth2-relay logs`,
      );
    report(context.terminal, settings.logFormat, { ...heard, log: logFile });
    return 0;
  },
};

function makeRoom(path: string): void {
  const directory = dirname(path);
  try {
    makeDirectories(directory);
  } catch (error) {
    throw new OperatorError(
      `cannot make the directory ${directory}: ${explainFileError(error)}; name another with --state-dir, or --pid-file and --log-file`,
      EXIT_CONFIGURATION,
      { cause: error },
    );
  }
}

/** For what a relay says outside its log: at first under a name of its own. Anything but a plain file is not replaced. */
async function openNew(path: string, later: string): Promise<FileHandle> {
  try {
    const before = await lstat(later).catch(() => undefined);
    if (before !== undefined && !before.isFile())
      throw new OperatorError(
        `${later}: something that is no plain file has this name, which is for what a relay says outside its log: remove it, or choose another --log-file`,
        EXIT_CONFIGURATION,
      );
    return await open(path, 'wx', 0o600);
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    throw new OperatorError(`cannot write ${path}: ${explainFileError(error)}`, EXIT_CONFIGURATION, {
      cause: error,
    });
  }
}

function report(
  { print, paint, isLive }: Terminal,
  format: Settings['logFormat'],
  { listening, ready, log }: Told & { readonly log: string },
): void {
  if (format === 'json' || (format === 'auto' && !isLive)) {
    const { pid, listeners, admin } = listening;
    const { accounts, usable, ms } = ready;
    print(JSON.stringify({ event: 'started', pid, log, listeners, admin, accounts, usable, ms }));
    return;
  }
  print(describeStart(paint, listening));
  print(`           log        ${log} (xoauth2-relay logs)`);
  print(describeStart(paint, ready));
}

const serverScript = fileURLToPath(new URL('../cli.js', import.meta.url));

/** The command line as given, without what only `start` knows. */
function serveArguments(): string[] {
  const given = process.argv.slice(process.argv.indexOf('start') + 1);
  const own = ['--pid-file', '--timeout-ms'];
  return given.filter(
    (argument, i) => !own.includes(argument.split('=')[0] ?? '') && !own.includes(given[i - 1] ?? ''),
  );
}
