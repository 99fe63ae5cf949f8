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
  /** The mailbox it was made for: an entry may become another one. */
  readonly user: string;
  /** `used`: somebody signed in with it, and it does nothing more. */
  readonly state: 'open' | 'used';
  /** ms since the epoch. */
  readonly until: number;
}

export interface Invites {
  /** Ends an earlier one for the account. */
  make(accountId: string, user: string): { readonly key: string; readonly until: number };
  /** Undefined: no such key, or its day is over. Takes the same time whatever of the key is right. */
  find(key: string): Invite | undefined;
  /** Somebody signed in to the account: its key is spent. */
  spend(accountId: string): void;
  /** The account is gone, and its key with it. */
  forget(accountId: string): void;
  /** Made, spent or ended where another relay of the fleet told of it; undefined: ended. One that has ended here is told so again. Throws where it is no invitation. */
  take(accountId: string, told: unknown): void;
  snapshot(): unknown;
  /** Throws where `kept` is nothing it gave. */
  restore(kept: unknown): void;
}

/** JSON; holds no key. */
export interface ToldInvite extends Invite {
  readonly digest: string;
}

const digest = (key: string): Buffer => createHash('sha256').update(key).digest();

export function createInvites(deps: {
  readonly clock?: Clock;
  /** Whether there is such an account; what was made for others before this process began has ended with them. */
  readonly isKnown: (accountId: string) => boolean;
  /** An invitation of this account was made, spent or ended (undefined) here. */
  readonly onChange?: (accountId: string, invite: ToldInvite | undefined) => void;
}): Invites {
  const { clock = systemClock, isKnown, onChange } = deps;
  const startedAt = clock.now();
  /** Digests of those that were spent or ended here, until when: whoever has not heard of it may tell of them again. */
  const over = new Map<string, number>();
  let invites: readonly (Invite & { readonly digest: Buffer })[] = [];
  const isOf = (accountId: string) => (invite: Invite) => invite.accountId === accountId;
  const toldOf = (invite: Invite & { readonly digest: Buffer }): ToldInvite => ({
    ...invite,
    digest: invite.digest.toString('hex'),
  });
  const changed = (accountId: string): void => {
    const invite = invites.find(isOf(accountId));
    onChange?.(accountId, invite && toldOf(invite));
  };
  const tidy = (): void => {
    invites = invites.filter(({ until }) => until > clock.now());
    for (const [hex, until] of over) if (until <= clock.now()) over.delete(hex);
  };
  const noteOver = (accountId: string): void => {
    for (const { digest: octets, until } of invites.filter(isOf(accountId)))
      over.set(octets.toString('hex'), until);
  };
  /** It was ended here, or stood before this process began, whose accounts file has no such account. */
  const hasEnded = ({ accountId, digest: octets, until }: Invite & { readonly digest: Buffer }): boolean =>
    over.has(octets.toString('hex')) || (!isKnown(accountId) && until - LIFE_MS < startedAt);
  return {
    make(accountId, user) {
      tidy();
      noteOver(accountId);
      const key = randomBytes(KEY_OCTETS).toString('base64url');
      const until = clock.now() + LIFE_MS;
      invites = [
        ...invites.filter((invite) => invite.accountId !== accountId),
        { accountId, user, state: 'open', until, digest: digest(key) },
      ];
      changed(accountId);
      return { key, until };
    },
    find(key) {
      tidy();
      const wanted = digest(key);
      return invites.filter((invite) => timingSafeEqual(invite.digest, wanted))[0];
    },
    spend(accountId) {
      if (!invites.some(isOf(accountId))) return;
      noteOver(accountId);
      invites = invites.map((invite) =>
        invite.accountId === accountId ? { ...invite, state: 'used' } : invite,
      );
      changed(accountId);
    },
    forget(accountId) {
      if (!invites.some(isOf(accountId))) return;
      noteOver(accountId);
      invites = invites.filter((invite) => invite.accountId !== accountId);
      changed(accountId);
    },
    take(accountId, told) {
      const invite = told === undefined ? undefined : { ...parseInvite(told), accountId };
      const own = invites.find(isOf(accountId));
      if (invite !== undefined && hasEnded(invite)) {
        const isSame = own?.state === invite.state && own.digest.equals(invite.digest);
        if (!isSame) changed(accountId);
        return;
      }
      invites = invites.filter((each) => each !== own);
      if (invite !== undefined) invites = [...invites, invite];
      tidy();
    },
    snapshot: () => invites.map(toldOf),
    restore(kept) {
      // A state of a version without invitations.
      if (kept === undefined) return;
      if (!Array.isArray(kept)) throw new Error('no invitations');
      invites = kept
        // Of a version whose invitations were for whichever mailbox the account was: they have ended.
        .filter((invite) => (invite as Partial<Invite> | null)?.user !== undefined)
        .map(parseInvite)
        .filter(({ accountId }) => isKnown(accountId));
      tidy();
    },
  };
}

function parseInvite(told: unknown): Invite & { readonly digest: Buffer } {
  const { accountId, user, state, until, digest: hex } = (told ?? {}) as Record<string, unknown>;
  if (
    typeof accountId !== 'string' ||
    typeof user !== 'string' ||
    (state !== 'open' && state !== 'used') ||
    typeof until !== 'number' ||
    typeof hex !== 'string' ||
    !/^[0-9a-f]{64}$/.test(hex)
  )
    throw new Error('no invitation');
  return { accountId, user, state, until, digest: Buffer.from(hex, 'hex') };
}
