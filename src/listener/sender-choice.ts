/**
 * Who may send as whom on a listener. In: MAIL FROM and what is known of the client. Out: the accounts
 * that may take the message, or the refusal, which names the setting that would help. Pure.
 */
import type { Account } from '../accounts/account.ts';
import { type AccountDirectory, type Candidate, matchOf } from '../accounts/directory.ts';
import { hasNonAscii } from '../protocol/path.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import { foldAddress } from '../protocol/text.ts';
import type { Choice } from '../relay/choice.ts';
import type { ListenerOptions } from './options.ts';

/** What matters of the client. */
export interface SenderFacts {
  readonly auth: { readonly account: Account } | undefined;
  readonly isTrusted: boolean;
}

const AUTH_FIRST = reply(530, '5.7.0', 'Authentication required');
/** Its mail waits: whoever keeps sessions open may have the new password by now, for the next one. */
const AUTH_AGAIN = reply(421, '4.7.0', 'The password of this account has changed, log in again');

/** Whether the listener lets this account be used on it. */
export const serves = ({ accounts }: Pick<ListenerOptions, 'accounts'>, account: Account): boolean =>
  accounts === undefined ||
  accounts.includes(foldAddress(account.id)) ||
  accounts.includes(foldAddress(account.email));

/** How the mail of `sender` leaves by this account: a foreign sender may be rewritten. */
export const toChoice = ({ account, exactness, rank }: Candidate, sender: string): Choice => ({
  account,
  exactness,
  rank,
  sender: account.rewriteSender === true && exactness === 'any' ? account.email : sender,
});

/** The accounts for `sender` (`''`: the null sender), first choice first; never empty. */
export function choicesFor(
  sender: string,
  facts: SenderFacts,
  options: Pick<ListenerOptions, 'accounts' | 'authRequired'>,
  directory: AccountDirectory,
): readonly Choice[] | Reply {
  if (facts.auth !== undefined) {
    const account = directory.byId(facts.auth.account.id);
    if (account === undefined) return reply(451, '4.7.1', 'The account is no longer served here');
    // Its mail waits until its entry is mended; what its password was is not known meanwhile.
    if (directory.problemOf(account.id) !== undefined)
      return reply(451, '4.3.5', `The accounts file has a mistake in account ${account.id}`);
    const isOpen = account.clientPassword === undefined;
    if (account.clientPassword?.hash !== facts.auth.account.clientPassword?.hash) return AUTH_AGAIN;
    if (isOpen && (!facts.isTrusted || options.authRequired)) return AUTH_FIRST;
    if (!serves(options, account)) return notHere(account);
    // Who has logged in needs no `<>` among the senders.
    const match: Candidate | undefined =
      sender === '' ? { account, exactness: 'address', rank: 0 } : matchOf(account, sender);
    if (match === undefined)
      return reply(
        550,
        '5.7.1',
        `<${sender}> is not a sender of account ${account.id}: ${help(sender)} to its "senders"`,
      );
    // A login without a password gives no more than none: another's mailbox with a password stays closed.
    const [best] = isOpen && sender !== '' ? directory.candidates(sender) : [];
    if (best?.account.clientPassword !== undefined && best.rank < match.rank) return AUTH_FIRST;
    return [toChoice(match, sender)];
  }
  if (options.authRequired) return AUTH_FIRST;
  const all = directory.candidates(sender);
  const here = all.filter(({ account }) => serves(options, account));
  const [first] = here;
  if (first === undefined) return all[0] === undefined ? nobody(sender, directory) : notHere(all[0].account);
  // The best match decides: a mailbox with a password is not opened by another account's pattern.
  if (!facts.isTrusted || first.account.clientPassword !== undefined) return AUTH_FIRST;
  // Nor where that mailbox itself may not be used.
  const closed = all
    .slice(0, all.indexOf(first))
    .find((c) => c.account.clientPassword !== undefined && c.rank < first.rank);
  if (closed !== undefined) return notHere(closed.account);
  if (first.exactness !== 'address' && directory.hidesSenders) return mayBeAnothers(sender);
  // Its mail waits until its entry is mended; it does not leave by another.
  if (directory.problemOf(first.account.id) !== undefined) return [toChoice(first, sender)];
  return here
    .filter(
      ({ account: { id, clientPassword } }) =>
        clientPassword === undefined && directory.problemOf(id) === undefined,
    )
    .map((candidate) => toChoice(candidate, sender));
}

const notHere = (account: Account): Reply =>
  reply(550, '5.7.1', `Account ${account.id} may not be used on this listener (its "accounts")`);

/** A pattern takes what no other account names, and who is named in the entry that cannot be read nobody knows. */
const mayBeAnothers = (sender: string): Reply =>
  reply(
    451,
    '4.3.5',
    `<${sender}> may be a sender of an account whose entry in the accounts file has a mistake`,
  );

/** What to add where. */
function help(sender: string): string {
  const domain = sender.slice(sender.lastIndexOf('@') + 1);
  return `add it or "*@${domain}"`;
}

function nobody(sender: string, directory: AccountDirectory): Reply {
  const denier = directory.deniedBy(sender);
  if (denier !== undefined)
    return reply(
      550,
      '5.7.1',
      `<${sender}> is refused by "deny" of account ${denier.id}${hasNonAscii(sender) || /[@.]xn--/i.test(sender) ? ': past it, letters outside ASCII have to be named in "senders"' : ''}`,
    );
  // Nobody has set up anything yet, or what should have written the file has failed: the mail waits.
  if (directory.accounts.length === 0)
    return reply(451, '4.3.5', 'The accounts file has no account: add one with "xoauth2-relay account add"');
  // It may be the one whose entry has the mistake: its mail waits, it does not bounce.
  if (!directory.isComplete)
    return reply(451, '4.3.5', `No account for <${sender}>, and the accounts file has a mistake`);
  if (sender === '')
    return reply(
      550,
      '5.7.1',
      'The null sender names no account: authenticate, or add "<>" to "senders" of one',
    );
  return reply(
    550,
    '5.7.1',
    `No account for sender <${sender}>: ${help(sender)} to "senders" of one, or "*" with "rewrite_sender"`,
  );
}
