/**
 * The running relay's token store in the hands of a command. In: settings. Out: a store that knows the newest
 * refresh tokens and keeps rotated ones, but removes nothing: a command may know only some of the accounts.
 */
import { stat } from 'node:fs/promises';
import type { Settings } from '../config.ts';
import { silentLog } from '../log.ts';
import { createTokenStore } from '../tokens/open-store.ts';
import { createMemoryStore } from '../tokens/store-memory.ts';
import type { TokenStore } from '../tokens/token-store.ts';
import { CommandError, EXIT_CONFIGURATION } from './definition.ts';

export async function borrowTokenStore(settings: Settings): Promise<TokenStore> {
  const { stateDir, stateKey, store: storeUrl } = settings;
  // Files that root writes could not be read by the service's user any more.
  if (stateDir !== undefined && !(await isOwn(stateDir))) return createMemoryStore();
  try {
    const store = createTokenStore({ stateDir, stateKey, storeUrl, role: 'guest', log: silentLog });
    return { ...store, prune: async () => ({ gone: 0, kept: [] }) };
  } catch (error) {
    throw new CommandError((error as Error).message, EXIT_CONFIGURATION, { cause: error });
  }
}

const isOwn = async (directory: string): Promise<boolean> =>
  (await stat(directory).catch(() => undefined))?.uid === process.getuid?.();
