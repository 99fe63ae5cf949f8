/** Keeps grants as long as the process lives: the default where no state directory is given. */
import { type Clock, systemClock } from '../clock.ts';
import { latestFor } from './same-consent.ts';
import { afterRotation, isSameGrant, ownGrant, withGrant, withoutEnded, withToken } from './stored-grants.ts';
import type { KeptGrant, StoredGrant, TokenStore } from './token-store.ts';

export function createMemoryStore(clock: Clock = systemClock): TokenStore {
  const accounts = new Map<string, readonly StoredGrant[]>();
  /** Accounts with a rotated refresh token, by fingerprint. */
  const places = new Map<string, Set<string>>();
  /** Since when an account is missing, ms since the epoch. */
  const missing = new Map<string, number>();
  const grantsOf = (accountId: string): readonly StoredGrant[] => accounts.get(accountId) ?? [];
  return {
    kind: 'memory',
    open: async () => undefined,
    async load(id) {
      const grant = ownGrant(grantsOf(id.accountId), id);
      return grant && withoutEnded(grant, clock.now());
    },
    elsewhere: async (holder) =>
      latestFor(
        holder,
        [...(places.get(holder.fingerprint) ?? [])]
          .filter((id) => id !== holder.accountId)
          .map((id) => ownGrant(grantsOf(id), holder)),
      ),
    async rotate({ accountId, fingerprint }, rotation) {
      const tokens = await rotation.tokens;
      const kind = { grantFingerprint: fingerprint, signedInAs: rotation.signedInAs };
      const grants = grantsOf(accountId);
      const stored = grants.find((each) => isSameGrant(each, kind));
      const { result, grant } = afterRotation(stored, fingerprint, rotation, tokens);
      accounts.set(accountId, withGrant(grants, grant));
      places.set(fingerprint, (places.get(fingerprint) ?? new Set()).add(accountId));
      return result;
    },
    async saveToken(id, resource, token) {
      const grants = grantsOf(id.accountId);
      const grant = withToken(ownGrant(grants, id), id.fingerprint, resource, token);
      accounts.set(id.accountId, withGrant(grants, grant));
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
