/**
 * What is known of messages handed to Graph, across the client's retries and our restarts. In: the key of
 * a message and what became of it. Out: the right to work on it, one at a time, with what was known.
 * Kept where tokens are kept: in memory, in the state directory, or in Redis for several relays.
 */
import { createHash } from 'node:crypto';
import { type MessageHeader, parseHeader } from '../../protocol/message-header.ts';
import { parseJsonObject } from '../../protocol/token-failure.ts';

/** Longer than a mail server keeps a message in its queue (Postfix: 5 days). */
export const KEEP_MS = 5 * 24 * 60 * 60_000;
/** A right to work whose holder died ends after this; above the longest delivery. */
export const CLAIM_MS = 5 * 60_000;

export type LedgerEntry =
  /** A draft may have been created, its id is not known. */
  | { readonly state: 'creating'; readonly at: number }
  /** The draft was created; whether it was sent says the draft itself. */
  | {
      readonly state: 'draft';
      readonly at: number;
      readonly draft: string;
      /** Since then other drafts of the message may have been left over; ms since the epoch. */
      readonly leftoversSince?: number;
    }
  /** One call, under way or without a clear end: nobody can tell. */
  | { readonly state: 'sending'; readonly at: number }
  /** Sent for certain. */
  | { readonly state: 'sent'; readonly at: number; readonly messageId?: string };

/** The right to work on one message. */
export interface Claim {
  /** What was known when the claim was taken. */
  readonly known: LedgerEntry | undefined;
  /** Durable when it resolves: neither a crash nor another relay will miss it. Rejects when it could not be kept. */
  note(entry: LedgerEntry): Promise<void>;
  /** Nothing of the message is left at Graph: forget it. Never rejects. */
  forget(): Promise<void>;
  /** The work is over; what was noted stays. Idempotent; never rejects. */
  release(): Promise<void>;
}

export interface Ledger {
  /** First of all. Rejects where the place cannot be used as configured. */
  open(): Promise<void>;
  /** `busy`: somebody works on this very message now. Rejects when it cannot be known. */
  claim(key: string): Promise<Claim | 'busy'>;
  close(): Promise<void>;
}

/** Written anew at every stop on the way; a retry has others. */
const TRACE_FIELDS =
  /^(received|x-received|return-path|delivered-to|x-original-to|dkim-signature|authentication-results|arc-.*)$/;

/**
 * The same for a message and its retry, different for any other: account, Message-ID, recipients and
 * body. A message without Message-ID is told by its whole header, trace lines aside.
 */
export function ledgerKey(
  account: string,
  recipients: readonly string[],
  message: Buffer,
  header: MessageHeader = parseHeader(message),
): string {
  const identity =
    messageIdOf(header) ?? header.fields.filter((f) => !TRACE_FIELDS.test(f.name)).map((f) => f.raw);
  const hash = createHash('sha256');
  hash.update(JSON.stringify([account, identity, [...recipients].sort()]));
  hash.update(message.subarray(header.end));
  return hash.digest('base64url').slice(0, 32);
}

/** With angle brackets; undefined where there is none or more than one. */
export function messageIdOf(header: MessageHeader): string | undefined {
  const fields = header.fields.filter((f) => f.name === 'message-id');
  const id = fields[0]?.value.trim();
  return fields.length === 1 && id !== undefined && /^<[!-~]{1,990}>$/.test(id) ? id : undefined;
}

export const formatEntry = (entry: LedgerEntry): string => JSON.stringify(entry);

/** Undefined for anything that is no entry. */
export function parseEntry(text: string): LedgerEntry | undefined {
  const json = parseJsonObject(text);
  if (json === undefined || typeof json.at !== 'number') return undefined;
  const { state, at } = json;
  switch (state) {
    case 'creating':
    case 'sending':
      return { state, at };
    case 'draft':
      return typeof json.draft === 'string'
        ? {
            state,
            at,
            draft: json.draft,
            ...(typeof json.leftoversSince === 'number' ? { leftoversSince: json.leftoversSince } : {}),
          }
        : undefined;
    case 'sent':
      return { state, at, ...(typeof json.messageId === 'string' ? { messageId: json.messageId } : {}) };
    default:
      return undefined;
  }
}
