/** What Graph must not be asked at all. In: a message of an account. Out: the refusal, or nothing. Pure. */
import type { Account } from '../../accounts/account.ts';
import { maySendAs } from '../../accounts/directory.ts';
import { ANY_ACCOUNT, cureOf } from '../../protocol/causes/book.ts';
import type { Mail } from '../../protocol/esmtp.ts';
import { parseFromAddresses } from '../../protocol/from-header.ts';
import type { Addressed } from '../../protocol/graph-addressing.ts';
import { HEADER_TOO_LONG, headerEnd, MAX_HEADER_OCTETS } from '../../protocol/message-header.ts';
import { type Reply, reply } from '../../protocol/reply.ts';
import { type Verdict, verdict } from '../../protocol/verdict.ts';
import { heardFor, type WayFacts } from '../way.ts';

const NULL_SENDER = reply(550, '5.7.1', 'the null sender cannot be used: Graph sends as the mailbox');

export function refusalOf(account: Account, mail: Mail, message: Buffer): Reply | undefined {
  if (mail.sender === '') return NULL_SENDER;
  const end = headerEnd(message);
  if (end > MAX_HEADER_OCTETS) return HEADER_TOO_LONG;
  const from = parseFromAddresses(message.toString('utf8', 0, end));
  const foreign = from?.find((address) => !maySendAs(account, address));
  if (from === undefined) return reply(550, '5.7.1', 'From: is missing, repeated or unreadable');
  return foreign === undefined
    ? undefined
    : reply(
        550,
        '5.7.1',
        `From: ${foreign} is not a sender of account ${account.id}; Graph sends as its mailbox`,
      );
}

const FOREIGN_WORDS = 'this account delivers by Graph to whomever the header names';

/** What is refused before Graph is asked. */
export interface RefusedHere {
  readonly verdict: Verdict;
}

/** Graph would mail others than those of the transaction. */
export function notAddressed(
  addressed: Exclude<Addressed, { readonly kind: 'ready' }>,
  facts: WayFacts,
): RefusedHere {
  const why =
    addressed.kind === 'foreign'
      ? `the header names ${addressed.addresses.slice(0, 5).join(', ')}, who is not in this transaction`
      : addressed.reason;
  const cause = 'graph-foreign-recipients';
  const text = `${FOREIGN_WORDS}: ${why}; ${cureOf(cause, ANY_ACCOUNT)}`;
  return refusedHere(reply(554, '5.6.0', text), facts, cause);
}

/** `cause`: of the book of causes. */
export function refusedHere(refusal: Reply, facts: WayFacts, cause?: string): RefusedHere {
  const answer = heardFor(refusal, facts);
  const meaning = answer.code < 500 ? 'message_temporary' : 'message_permanent';
  return { verdict: verdict(meaning, answer, cause === undefined ? {} : { cause }) };
}
