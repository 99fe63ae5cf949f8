/** Since when accounts are missing from the accounts file, kept beside their grants. In, out: `missing.json`. */
import { join } from 'node:path';
import { parseJsonObject } from '../protocol/json-object.ts';
import { type GrantFiles, MAX_FILE_OCTETS } from './grant-files.ts';
import type { StateFiles } from './state-files.ts';

const MISSING = 'missing.json';

export interface MissingAccount {
  readonly accountId: string;
  /** ms since the epoch. */
  readonly since: number;
}

/** By name of the file. */
export type MissingAccounts = Map<string, MissingAccount>;

/** Empty where there is none that can be read. */
export async function readMissing(directory: string, files: StateFiles): Promise<MissingAccounts> {
  const text = await files.read(join(directory, MISSING), MAX_FILE_OCTETS).catch(() => undefined);
  const rows = Object.entries(parseJsonObject(text ?? '') ?? {}).flatMap(([name, row]) => {
    const { account, since } = (row ?? {}) as { account?: unknown; since?: unknown };
    if (typeof account !== 'string' || typeof since !== 'number') return [];
    return [[name, { accountId: account, since }] as const];
  });
  return new Map(rows);
}

export async function writeMissing(
  directory: string,
  rows: ReadonlyMap<string, MissingAccount>,
  files: StateFiles,
  grantFiles: Pick<GrantFiles, 'temporaryName'>,
): Promise<void> {
  const path = join(directory, MISSING);
  if (rows.size === 0) {
    await files.remove(path);
    return;
  }
  const half = grantFiles.temporaryName(path);
  const facts = [...rows].map(([name, { accountId, since }]) => [name, { account: accountId, since }]);
  await files.create(half, JSON.stringify(Object.fromEntries(facts)));
  await files.rename(half, path);
}
