/**
 * A way of an account to its provider: the one thing the relay knows of the upstream room. In: an
 * envelope and a body. Out: the verdict, as a value; nothing here rejects. A way states what it can do
 * (`WayFacts`); the relay goes by the facts and does not know which way it is.
 */

import type { Account } from '../accounts/account.ts';
import type { Capabilities } from '../protocol/capabilities.ts';
import type { Mail, Recipient } from '../protocol/esmtp.ts';
import type { Reply } from '../protocol/reply.ts';
import type { Verdict } from '../protocol/verdict.ts';
import type { Soon } from '../soon.ts';
import type { FlightCount } from './flight-times.ts';

export interface WayFacts {
  /** `live`: each recipient can be asked for before the body. `at_end`: every recipient hears 250, and the verdict on the message is that on all. */
  readonly recipients: 'live' | 'at_end';
  /** `streams`: a body can be handed over while it comes in. `whole`: all of it at once, so it is held up to `maxBytes`. */
  readonly body: 'streams' | 'whole';
  /** Bodies up to this many octets are held before they stream, where that is more than elsewhere. */
  readonly heldAtLeast?: number;
  /** Largest message, octets; advertised as SIZE, larger ones are refused with 552. */
  readonly maxBytes: number;
  /** Where another way could take what this one cannot: such a message waits with this reply. */
  readonly otherwise?: Reply | undefined;
  /** Messages at once for a mailbox, over all relays, where that is less than its connections. */
  readonly atOnce?: number;
  /** `MAIL FROM:<>` and `RCPT TO:<Postmaster>` pass, or are refused with 550. */
  readonly withoutDomain: 'passes' | 'refused';
  /** What the parameters of MAIL and RCPT are fitted to; undefined while it is not known. */
  readonly capabilities: Capabilities | undefined;
}

/** What a message hears that this way cannot take. */
export const heardFor = (refusal: Reply, { otherwise }: Pick<WayFacts, 'otherwise'>): Reply =>
  otherwise === undefined ? refusal : { ...otherwise, text: `${refusal.text}; it waits: ${otherwise.text}` };

/** By which protocol mail leaves. */
export type WayName = 'smtp' | 'graph';

export interface Way {
  readonly account: Account;
  readonly facts: WayFacts;
  /** At MAIL, before any body is sent: the refusal where mail cannot go now. May wait for a token or a connection. */
  ready(): Soon<Reply | undefined>;
  /** A transaction begins. `close` the delivery in any case. */
  begin(trace: Trace, mayBegin?: MayBegin): Delivery;
}

/**
 * Asked when all is there and nothing of the message has left: undefined where it may go out, else a wait that ends
 * with undefined, or with the verdict that it may not. What has begun may go on.
 */
export type MayBegin = () => Promise<Verdict | undefined> | undefined;

/** What is told of a delivery in the record of its transaction; filled as it goes, times in ms. */
export interface Trace extends FlightCount {
  way: WayName;
  /** Round trips made upstream, replays included; 0: nothing was sent. */
  flights: number;
  /** Whether a warm connection served it. */
  reused: boolean;
  /** Whether it was replayed on another connection. */
  replayed: boolean;
  /** Upstream connection id, for matching log lines. */
  connection: string | undefined;
  /** The provider's own words that decided; undefined while it decided nothing. */
  upstreamReply: Reply | undefined;
  /** Wait for a connection. */
  acquireMs: number;
  /** From the first byte upstream to the final reply. */
  upstreamMs: number;
}

/** The provider took the message with this reply, or it did not; class `unknown` where nobody can tell. */
export type Ending = { readonly taken: Reply } | { readonly verdict: Verdict };

/** What came of asking for recipients. */
export type Asked =
  /** A reply for each; positive: part of the message. */
  | { readonly kind: 'heard'; readonly replies: readonly Reply[] }
  /** Trouble that concerns these recipients only: the others may still go. */
  | { readonly kind: 'failed'; readonly verdict: Verdict }
  /** Nothing more can come of this transaction. `everybody`: the verdict is each recipient's; `first`: only that of the first, which was promised. */
  | { readonly kind: 'refused'; readonly verdict: Verdict; readonly concerns: 'everybody' | 'first' };

/** One message on its way. One call at a time, except `close`. */
export interface Delivery {
  /** Asks for `asked`, where `told` have heard 250 already (from the provider, or from us as a promise). Only where recipients are `live`. */
  ask(mail: Mail, told: readonly Recipient[], asked: readonly Recipient[]): Promise<Asked>;
  /** The whole message: to all `told` or to nobody. */
  send(mail: Mail, told: readonly Recipient[], body: readonly Buffer[], octets: number): Promise<Ending>;
  /** Begins a message whose body is still coming in. Only where the body `streams`. */
  open(
    mail: Mail,
    told: readonly Recipient[],
  ): Promise<{ readonly stream: BodyStream } | { readonly verdict: Verdict }>;
  /** The transaction is over or the client gone: what is not complete is never delivered, what waits is not sent. Idempotent. */
  close(): void;
  /** As `close`, and what is awaited of the provider ends now: `unknown` where the last octet has left. */
  giveUp(): void;
}

/** A body on its way. */
export interface BodyStream {
  /** Takes a chunk; a promise means: wait before the next. Never rejects: a refusal or loss shows in `finish`. */
  push(chunk: Buffer): Promise<void> | undefined;
  /** The body is complete. */
  finish(): Promise<Ending>;
}

export interface Ways {
  /**
   * The way of an account that is served; undefined for any other. `others` can take the sender's mail too (account
   * ids): what one of them may have delivered already must not go a second time. `sender` as the client gave it.
   */
  of(accountId: string, others: readonly string[], sender: string): Way | undefined;
}
