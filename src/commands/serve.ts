/** `serve`: settings → app; signals → reload, drain, cut. Resolves with the exit code when the app has stopped. */
import { type App, createApp } from '../app.ts';
import { readVariable } from '../config/variables.ts';
import { type Settings, unknownVariables } from '../config.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { tuneHeap } from '../heap.ts';
import { openLogFile } from '../log/file.ts';
import { createLogSink, type LogSink } from '../log/sink.ts';
import { standardOutput } from '../log/target.ts';
import { createLog, type Log, type ProcessLog } from '../log.ts';
import { type CommandContext, type CommandDefinition, EXIT_CONFIGURATION } from './definition.ts';
import { createLogFormat } from './log-format.ts';
import { claimPidFile } from './pid-file.ts';
import { createServiceNotifier } from './service-notifier.ts';
import { commandSettings, settingOptions } from './setting-options.ts';
import { explainLogFile, explainStart } from './start-error.ts';
import { tellStarter } from './starter.ts';
import type { Terminal } from './terminal.ts';

export const serve: CommandDefinition = {
  name: 'serve',
  summary: 'relay mail until told to stop',
  details: [
    'Logs on standard output: on a terminal for people, in colours; elsewhere (and with --log-format json) JSON lines. The line with "event":"listening" names the SMTP and admin addresses, the one with "event":"ready" comes when the first round of token fetches and connections has ended.',
    'Signals: SIGHUP reads the accounts file again; SIGTERM and SIGINT finish the transactions under way and stop; a second one of them stops at once. SIGUSR1 and SIGUSR2 do nothing: log files rotate by themselves.',
    'Every setting can also be given as XOAUTH2_RELAY_<NAME> in the environment and in the config file.',
  ],
  options: settingOptions(),
  examples: [
    'xoauth2-relay serve --accounts /etc/xoauth2-relay/accounts.json',
    'xoauth2-relay serve --port 0 --admin-port 0 --log-level debug',
    'XOAUTH2_RELAY_STATE_DIR=/var/lib/xoauth2-relay xoauth2-relay serve',
  ],
  exitCodes: {
    0: 'stopped as told; what was not finished at the deadline heard 421 and stands in the log',
    1: 'was told twice to stop, or failed',
    2: 'could not start: settings, accounts file, port, state directory or log file; one line says which and the cure',
  },
  async run(context) {
    const settings = await commandSettings(context);
    tuneHeap();
    const sink = openSink(settings, context.terminal);
    // Also after a fatal error: what its last turn said reaches the destination.
    process.on('exit', sink.flushNow);
    const log = createLog(settings.logLevel, sink);
    tellStarter(log, context.env);
    for (const variable of unknownVariables(context.env))
      log.warn({ event: 'unknown_variable', variable }, `${variable} is no setting: see serve --help`);
    try {
      return await runApp(settings, log, context);
    } finally {
      const awake = setInterval(() => {}, LOG_DRAIN_MS);
      await sink.drain(LOG_DRAIN_MS);
      clearInterval(awake);
      if (sink.isWriting) process.once('exit', leaveStuckWrite);
    }
  },
};

/** How long the end waits for a destination that is slow; one that is full or not read loses the last lines. */
const LOG_DRAIN_MS = 500;

/**
 * Node waits at its end for the thread that writes, and on a disk that hangs that is for ever. Of the signals
 * that end a process at once service managers take SIGTERM for a clean end (systemd.service(5) SuccessExitStatus=).
 */
function leaveStuckWrite(exitCode: number): void {
  process.removeAllListeners('SIGTERM');
  process.kill(process.pid, exitCode === 0 ? 'SIGTERM' : 'SIGKILL');
}

function openSink({ logFile: file, logFormat }: Settings, terminal: Terminal): LogSink {
  if (file === undefined) {
    const isPretty = logFormat === 'pretty' || (logFormat === 'auto' && terminal.isLive);
    const format = isPretty ? createLogFormat({ paint: terminal.paint, withDate: false }) : undefined;
    return createLogSink(standardOutput(), { format });
  }
  try {
    return createLogSink(openLogFile(file));
  } catch (error) {
    throw new OperatorError(explainLogFile(file, error), EXIT_CONFIGURATION, { cause: error });
  }
}

async function runApp(settings: Settings, log: ProcessLog, { env }: CommandContext): Promise<number> {
  const path = readVariable(env, 'XOAUTH2_RELAY_PID_FILE');
  const pidFile = path === undefined ? undefined : await claimPidFile(path);
  const notifier = createServiceNotifier(env, log);
  const closers: (() => unknown)[] = [() => pidFile?.release(), notifier.close];
  try {
    const app = openApp(settings, log);
    const stopped = stopOnSignals(app, settings, log, notifier.stopping);
    closers.push(stopped.release);
    const onReload = (): void => {
      notifier.reloading();
      app
        .reload()
        .catch((error: unknown) =>
          log.error({ event: 'reload_failed', reason: String(error) }, 'reload failed'),
        )
        .finally(() => notifier.ready('serving'));
    };
    const onOther = (signal: string): void =>
      log.warn(
        { event: 'signal_ignored', signal },
        `${signal} does nothing here: SIGHUP reads the accounts file again, and log files rotate by themselves`,
      );
    process.on('SIGHUP', onReload).on('SIGUSR1', onOther).on('SIGUSR2', onOther);
    closers.push(() => process.off('SIGHUP', onReload).off('SIGUSR1', onOther).off('SIGUSR2', onOther));
    const begun = await Promise.race([app.start(), stopped.promise]).catch((error: unknown) => {
      throw explainStart(error, settings);
    });
    if (begun === 'serving') {
      await pidFile?.write();
      notifier.ready('serving');
    }
    return await stopped.promise;
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

/** Composing reads keys and addresses of stores; what is wrong with them is a wrong setting. */
function openApp(settings: Settings, log: ProcessLog): App {
  try {
    return createApp({ settings, log });
  } catch (error) {
    throw new OperatorError((error as Error).message, EXIT_CONFIGURATION, { cause: error });
  }
}

/** First SIGTERM or SIGINT drains, the second cuts, the third does not wait for that; resolves with the exit code. */
function stopOnSignals(app: App, settings: Settings, log: Log, onStop: () => void) {
  let isStopping = false;
  let isCut = false;
  let settle: (exitCode: number) => void = () => {};
  const promise = new Promise<number>((resolve) => {
    settle = resolve;
  });
  const stop = (signal: string) => {
    if (isCut) return settle(1);
    if (isStopping) {
      isCut = true;
      log.warn({ event: 'cut', signal }, 'told twice to stop: cutting what is under way');
      void app
        .cut()
        .catch(() => undefined)
        .then(() => settle(1));
      return;
    }
    isStopping = true;
    onStop();
    log.info({ event: 'stopping', signal }, 'finishing transactions, then stopping');
    app.stop({ deadlineMs: settings.stopDeadlineMs }).then(
      () => settle(0),
      (error: unknown) => {
        log.error({ event: 'stop_failed', reason: String(error) }, 'could not stop cleanly');
        settle(1);
      },
    );
  };
  process.on('SIGTERM', stop).on('SIGINT', stop);
  return { promise, release: () => void process.off('SIGTERM', stop).off('SIGINT', stop) };
}
