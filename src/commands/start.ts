/** `start`: a relay in the background for machines without a service manager. In: settings. Out: a process that is ready. */
import { spawn } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Settings } from '../config.ts';
import { makeDirectories } from '../directories.ts';
import { waitUntil } from '../enrol/wait-until.ts';
import { currentLogFile } from '../log/file.ts';
import { parseJsonObject } from '../protocol/json-object.ts';
import { logFileOf, pidFileOf, pidFileOption } from './background-files.ts';
import { type CommandDefinition, CommandError, numberOption } from './definition.ts';
import { describeStart } from './log-format.ts';
import { isRelay, readPid } from './running.ts';
import { commandSettings, settingOptions } from './setting-options.ts';
import type { Terminal } from './terminal.ts';

/** A thousand accounts are ready in about 10 s; a slow token endpoint takes longer. */
const READY_TIMEOUT_MS = 60_000;

export const start: CommandDefinition = {
  name: 'start',
  summary: 'run serve in the background and wait until it is ready',
  details: [
    'Takes the options of serve. For machines without systemd or another service manager; the log file is rotated at 10 MiB.',
    'On a terminal it says where the relay listens, where its dashboard is and how many accounts can send; elsewhere one line of JSON.',
  ],
  options: [
    pidFileOption,
    {
      flags: '--timeout-ms <number>',
      help: `longest wait until it is ready, ms (default ${READY_TIMEOUT_MS})`,
    },
    ...settingOptions(),
  ],
  examples: ['xoauth2-relay start --accounts accounts.json', 'xoauth2-relay stop'],
  exitCodes: {
    1: 'one is running already, or it did not become ready',
    2: 'settings or accounts file wrong',
  },
  async run(context) {
    const settings = await commandSettings(context);
    const pidFile = pidFileOf(context, settings);
    const logFile = logFileOf(context, settings);
    const running = await readPid(pidFile);
    if (running !== undefined && (await isRelay(running)))
      throw new CommandError(`a relay is running already: process ${running} (${pidFile})`);
    makeDirectories(dirname(pidFile));
    makeDirectories(dirname(logFile));

    const errors = `${logFile}.stderr`;
    const stderr = await open(errors, 'w', 0o600);
    const begunAt = Date.now();
    const child = spawn(process.execPath, [serverScript, 'serve', ...serveArguments()], {
      detached: true,
      stdio: ['ignore', 'ignore', stderr.fd],
      env: { ...context.env, XOAUTH2_RELAY_LOG_FILE: logFile, XOAUTH2_RELAY_PID_FILE: pidFile },
    });
    let exitCode: number | null | undefined;
    child.once('exit', (code) => {
      exitCode = code;
    });
    await stderr.close();

    const timeoutMs = numberOption(context, 'timeoutMs', '--timeout-ms', READY_TIMEOUT_MS);
    let told: Told | undefined;
    const isReady = async (): Promise<boolean> => {
      if (exitCode !== undefined) return true;
      told = findStart(await readFile(currentLogFile(logFile), 'utf8').catch(() => ''), child.pid, begunAt);
      return told !== undefined;
    };
    const became = await waitUntil(isReady, timeoutMs);
    if (exitCode !== undefined) {
      context.terminal.note((await readFile(errors, 'utf8')).trim());
      throw new CommandError('the relay did not start', exitCode === null || exitCode === 0 ? 1 : exitCode);
    }
    child.unref();
    if (!became || told === undefined)
      throw new CommandError(
        `process ${child.pid} runs but is not ready after ${timeoutMs} ms; see xoauth2-relay logs`,
      );
    report(context.terminal, settings.logFormat, { ...told, log: currentLogFile(logFile) });
    return 0;
  },
};

/** What the relay logged when it began to listen and when its first round was over. */
interface Told {
  readonly listening: Readonly<Record<string, unknown>>;
  readonly ready: Readonly<Record<string, unknown>>;
}

/** Undefined: this process, begun then (ms since the epoch), has not said yet that it is ready. An earlier one may have had its number. */
export function findStart(log: string, pid: number | undefined, begunAt: number): Told | undefined {
  const lines = log.slice(0, log.lastIndexOf('\n') + 1).split('\n');
  const at = lines.findLastIndex((line) => {
    if (!line.includes('"event":"listening"')) return false;
    const said = parseJsonObject(line);
    return said?.pid === pid && Date.parse(String(said?.time)) >= begunAt;
  });
  const ready = at < 0 ? undefined : lines.slice(at).find((line) => line.includes('"event":"ready"'));
  if (ready === undefined) return undefined;
  return { listening: JSON.parse(lines[at] ?? ''), ready: JSON.parse(ready) };
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
