/**
 * Public facts of an account: everything the other rooms may know. No secret lives here;
 * credentials leave the accounts file beside these facts (credential.ts) and go to src/tokens only.
 */

import { orMake } from '../or-make.ts';
import type { CauseFacts } from '../protocol/causes/cause.ts';
import { foldAddress } from '../protocol/text.ts';
import { type AccountStatus, STATUSES, type Transport } from '../protocol/vocabulary.ts';

export const GRANTS = ['refresh_token', 'client_credentials', 'jwt_bearer'] as const;
export type GrantType = (typeof GRANTS)[number];

/** Where and how to reach a submission server. `starttls` never falls back to clear text. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
  readonly tls: 'starttls' | 'implicit';
}

/**
 * What a first recipient that comes alone hears. `deferred`: 250 from us, the provider's verdict comes with the
 * message: one round trip less. `live`: the provider's own reply, so that a bad first recipient does not send the
 * others into another transaction.
 */
export const FIRST_RECIPIENTS = ['deferred', 'live'] as const;
export type FirstRecipient = (typeof FIRST_RECIPIENTS)[number];

/** Microsoft Graph as an account uses it. */
export interface GraphTarget {
  /** `https://graph.microsoft.com/v1.0`, without a slash at the end. */
  readonly url: string;
  /** Path of the mailbox below it: `me`, or `users/` and the name, percent-encoded. */
  readonly mailbox: string;
  /** Client id: Graph's limits count by application and mailbox. */
  readonly app: string;
  /** `send`: one call creates and sends, and an unclear answer stays unclear. */
  readonly permissions: 'read_write' | 'send';
  /** Where a header names somebody outside the transaction. */
  readonly recipients: 'refuse' | 'rewrite';
  /** Of the tokens: `https://graph.microsoft.com`, or that of a national cloud. */
  readonly resource: string;
}

/** What the provider allows one mailbox; every number can be set per account. */
export interface AccountLimits {
  /** Connections at once, connecting + busy + idle, 1 to 100. */
  readonly maxConnections: number;
  /** Connections kept warm, 0 to maxConnections. */
  readonly minConnections: number;
  readonly messagesPerMinute: number | undefined;
  readonly messagesPerDay: number | undefined;
  /** Accepted recipients in 24 hours. */
  readonly recipientsPerDay: number | undefined;
  /** Recipients in one transaction; the next RCPT is answered 452 4.5.3. */
  readonly maxRecipients: number;
  /** Messages on one connection before it is replaced. */
  readonly messagesPerConnection: number;
  /** A connection idle longer than this is replaced before the provider closes it, in ms. */
  readonly idleMs: number;
  /** A connection older than this is replaced, in ms. */
  readonly maxAgeMs: number;
  /** Shortest time between two logins of this account, in ms. */
  readonly loginIntervalMs: number;
  /** Largest message the upstream advertises, in octets. */
  readonly maxBytes: number;
}

/** A proxy on the way to the submission server. */
export interface SmtpProxy {
  readonly kind: 'http' | 'socks5';
  readonly host: string;
  readonly port: number;
  readonly login?: { readonly user: string; readonly password: { reveal(): string } };
}

/** What a client must present with AUTH to use this account. The hash is one-way, so it may be here. */
export interface ClientPassword {
  /** `scrypt$N$r$p$salt$hash`, base64url (formatScryptHash). */
  readonly hash: string;
}

export type RewriteFrom = 'never' | 'foreign' | 'always';

export interface Account {
  /** `account_id` where given, else the lower-cased `email`. */
  readonly id: string;
  readonly email: string;
  /** Provider key: `gmail`, `outlook`, `outlook-personal` or a key of `providers`. */
  readonly provider: string;
  readonly grant: GrantType;
  /** XOAUTH2 user; never taken from MAIL FROM. */
  readonly user: string;
  /** Folded patterns (protocol/sender-pattern.ts) of what this account may use in MAIL FROM, `email` included. */
  readonly senders: readonly string[];
  /** Folded patterns of what it may not, whatever `senders` says. */
  readonly deny?: readonly string[];
  /** Among accounts that match a sender equally well the lower comes first, as in MX; default 10. */
  readonly preference?: number;
  /** A foreign sender is replaced by `email` in MAIL FROM. */
  readonly rewriteSender?: boolean;
  /** Whether the From: header is replaced by `email`: never, where it is foreign, or in every message. */
  readonly rewriteFrom?: RewriteFrom;
  /** A missing Date or Message-ID is added (RFC 6409 §8). */
  readonly completeHeader?: boolean;
  readonly clientPassword: ClientPassword | undefined;
  readonly upstream: Endpoint;
  readonly transport: Transport;
  /** Present where Graph may be used. */
  readonly graph?: GraphTarget;
  /** CHUNKING (BDAT) may be used where the upstream offers it. */
  readonly chunking: boolean;
  /** What a first recipient that comes alone hears; default `live` where headers of devices are completed, else the listener's choice. */
  readonly firstRecipient?: FirstRecipient | undefined;
  /** A message whose From: header names none of `senders` is refused. */
  readonly checkFromHeader?: boolean;
  /** Source address of upstream connections, for hosts with several. */
  readonly localAddress: string | undefined;
  /** Proxy to the upstream; undefined: that of the relay. */
  readonly smtpProxy?: SmtpProxy | 'none' | undefined;
  /** EHLO argument towards the upstream; undefined: that of the relay. */
  readonly heloName?: string | undefined;
  readonly limits: AccountLimits;
}

/**
 * The mailbox that the account logs in as, by a name of its own: whoever counts for the provider, which knows nothing of
 * accounts, counts by this. The same for an account that is renamed or comes back, and for all that have one `user`.
 */
export const mailboxOf = (account: Pick<Account, 'user' | 'provider'>): string =>
  orMake(mailboxes, account, () => `${foldAddress(account.user)} ${account.provider}`);

/** Asked for several times a message. */
const mailboxes = new WeakMap<object, string>();

/** What the book of causes may name of an account. */
export const causeFacts = ({ provider, upstream, user, email, grant }: Account): CauseFacts => ({
  provider,
  host: upstream.host,
  port: upstream.port,
  user,
  account: email,
  grant,
});

export type { AccountStatus };

/** Whether a person who says `name` means this account: its id, or its address. */
export const isCalled = ({ id, email }: Pick<Account, 'id' | 'email'>, name: string): boolean =>
  [id, email].some((own) => foldAddress(own) === foldAddress(name));

/** A status with what led to it. Text is in words, never a secret. */
export interface AccountState {
  readonly status: AccountStatus;
  /** What happened; for `ready` absent. */
  readonly reason?: string;
  /** Row of the book of causes (protocol/causes), which has the cure. */
  readonly cause?: string;
  /** What the operator should do, where no cause says it. */
  readonly cure?: string;
  /** When it is tried again, ms since the epoch. */
  readonly until?: number;
}

/** The state an operator should look at first among several of one account. */
export function worstState(...states: readonly AccountState[]): AccountState {
  // Of equals the first: a `ready` may have something to say too.
  const [first = { status: 'ready' }, ...others] = states;
  return others.reduce(
    (worst, s) => (STATUSES.indexOf(s.status) < STATUSES.indexOf(worst.status) ? s : worst),
    first,
  );
}
