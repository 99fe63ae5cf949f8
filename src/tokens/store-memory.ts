/** Keeps grants as long as the process lives: the default where no state directory is given. */
import { type Clock, systemClock } from '../clock.ts';
import { latestFor } from './same-consent.ts';
import { afterRotation, withoutEnded, withToken } from './stored-text.ts';
import type { KeptGrant, StoredGrant, TokenStore } from './token-store.ts';

export function createMemoryStore(clock: Clock = systemClock): TokenStore {
  /** By account, then by fingerprint. */
  const accounts = new Map<string, Map<string, StoredGrant>>();
  /** Accounts with a rotated refresh token, by fingerprint. */
  const places = new Map<string, Set<string>>();
  /** Since when an account is missing, ms since the epoch. */
  const missing = new Map<string, number>();
  const grantsOf = (accountId: string): Map<string, StoredGrant> => {
    const known = accounts.get(accountId) ?? new Map<string, StoredGrant>();
    accounts.set(accountId, known);
    return known;
  };
  return {
    kind: 'memory',
    open: async () => undefined,
    async load({ accountId, fingerprint }) {
      const grant = accounts.get(accountId)?.get(fingerprint);
      return grant && withoutEnded(grant, clock.now());
    },
    elsewhere: async (holder) =>
      latestFor(
        holder,
        [...(places.get(holder.fingerprint) ?? [])]
          .filter((id) => id !== holder.accountId)
          .map((id) => accounts.get(id)?.get(holder.fingerprint)),
      ),
    async rotate({ accountId, fingerprint }, rotation) {
      const tokens = await rotation.tokens;
      const stored = grantsOf(accountId).get(fingerprint);
      const { result, grant } = afterRotation(stored, fingerprint, rotation, tokens);
      grantsOf(accountId).set(fingerprint, grant);
      places.set(fingerprint, (places.get(fingerprint) ?? new Set()).add(accountId));
      return result;
    },
    async saveToken({ accountId, fingerprint }, resource, token) {
      const grants = grantsOf(accountId);
      grants.set(fingerprint, withToken(grants.get(fingerprint), fingerprint, resource, token));
    },
    async prune(accountIds, forgetAfterMs) {
      const now = clock.now();
      const kept: KeptGrant[] = [];
      let gone = 0;
      for (const accountId of [...accounts.keys()]) {
        if (accountIds.has(accountId)) {
          missing.delete(accountId);
          continue;
        }
        const until = (missing.get(accountId) ?? now) + forgetAfterMs;
        if (until > now) {
          missing.set(accountId, until - forgetAfterMs);
          kept.push({ accountId, until });
        } else {
          accounts.delete(accountId);
          missing.delete(accountId);
          gone += 1;
        }
      }
      return { gone, kept };
    },
    close: async () => accounts.clear(),
  };
}
