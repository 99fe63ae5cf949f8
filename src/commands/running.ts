/** `reload`, `stop`: a relay that runs, seen from outside. In: its admin API, its pid file. */

import { OperatorError } from '../enrol/operator-error.ts';
import { waitUntil } from '../enrol/wait-until.ts';
import { adminOf } from './admin-client.ts';
import { pidFileOf, pidFileOption } from './background-files.ts';
import { type CommandDefinition, isSet, jsonOption, timeoutOf, timeoutOption } from './definition.ts';
import { findRelay, findUncertain, whyUnseen } from './pid-file.ts';
import { adminOptions, commandSettings, settingOptions } from './setting-options.ts';
import { printJson } from './terminal.ts';

export const reload: CommandDefinition = {
  name: 'reload',
  summary: 'let the running relay read its accounts file again',
  details: ['A broken file changes nothing and is reported.'],
  options: [jsonOption, ...adminOptions()],
  examples: ['xoauth2-relay reload'],
  exitCodes: { 1: 'no relay answers, or the file was refused or holds bad accounts' },
  async run(context) {
    const { terminal } = context;
    const result = await (await adminOf(context)).reload();
    if (isSet(context, 'json')) printJson(terminal, result);
    else {
      for (const kind of ['added', 'changed', 'removed', 'untouched'] as const)
        terminal.print(
          `${kind}: ${result[kind].length}${kind === 'untouched' ? '' : ` ${result[kind].join(' ')}`}`.trimEnd(),
        );
      for (const { path, message } of result.errors) terminal.note(`${path}: ${message}`);
    }
    return result.ok && result.errors.length === 0 ? 0 : 1;
  },
};

/** Above the default drain deadline of 30 s. */
const STOP_TIMEOUT_MS = 40_000;

export const stop: CommandDefinition = {
  name: 'stop',
  summary: 'stop a relay that was started with start; transactions finish first',
  options: [pidFileOption, timeoutOption('for its end', STOP_TIMEOUT_MS), ...settingOptions(['stateDir'])],
  examples: ['xoauth2-relay stop'],
  exitCodes: { 1: 'no such process, or it did not end in time' },
  async run(context) {
    const path = pidFileOf(context, await commandSettings(context));
    const relay = await findRelay(path);
    if (relay === undefined) throw await noRelay(path);
    const { pid, isAlive } = relay;
    tellToStop(pid);
    const timeoutMs = timeoutOf(context, STOP_TIMEOUT_MS);
    if (!(await waitUntil(() => !isAlive(), timeoutMs)))
      throw new OperatorError(
        `process ${pid} has not ended within ${timeoutMs} ms; a second stop signal cuts: kill ${pid}`,
      );
    context.terminal.print('stopped');
    return 0;
  },
};

function tellToStop(pid: number): void {
  try {
    process.kill(pid, 'SIGTERM');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EPERM')
      throw new OperatorError(`process ${pid} is another user's: stop it as that user`);
    // It has ended by itself.
  }
}

async function noRelay(path: string): Promise<OperatorError> {
  const unseen = await whyUnseen(path);
  if (unseen !== undefined)
    return new OperatorError(
      `cannot tell whether a relay runs (${path}): ${unseen}; stop it as its own user`,
    );
  const other = await findUncertain(path);
  return new OperatorError(
    other === undefined
      ? `no relay is running (${path})`
      : `no relay is running for certain (${path}): process ${other} may be one of an earlier version or any other program. "ps -p ${other} -o args" tells; then kill ${other}`,
  );
}
