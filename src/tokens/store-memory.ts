/** Keeps grants as long as the process lives: the default where no state directory is given. */
import type { StoredGrant, TokenStore } from './token-store.ts';

export function createMemoryStore(): TokenStore {
  const grants = new Map<string, StoredGrant>();
  return {
    kind: 'memory',
    open: async () => undefined,
    load: async (accountId) => grants.get(accountId),
    save: async (accountId, grant) => {
      grants.set(accountId, grant);
    },
    remove: async (accountId) => {
      grants.delete(accountId);
    },
    prune: async (accountIds) => {
      const gone = [...grants.keys()].filter((id) => !accountIds.has(id));
      for (const id of gone) grants.delete(id);
      return gone.length;
    },
    close: async () => grants.clear(),
  };
}
