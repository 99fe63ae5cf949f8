/** A message on its way by Graph: what goes out, and by what it is known again. In: a message and its envelope. */
import type { Heard, Mail, Recipient } from '../../protocol/esmtp.ts';
import { parseHeader } from '../../protocol/message-header.ts';
import { ledgerKey, messageIdOf, type Subject, senderMark } from './ledger.ts';

export interface Outgoing {
  /** As it goes out, To, Cc and Bcc included. */
  readonly message: Buffer;
  readonly recipients: readonly string[];
  readonly sender: string;
  /** `senderMark` of the sender as the client gave it. */
  readonly senderMark: string;
  /** Of the ledger (`ledgerKey`). */
  readonly key: string;
  /** The same of this message to others. */
  readonly keyFor: (recipients: readonly string[]) => string;
  /** The same of this message to anybody. */
  readonly family: string;
  /** It goes to some of the recipients of an earlier attempt, whose `key` this is; that one's subject. */
  readonly partOf?: Subject | undefined;
  /** To one of them: the claim on that attempt is given back before its client is told. */
  readonly isAlone?: boolean;
  /** With angle brackets, as it goes out; undefined where it has none. */
  readonly messageId: string | undefined;
  /** The client gave it its Message-ID: what looks the same is its retry. */
  readonly isNamed: boolean;
  /** The client has left: nobody would hear the 250. */
  readonly isClientGone: () => boolean;
  /** The client has left, or does not wait for the reply, which looks the same until it is told something. */
  readonly mayNotHear: () => boolean;
  /** Asked while the 250 is due: whether the client has heard it. */
  readonly heard: () => Promise<Heard>;
}

/** Of `message`, as it came to the way. */
export function outgoingOf(
  mail: Mail,
  recipients: readonly Recipient[],
  message: Buffer,
  isClientGone: () => boolean,
): Outgoing {
  const addresses = recipients.map((r) => r.address);
  const header = parseHeader(message);
  const own = mail.clientHeader === undefined ? header : parseHeader(mail.clientHeader);
  const keyFor = (to: readonly string[]): string => ledgerKey(to, message, header, own, mail.confinedTo);
  return {
    message,
    recipients: addresses,
    sender: mail.sender,
    senderMark: senderMark(mail.clientSender ?? mail.sender),
    key: keyFor(addresses),
    keyFor,
    family: keyFor([]),
    messageId: messageIdOf(header),
    isNamed: messageIdOf(own) !== undefined,
    isClientGone,
    mayNotHear: () => isClientGone() || mail.mayBeGone?.() === true,
    heard: mail.heard ?? (async () => 'yes'),
  };
}
