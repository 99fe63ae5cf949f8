/**
 * The front door of the relay: what a listener needs to know and nothing more. A listener turns its
 * protocol into `mail`, `rcpt`, `body`; every answer is a `Reply` for exactly that command.
 */
import type { Account, FirstRecipient } from '../accounts/account.ts';
import type { Mail, Recipient } from '../protocol/esmtp.ts';
import type { Reply } from '../protocol/reply.ts';
import type { Soon } from '../soon.ts';
import type { Choice } from './choice.ts';

export type { FirstRecipient } from '../accounts/account.ts';

/** Facts of the client session, for the log line. */
export interface SessionFacts {
  readonly id: string;
  readonly remoteAddress: string;
  readonly confinedTo?: string | undefined;
  readonly mayBeGone?: Mail['mayBeGone'];
  readonly heard?: Mail['heard'];
}

/** ESMTP parameters as they go out again, `KEYWORD` or `KEYWORD=value` with xtext values still encoded. */
export type Parameters = readonly string[];

export interface MailCommand {
  /** The first choice. */
  readonly account: Account;
  /** Reverse-path without angle brackets; empty for the null sender. */
  readonly sender: string;
  /** The reverse-path as the client gave it, where another goes out in its place. */
  readonly clientSender?: string;
  readonly parameters: Parameters;
  readonly session: SessionFacts;
  /** The body may get longer than the client said: SIZE goes only with a MAIL that leaves after it was seen. */
  readonly isSizeUnsure?: boolean;
  /** What the first recipient hears where it comes alone; default `deferred`. The account's own choice goes before it. */
  readonly firstRecipient?: FirstRecipient;
  /** All accounts that may take it, first choice included; absent where there is one. */
  readonly choices?: readonly Choice[];
}

/**
 * Takes the message body after 354: content octets with dot-stuffing already removed, byte for byte,
 * the CRLF that ends the last line included, the final `.CRLF` not.
 */
export interface BodyWriter {
  /** Takes a chunk (it may be kept: do not reuse the memory). A promise means: wait for it before the next chunk. Never rejects. */
  write(chunk: Buffer): Promise<void> | undefined;
  /** What the client declared as SIZE is not true any more: a MAIL that has not left yet goes without it. */
  sizeChanged(): void;
  /** The header section that was written is ours, in place of this one. */
  headerChanged(clientHeader: Buffer): void;
  /** The body is complete: the final reply, 250 only after the provider's 250. Never rejects. */
  end(): Promise<Reply>;
  /** The client is gone or the message is refused locally: nothing may be delivered; after `end`, what still waits is not sent. Idempotent. */
  abort(): void;
  /** After `end`, where nobody can wait for the provider any longer: `end` resolves soon, with "unknown" where the last octet has left. */
  giveUp(): void;
}

/** One transaction: MAIL to final reply. */
export interface Transaction {
  /** ULID-like id, also in the log line. */
  readonly id: string;
  /** Octets of its body that may have to be held at once. */
  readonly mostHeld: number;
  /** RCPTs that came together: a reply for each, in order, from the provider where it can be asked. Never rejects. */
  rcpt(recipients: readonly Recipient[]): Soon<readonly Reply[]>;
  /** At DATA: a refusal that is already certain, else undefined: send 354 and write the body. */
  refusalAtData(): Reply | undefined;
  /** After 354. Call once. */
  body(): BodyWriter;
  /** RSET, QUIT, EHLO or the client gone before `body().end()`: frees everything. Idempotent; a no-op after the final reply. */
  abort(): void;
}

export interface Relay {
  /** MAIL: the account gate. A transaction where the reply is 250. Never rejects. */
  mail(command: MailCommand): Soon<{
    readonly reply: Reply;
    readonly transaction?: Transaction;
    /** The account that takes it, where it is not the first choice. */
    readonly account?: Account;
  }>;
}
