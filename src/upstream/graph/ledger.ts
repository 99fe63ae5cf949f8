/**
 * What is known of messages handed to Graph, across the client's retries and our restarts. In: the key of
 * a message and what became of it. Out: the right to work on it, one at a time, with what was known.
 * Kept where tokens are kept: in memory, in the state directory, or in Redis for several relays.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '../../clock.ts';
import { parseJsonObject } from '../../protocol/json-object.ts';
import { type MessageHeader, parseHeader } from '../../protocol/message-header.ts';
import { foldAddress } from '../../protocol/text.ts';

/** As long as a mail server keeps a message in its queue (Postfix: 5 days). */
export const KEEP_MS = 5 * 24 * 60 * 60_000;
/** What may have left a draft in the mailbox is known this much longer, so that the draft can be deleted. */
export const SWEEP_MS = 2 * 24 * 60 * 60_000;
/** A right to work whose holder died ends after this; no send begins after three quarters of it. */
export const CLAIM_MS = 5 * 60_000;
/** So long it is known of each recipient which attempt of a message was heard last. */
export const HEARD_MS = 60 * 60_000;
/** So long a draft that was sent may still look like one. */
export const OWNED_MS = 60 * 60_000;

/** Whose message it is: what is needed to find it in the mailbox without having it. */
export interface Subject {
  /** Account id. */
  readonly account: string;
  /** With angle brackets. */
  readonly messageId?: string;
  /** Hash of the recipients (`hashOf`). */
  readonly to?: string;
  /** Of Message-ID and recipients (`nameOf`): devices give all they say one Message-ID. */
  readonly name?: string;
  /** The message, whoever its recipients are (`ledgerKey` without them). */
  readonly family?: string;
  /** Each recipient (`markOf`). */
  readonly each?: readonly string[];
  /** MAIL FROM (`senderMark`). */
  readonly sender?: string;
}

interface Noted {
  /** ms since the epoch. */
  readonly at: number;
  /** Always noted while the message may be unsent. */
  readonly subject?: Subject;
  /** Why the client heard that nobody knows; undefined: it did not hear so. */
  readonly unclear?: string;
  /** A person was called: no retry will clear it. */
  readonly called?: boolean;
}

export type LedgerEntry = Noted &
  (
    | /** A draft may have been created, its id is not known. Noted before Graph is asked for one. */ {
        readonly state: 'creating';
      }
    /** The draft was created; whether it was sent says the draft itself. */
    | {
        readonly state: 'draft';
        readonly draft: string;
        /** Since then other drafts of the message may have been left over; ms since the epoch. */
        readonly leftoversSince?: number;
        /** It was not sent, for certain: the message may go another way. */
        readonly unsent?: boolean;
      }
    /** One call, under way or without a clear end: nobody can tell. */
    | { readonly state: 'sending' }
    /** Sent for certain. With `subject.each` while a retry may come to some of the recipients. */
    | {
        readonly state: 'sent';
        readonly messageId?: string;
        /** Of the id of its copy in Sent Items (`hashOf`): another message may have its Message-ID. */
        readonly copy?: string;
        /** Since then other drafts of the message than this one, where it is known, may have been left over; always with a subject. */
        readonly leftovers?: { readonly since: number; readonly than?: string };
      }
  );

/** Of whom the client of an attempt has heard that it was sent. */
export interface Hearing {
  /** `Subject.family`. */
  readonly family: string;
  /** `Subject.each`. */
  readonly marks: readonly string[];
}

/** The right to work on one message. */
export interface Claim {
  /** What was known when the claim was taken. */
  readonly known: LedgerEntry | undefined;
  /** Durable when it resolves: neither a crash nor another relay will miss it. Rejects when it could not be kept. */
  note(entry: LedgerEntry, hearing?: Hearing): Promise<void>;
  /** Nothing of the message is left at Graph: forget it. False: nobody can tell whether it is forgotten. Never rejects. */
  forget(): Promise<boolean>;
  /** As `forget`: its client has heard that it was sent, and the next that looks the same is another. */
  close(hearing: Hearing): Promise<boolean>;
  /** Marks of those of whom no other attempt was heard last: what this one has to note of the rest is out of date. Rejects when it cannot be known. */
  notHeardSince(hearing: Hearing): Promise<readonly string[]>;
  /** The work is over; what was noted stays. Idempotent; never rejects. */
  release(): Promise<void>;
}

export interface LedgerRow {
  readonly key: string;
  readonly entry: LedgerEntry;
}

export interface Ledger {
  /** Relays share it, and with it the places at once of each mailbox. */
  readonly isOfMany: boolean;
  /** First of all. Rejects where the place cannot be used as configured. */
  open(): Promise<void>;
  /** `busy`: somebody works on this very message now. Rejects when it cannot be known. */
  claim(key: string): Promise<Claim | 'busy'>;
  /** The key of the message that a draft was noted for, while that is known, an hour at least; undefined: nobody's. Rejects when it cannot be known. */
  ownerOf(draft: string): Promise<string | undefined>;
  /** Whether other messages than that of the key have this name (`nameOf`), as far as they are known. Rejects when it cannot be known. */
  isShared(name: string, key: string): Promise<boolean>;
  /** What is noted, with a subject, of this message for any recipients (`Subject.family`). Rejects when it cannot be known. */
  relatives(family: string): Promise<readonly LedgerRow[]>;
  /** Whether anything is known at all. Rejects when it cannot be known. */
  hasAny(): Promise<boolean>;
  /** Whether anything is known of which a client may not have heard that it was sent: of this sender (`senderMark`) or, without one, of anybody. Rejects when it cannot be known. */
  hasOpen(sender?: string): Promise<boolean>;
  /** What is not known to be sent, or may have left drafts over, oldest first. Rejects when it cannot be known. */
  list(): Promise<readonly LedgerRow[]>;
  close(): Promise<void>;
}

export const hashOf = (text: string): string =>
  createHash('sha256').update(text).digest('base64url').slice(0, 22);

/** The same for all that cannot be told from each other in the mailbox. `to`: hash of the recipients. */
export const nameOf = (messageId: string, to: string): string => hashOf(`${messageId} ${to}`);

/** One recipient among those of a message. */
export const markOf = (address: string): string => hashOf(foldAddress(address)).slice(0, 8);

/** By a recipient each. */
export const heardOf = ({ family, marks }: Hearing): readonly string[] =>
  marks.map((mark) => `${family}:${mark}`);

/** The same for every try of a message: what some mail servers write anew each time (BATV's `prvs=`, sub-addresses) aside. */
export function senderMark(sender: string): string {
  const at = Math.max(0, sender.lastIndexOf('@'));
  const local = sender.slice(0, at).replace(/^prvs=[^=]{0,64}=/i, '');
  const plus = local.indexOf('+');
  return markOf((plus > 0 ? local.slice(0, plus) : local) + sender.slice(at));
}

/** It may have been sent; else the message may go any way. */
export const mayHaveGone = (entry: LedgerEntry | undefined): boolean =>
  entry !== undefined && entry.state !== 'creating' && !(entry.state === 'draft' && entry.unsent === true);

/** A client may not have heard that it was sent. */
export const isOpen = (entry: LedgerEntry): boolean =>
  entry.state !== 'sent' || entry.subject?.each !== undefined;

/** The mailbox may hold something of it that is to be looked at. */
export const isListed = (entry: LedgerEntry): boolean =>
  entry.state !== 'sent' || entry.leftovers !== undefined;

/** Wall time that no step of the clock puts forward (NTP, a resumed VM): nothing grows old by one. */
export function withoutSteps(clock: Clock): () => number {
  const start = clock.now() - clock.monotonic();
  return () => Math.min(clock.now(), start + clock.monotonic());
}

/** How long an entry counts, ms. */
export const keepMsOf = ({ state }: LedgerEntry): number =>
  state === 'draft' || state === 'creating' ? KEEP_MS + SWEEP_MS : KEEP_MS;

/** Written anew at every stop on the way; a retry has others. */
const TRACE_FIELDS =
  /^(received|x-received|return-path|delivered-to|x-original-to|dkim-signature|authentication-results|arc-.*)$/;

/** What is introduced anew by another Resent- field is another message (RFC 5322 §3.6.6). */
const TELLING_FIELDS = /^(from|subject|date|resent-.*)$/;

/**
 * The same for a message and its retry, by whichever account of its sender it goes, different for any other:
 * Message-ID, From, Subject, Date and what is Resent- (devices give all they say one Message-ID, those of a model the
 * same one), recipients and body. Not MAIL FROM, which SRS and VERP write anew for each try. A message without Message-ID
 * is told by its whole header, trace lines aside. `own` is the header as the client gave it: what is added on the way
 * differs with every attempt. What a client says that is `confinedTo` some accounts no other's message is taken for.
 */
export function ledgerKey(
  recipients: readonly string[],
  message: Buffer,
  header: MessageHeader = parseHeader(message),
  own: MessageHeader = header,
  confinedTo?: string,
): string {
  const id = messageIdOf(own);
  const telling = own.fields.filter((f) =>
    id === undefined ? !TRACE_FIELDS.test(f.name) : TELLING_FIELDS.test(f.name),
  );
  const hash = createHash('sha256');
  const told = [id ?? '', telling.map((f) => f.raw), [...recipients].sort()];
  hash.update(JSON.stringify(confinedTo === undefined ? told : [...told, confinedTo]));
  hash.update(message.subarray(header.end));
  return hash.digest('base64url').slice(0, 32);
}

/** Of what an account has left of a message that another went on with. */
export const asideKey = (key: string, account: string): string =>
  createHash('sha256')
    .update(JSON.stringify([key, account]))
    .digest('base64url')
    .slice(0, 32);

/** With angle brackets; undefined where there is none or more than one. */
export function messageIdOf(header: MessageHeader): string | undefined {
  const fields = header.fields.filter((f) => f.name === 'message-id');
  const id = fields[0]?.value.trim();
  return fields.length === 1 && id !== undefined && /^<[!-~]{1,990}>$/.test(id) ? id : undefined;
}

export const formatEntry = (entry: LedgerEntry): string => JSON.stringify(entry);

const OF_ANOTHER_VERSION = 'what is noted of it is of another version of the relay';

/** What cannot be understood, but was noted: nobody can tell. */
export const unreadableEntry = (at: number): LedgerEntry => ({
  state: 'sending',
  at,
  unclear: OF_ANOTHER_VERSION,
});

/** Undefined for anything that is no entry; one of a state that is not known here is as unclear as can be. */
export function parseEntry(text: string): LedgerEntry | undefined {
  const json = parseJsonObject(text);
  if (json === undefined || typeof json.at !== 'number') return undefined;
  const { state, at, draft } = json;
  const subject = parseSubject(json.subject);
  const noted: Noted = {
    at,
    ...(subject === undefined ? {} : { subject }),
    ...textsOf(json, ['unclear']),
    ...(json.called === true ? { called: true } : {}),
  };
  switch (state) {
    case 'creating':
    case 'sending':
      return { state, ...noted };
    case 'draft':
      return typeof draft === 'string'
        ? {
            state,
            ...noted,
            draft,
            ...(typeof json.leftoversSince === 'number' ? { leftoversSince: json.leftoversSince } : {}),
            ...(json.unsent === true ? { unsent: true } : {}),
          }
        : { ...noted, ...unreadableEntry(at) };
    case 'sent':
      return {
        state,
        ...noted,
        ...textsOf(json, ['messageId', 'copy']),
        ...parseLeftovers(json.leftovers),
      };
    default:
      return { ...noted, ...unreadableEntry(at) };
  }
}

function parseLeftovers(json: unknown): Pick<Extract<LedgerEntry, { state: 'sent' }>, 'leftovers'> {
  const { since, than } = (json ?? {}) as Record<string, unknown>;
  if (typeof since !== 'number') return {};
  return { leftovers: { since, ...(typeof than === 'string' ? { than } : {}) } };
}

function parseSubject(value: unknown): Subject | undefined {
  const json = (value ?? {}) as Record<string, unknown>;
  const { account, each } = json;
  if (typeof account !== 'string') return undefined;
  return {
    account,
    ...textsOf(json, ['messageId', 'to', 'name', 'family', 'sender']),
    ...(Array.isArray(each) && each.every((mark) => typeof mark === 'string') ? { each } : {}),
  };
}

/** Those of the keys that hold a text. */
export const textsOf = <K extends string>(of: { readonly [key in K]?: unknown }, keys: readonly K[]) =>
  Object.fromEntries(keys.flatMap((k) => (typeof of[k] === 'string' ? [[k, of[k]]] : []))) as {
    readonly [key in K]?: string;
  };
