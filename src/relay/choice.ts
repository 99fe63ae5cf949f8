/**
 * Which of several accounts takes a message. In: those that may send as the sender, and what is known of
 * them now. Out: the order in which they are tried: the most exact match first, then preference, then
 * room. Pure.
 */
import type { Account } from '../accounts/account.ts';
import { type Candidate, isPreferred } from '../accounts/directory.ts';
import type { ChosenBy } from '../protocol/vocabulary.ts';

/** One account that may take the message. */
export interface Choice extends Candidate {
  readonly account: Account;
  /** MAIL FROM where this account takes it; differs where the account rewrites foreign senders. */
  readonly sender: string;
}

/** Why the first of `order` (as `inOrder` made it) comes before the second. */
export function whyFirst(order: readonly Choice[], room: (account: Account) => number): ChosenBy {
  const [first, second] = order;
  if (first === undefined || second === undefined) return 'order';
  if (first.rank !== second.rank) return 'exactness';
  if (isPreferred(first, second)) return 'preference';
  return room(first.account) > room(second.account) ? 'room' : 'order';
}

/** Why an account was passed over, for the log. */
export interface PassedOver {
  readonly account: string;
  readonly why: string;
}

/** `room`: from 0 (none) to 1, asked once for each. Stable: where all is equal the order stays. */
export function inOrder(choices: readonly Choice[], room: (account: Account) => number): readonly Choice[] {
  if (choices.length < 2) return choices;
  const rooms = new Map(choices.map((choice) => [choice, room(choice.account)]));
  return [...choices].sort((a, b) => {
    if (isPreferred(a, b)) return -1;
    if (isPreferred(b, a)) return 1;
    return (rooms.get(b) ?? 0) - (rooms.get(a) ?? 0);
  });
}
