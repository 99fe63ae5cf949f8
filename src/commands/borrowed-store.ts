/**
 * The running relay's token store in the hands of a command. In: settings. Out: a store, open, that knows the newest
 * refresh tokens and keeps rotated ones, but removes nothing: a command may know only some of the accounts.
 */
import { stat } from 'node:fs/promises';
import type { Settings } from '../config.ts';
import { type Log, silentLog } from '../log.ts';
import { createTokenStore } from '../tokens/open-store.ts';
import { createMemoryStore } from '../tokens/store-memory.ts';
import type { TokenStore } from '../tokens/token-store.ts';
import { CommandError, EXIT_CONFIGURATION } from './definition.ts';

/** `note`: what keeps the store from being of use, a line each. Rejects with `CommandError`. */
export async function borrowTokenStore(
  settings: Settings,
  note: (line: string) => void,
): Promise<TokenStore> {
  const { stateDir, stateKey, store: storeUrl } = settings;
  // Files that root writes could not be read by the service's user any more.
  if (stateDir !== undefined && !(await isOwn(stateDir))) return createMemoryStore();
  try {
    const store = createTokenStore({ stateDir, stateKey, storeUrl, role: 'guest', log: errorsTo(note) });
    await store.open();
    return { ...store, prune: async () => ({ gone: 0, kept: [] }) };
  } catch (error) {
    throw new CommandError((error as Error).message, EXIT_CONFIGURATION, { cause: error });
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

const isOwn = async (directory: string): Promise<boolean> =>
  (await stat(directory).catch(() => undefined))?.uid === process.getuid?.();
