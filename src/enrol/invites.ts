/**
 * Invitations to sign in to one mailbox. In: accounts. Out: keys, each good for a day and one sign-in, of which
 * only digests are kept. Owns them.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { type Clock, systemClock } from '../clock.ts';

/** A key is good for a day, ms. */
const LIFE_MS = 24 * 60 * 60_000;
/** 256 bits: not to be guessed, whatever is tried. */
const KEY_OCTETS = 32;

export interface Invite {
  readonly accountId: string;
  /** `used`: somebody signed in with it, and it does nothing more. */
  readonly state: 'open' | 'used';
  /** ms since the epoch. */
  readonly until: number;
}

export interface Invites {
  /** Ends an earlier one for the account. */
  make(accountId: string): { readonly key: string; readonly until: number };
  /** Undefined: no such key, or its day is over. Takes the same time whatever of the key is right. */
  find(key: string): Invite | undefined;
  /** Somebody signed in to the account: its key is spent. */
  spend(accountId: string): void;
  /** The account is gone, and its key with it. */
  forget(accountId: string): void;
  snapshot(): unknown;
  /** Throws where `kept` is nothing it gave. */
  restore(kept: unknown): void;
}

const digest = (key: string): Buffer => createHash('sha256').update(key).digest();

export function createInvites(clock: Clock = systemClock): Invites {
  let invites: readonly (Invite & { readonly digest: Buffer })[] = [];
  const tidy = (): void => {
    invites = invites.filter(({ until }) => until > clock.now());
  };
  return {
    make(accountId) {
      tidy();
      const key = randomBytes(KEY_OCTETS).toString('base64url');
      const until = clock.now() + LIFE_MS;
      invites = [
        ...invites.filter((invite) => invite.accountId !== accountId),
        { accountId, state: 'open', until, digest: digest(key) },
      ];
      return { key, until };
    },
    find(key) {
      tidy();
      const wanted = digest(key);
      return invites.filter((invite) => timingSafeEqual(invite.digest, wanted))[0];
    },
    spend(accountId) {
      invites = invites.map((invite) =>
        invite.accountId === accountId ? { ...invite, state: 'used' } : invite,
      );
    },
    forget(accountId) {
      invites = invites.filter((invite) => invite.accountId !== accountId);
    },
    snapshot: () => invites.map((invite) => ({ ...invite, digest: invite.digest.toString('hex') })),
    restore(kept) {
      // A state of a version without invitations.
      if (kept === undefined) return;
      if (!Array.isArray(kept)) throw new Error('no invitations');
      invites = kept.map((invite: Record<string, unknown>) => {
        const { accountId, state, until, digest: hex } = invite;
        if (
          typeof accountId !== 'string' ||
          (state !== 'open' && state !== 'used') ||
          typeof until !== 'number' ||
          typeof hex !== 'string' ||
          !/^[0-9a-f]{64}$/.test(hex)
        )
          throw new Error('no invitation');
        return { accountId, state, until, digest: Buffer.from(hex, 'hex') };
      });
      tidy();
    },
  };
}
