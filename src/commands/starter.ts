/**
 * What `start` hears of the relay it made, whatever becomes of the log. In: the log of the one, the child process
 * of the other. Out: the fields of `listening` and `ready`, over the channel that Node opens between the two.
 */
import type { ChildProcess } from 'node:child_process';
import { readVariable } from '../config/variables.ts';
import type { ProcessLog } from '../log.ts';

type Fields = Readonly<Record<string, unknown>>;

export interface Told {
  readonly listening: Fields;
  readonly ready: Fields;
}

/** In the relay: tells whoever started it, if that was `start`, and hangs up when there is no more to say. */
export function tellStarter(log: ProcessLog, env: Readonly<Record<string, string | undefined>>): void {
  // Other programs that open such a channel have no word for this.
  if (process.send === undefined || readVariable(env, 'XOAUTH2_RELAY_PID_FILE') === undefined) return;
  const { info } = log;
  log.info = (fields, message) => {
    info(fields, message);
    const { event } = fields as { event?: unknown };
    if (event !== 'listening' && event !== 'ready') return;
    // Whoever has waited long enough is gone.
    process.send?.(fields, undefined, undefined, () => {
      if (event === 'ready' && process.connected) process.disconnect();
    });
    if (event === 'ready') log.info = info;
  };
}

/** In `start`: resolves when the relay is ready, has ended (its exit code, null by a signal), or `timeoutMs` are over. */
export function hearRelay(
  child: ChildProcess,
  timeoutMs: number,
): Promise<Told | { readonly exitCode: number | null } | undefined> {
  return new Promise((resolve, reject) => {
    let listening: Fields = {};
    const timer = setTimeout(() => resolve(undefined), timeoutMs);
    const settle = (outcome: Told | { readonly exitCode: number | null }): void => {
      clearTimeout(timer);
      resolve(outcome);
    };
    child.on('message', (message) => {
      const fields = message as Fields;
      if (fields.event === 'listening') listening = fields;
      else if (fields.event === 'ready') settle({ listening, ready: fields });
    });
    child.once('exit', (exitCode) => settle({ exitCode }));
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
  });
}
