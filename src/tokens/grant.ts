/** What is known of a grant. Types only. */
import type { Secret } from '../accounts/credential.ts';
import type { GrantState } from './grant-state.ts';

/** A refresh token that is tried before an account is given up. */
export interface Spare {
  readonly refreshToken: Secret;
  /** As in the grant. */
  readonly signedInAs: string | undefined;
}

/** One consent of one account. Written by the keeper and its saver alone. */
export interface Grant {
  readonly accountId: string;
  /** Hash of what the operator gave. */
  readonly fingerprint: string;
  /** The mailbox; undefined: not known, or nobody consents. */
  readonly user?: string | undefined;
  readonly state: GrantState;
  /** The newest refresh token; undefined: the operator's own. */
  readonly refreshToken: Secret | undefined;
  /** ms since the epoch. */
  readonly obtainedAt: number | undefined;
  /** Counts the rotations. */
  readonly generation: number;
  /** For which mailbox a person signed in anew, in place of what the operator gave; undefined: nobody did. */
  readonly signedInAs: string | undefined;
  /** When, ms since the epoch; undefined: that is not known. */
  readonly signedInAt: number | undefined;
  /** When the store last had nothing later, monotonic ms; undefined: it was never read. */
  readonly seenAt: number | undefined;
  /** How often in a row the store could not take it. */
  readonly failedSaves: number;
  /** What is unsaved is in this relay's own directory, although not in the store that relays share. */
  readonly isHere: boolean;
  /** Given to us, but the store has a later one; or what somebody signed in for under another name, where ours is no good. */
  readonly spare: Spare | undefined;
}
