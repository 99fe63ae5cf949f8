/**
 * The running relay's token store in the hands of a command. In: settings. Out: a store, open, that knows the newest
 * refresh tokens and keeps rotated ones, but removes nothing: a command may know only some of the accounts.
 */
import { statSync } from 'node:fs';
import type { LoadedAccount } from '../accounts/build-account.ts';
import { explainFileError } from '../accounts/secret-source.ts';
import type { Settings } from '../config.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { type Log, silentLog } from '../log.ts';
import { type KnownRecords, userOf } from '../tokens/directory-user.ts';
import { createTokenStore } from '../tokens/open-store.ts';
import { SealError } from '../tokens/sealing.ts';
import { codeOf, type FileOwner } from '../tokens/state-files.ts';
import type { TokenStore } from '../tokens/token-store.ts';
import { EXIT_CONFIGURATION } from './definition.ts';

/** `note`: what keeps the store from being of use, a line each. `accounts`: as far as known. Rejects with `OperatorError`. */
export async function borrowTokenStore(
  settings: Settings,
  note: (line: string) => void,
  accounts: readonly Pick<LoadedAccount, 'account' | 'credential'>[],
): Promise<TokenStore> {
  const { stateDir, stateKey, store: storeUrl } = settings;
  const kind = /^(?:memory$|redis)/.exec(storeUrl?.reveal() ?? '')?.[0];
  const log = errorsTo(note);
  const open = async (directory: string | undefined): Promise<TokenStore> => {
    const owner = directory === undefined ? undefined : await ownerOf(directory, { stateKey, accounts });
    try {
      const store = createTokenStore({ stateDir: directory, stateKey, storeUrl, role: 'guest', owner, log });
      await store.open();
      return { ...store, prune: async () => ({ gone: 0, kept: [] }) };
    } catch (error) {
      throw new OperatorError((error as Error).message, EXIT_CONFIGURATION, { cause: error });
    }
  };
  if (kind === undefined) return open(stateDir);
  // Beside the shared one it is the place for what that cannot take, and may have what that lacks.
  const isBeside = kind === 'redis' && stateDir !== undefined && mayBeThere(stateDir);
  return open(isBeside ? stateDir : undefined);
}

/** What is in a directory that this user may not enter is not known. */
function mayBeThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    return !['ENOENT', 'ENOTDIR'].includes(codeOf(error) ?? '');
  }
}

/** Each once. */
function errorsTo(note: (line: string) => void): Log {
  const told = new Set<string>();
  return {
    ...silentLog,
    error(fields, text) {
      const { reason } = fields as { readonly reason?: unknown };
      const line = typeof reason === 'string' ? `${text}: ${reason}` : text;
      if (!told.has(line)) note(line);
      told.add(line);
    },
  };
}

/**
 * As whom root works there: what it makes its relay has to read. Undefined: as this user, also where it is to be made:
 * what a provider gives has to stay. Rejects with `OperatorError` where the newest refresh tokens are another user's, with
 * earlier ones nothing is asked, or where it is not known whose they will be.
 */
async function ownerOf(directory: string, known: KnownRecords): Promise<FileOwner | undefined> {
  const own = process.geteuid?.();
  if (own === undefined) return undefined;
  try {
    const owner = await userOf(directory, known);
    if (owner?.uid === own) return undefined;
    if (own !== 0 && owner !== undefined)
      throw new OperatorError(
        `the state directory ${directory} belongs to another user (uid ${owner.uid}; this is uid ${own}), and the newest refresh tokens are there: run this as that user, or as root`,
        EXIT_CONFIGURATION,
      );
    if (own === 0 && owner === undefined)
      throw new OperatorError(
        `others than root may write into the state directory ${directory}, and no file there proves as whom the relay runs, which could not read what root puts there: run this as the user of the relay`,
        EXIT_CONFIGURATION,
      );
    return owner;
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    if (codeOf(error) === 'ENOENT') return undefined;
    if (error instanceof SealError)
      throw new OperatorError(error.message, EXIT_CONFIGURATION, { cause: error });
    throw new OperatorError(
      `cannot look into the state directory ${directory}, where the newest refresh tokens are: ${explainFileError(error)}; run this as the user of the relay, or as root`,
      EXIT_CONFIGURATION,
      { cause: error },
    );
  }
}
