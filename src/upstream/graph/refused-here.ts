/** What Graph must not be asked at all. In: a message of an account. Out: the refusal, or nothing. Pure. */
import type { Account } from '../../accounts/account.ts';
import { maySendAs } from '../../accounts/directory.ts';
import type { Mail } from '../../protocol/esmtp.ts';
import { parseFromAddresses } from '../../protocol/from-header.ts';
import { HEADER_TOO_LONG, headerEnd, MAX_HEADER_OCTETS } from '../../protocol/message-header.ts';
import { type Reply, reply } from '../../protocol/reply.ts';

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
