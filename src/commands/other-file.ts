/** Whether the relay that runs serves the accounts file a command works on. In: settings, admin API. Out: words where it does not. */
import { realpath } from 'node:fs/promises';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import type { Settings } from '../config.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { createAdminClient } from './admin-client.ts';
import type { Terminal } from './terminal.ts';

/** The accounts file of the running relay, where it is another one; undefined too where no relay answers, or one of another machine. */
export async function findOtherFile(settings: Settings): Promise<string | undefined> {
  try {
    const { host, accounts_file } = await createAdminClient(settings).relay();
    const ours = resolve(settings.accounts);
    const real = await realpath(ours).catch(() => ours);
    return host !== hostname() || accounts_file === real ? undefined : accounts_file;
  } catch (error) {
    // Not running, not allowed to ask, of an earlier version: nothing is known.
    if (error instanceof OperatorError) return undefined;
    throw error;
  }
}

/** Says so before anything is done. */
export async function noteOtherFile(settings: Settings, { note, paint }: Terminal): Promise<void> {
  const other = await findOtherFile(settings);
  if (other !== undefined) note(paint.yellow(describeOtherFile(settings, other)));
}

export const describeOtherFile = (settings: Settings, other: string): string =>
  `the running relay serves ${other}, not ${resolve(settings.accounts)}: --accounts or XOAUTH2_RELAY_ACCOUNTS names it`;
