/**
 * As whom the relay of a state directory runs, for root who works there. In: the directory, what is known of its records.
 * Out: the user, undefined where anybody may be it. Owns nothing.
 */
import { lstat, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Account } from '../accounts/account.ts';
import type { Credential, Secret } from '../accounts/credential.ts';
import { systemClock } from '../clock.ts';
import { silentLog } from '../log.ts';
import { createGrantFiles, fileNameOf } from './grant-files.ts';
import { grantFingerprint } from './grant-form.ts';
import { createProcesses } from './process-mark.ts';
import { createSealer } from './sealing.ts';
import { type FileOwner, stateFilesOf } from './state-files.ts';

export interface KnownRecords {
  readonly stateKey: Secret | undefined;
  readonly accounts: readonly { readonly account: Account; readonly credential: Credential }[];
}

/** What a relay makes there. */
const OURS = /^(?:relay\.lock|missing\.json)$|\.grant(?:\.|$)|\.lock$/;
/** The first ones may be damaged, or of accounts that are gone. */
const FILES_TRIED = 50;

/**
 * A volume of a container is root's, and what is in it the relay's: who has all of it. Where a group may write, any of its
 * members may have put a file there: one counts that only the relay can have written.
 */
export async function userOf(directory: string, known: KnownRecords): Promise<FileOwner | undefined> {
  const { uid, gid, mode } = await stat(directory);
  if (uid !== 0 || (mode & 0o022) === 0) return { uid, gid };
  // Where anybody may put a file its owner says nothing.
  if ((mode & 0o002) !== 0) return undefined;
  const names = (await readdir(directory)).filter((name) => OURS.test(name));
  const owners = new Map<number, FileOwner>();
  for (const name of names) {
    // A relay that just stops takes its lock away.
    const owner = await lstat(join(directory, name)).catch(() => undefined);
    if (owner !== undefined) owners.set(owner.uid, { uid: owner.uid, gid: owner.gid });
  }
  const [owner] = owners.size === 1 ? owners.values() : [];
  return owner !== undefined && (await isProved(directory, names, owner, known)) ? owner : undefined;
}

/** Whether one of the files holds what nobody knows without the state key or the accounts file. */
async function isProved(
  directory: string,
  names: readonly string[],
  owner: FileOwner,
  { stateKey, accounts }: KnownRecords,
): Promise<boolean> {
  const grantFiles = createGrantFiles(directory, {
    files: stateFilesOf(owner),
    sealer: stateKey === undefined ? undefined : createSealer(stateKey),
    processes: createProcesses(),
    clock: systemClock,
    log: silentLog,
    isOwner: false,
  });
  if (stateKey !== undefined)
    for (const name of names.filter((each) => each.endsWith('.grant')).slice(0, FILES_TRIED))
      if ((await grantFiles.kindOf(join(directory, name))) === 'sealed') return true;
  const there = new Set(names);
  for (const { account, credential } of accounts) {
    // The fingerprint of anything else is no secret.
    if (credential.grant !== 'refresh_token' || !there.has(fileNameOf(account.id))) continue;
    const fingerprint = grantFingerprint(credential);
    const grants = (await grantFiles.readQuietly(grantFiles.pathOf(account.id))) ?? [];
    if (grants.some((grant) => grant.grantFingerprint === fingerprint)) return true;
  }
  return false;
}
