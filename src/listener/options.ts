/** What can be set of one listener, with the defaults and their reasons. */
import type { BareLineEnds } from '../protocol/body-decoder.ts';
import type { FirstRecipient } from '../relay/relay.ts';

export type ListenerTls = 'none' | 'starttls' | 'implicit';

export interface ListenerLimits {
  /** Sessions at once. */
  readonly maxSessions: number;
  /** Sessions at once from one address. */
  readonly maxSessionsPerAddress: number;
  /** Recipients in one transaction; an account's own limit may be lower. */
  readonly maxRecipients: number;
  /** Octets of a message, declared (SIZE) and counted; an account's own limit may be lower. */
  readonly maxMessageBytes: number;
  /** Octets of a command line without CRLF. */
  readonly maxCommandOctets: number;
  /** A session in which the client says nothing for so long is closed, ms. */
  readonly idleMs: number;
  /** MAIL to the end of the body, ms. */
  readonly transactionMs: number;
  /** Commands before AUTH where AUTH is required, AUTH itself and its answers not counted. */
  readonly maxUnauthenticatedCommands: number;
  /** Unknown or malformed commands in one session. */
  readonly maxBadCommands: number;
  /** Body octets held in memory by all transactions together. */
  readonly maxHeldBytes: number;
  /** How long DATA may wait for memory, ms. */
  readonly heldWaitMs: number;
  /** From accept to the first command: PROXY header and handshake of implicit TLS; also that of STARTTLS. ms. */
  readonly handshakeMs: number;
  /** From accept to AUTH, for clients that may do nothing without it, ms. */
  readonly authMs: number;
}

export interface ListenerOptions {
  /** Address to listen on; ignored with `path` or `fd`. */
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  /** UNIX socket instead of a port. */
  readonly path?: string | undefined;
  /** An already listening descriptor (socket activation) instead of a port. */
  readonly fd?: number | undefined;
  /** Permissions of the UNIX socket. */
  readonly pathMode: number;
  readonly tls: ListenerTls;
  /** PEM files; both needed unless `tls` is `none`. Read at the start and by `reloadTls`. */
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
  /** Addresses and CIDR ranges that may connect, trusted as loopback is; empty: everybody. */
  readonly allow: readonly string[];
  /** AUTH with a password before MAIL; an account without one cannot be used here. */
  readonly authRequired: boolean;
  /** A PROXY header (version 1 or 2) comes first: from every peer, or from these ranges. */
  readonly proxyProtocol: boolean | readonly string[];
  /** The load balancers (addresses, CIDR ranges) whose header is believed; other peers that should send one are refused. Empty: anybody, on loopback only. */
  readonly proxyFrom: readonly string[];
  /** Ids or addresses of the accounts that may be used here; undefined: all. */
  readonly accounts?: readonly string[] | undefined;
  /** LMTP (RFC 2033) instead of SMTP. */
  readonly lmtp: boolean;
  /** Prepend a `Received` line. */
  readonly received: boolean;
  /** Refuse a message whose `From:` is not one of the account's senders. */
  readonly checkFromHeader: boolean;
  /** Add a missing Date or Message-ID (RFC 6409 §8); an account's own choice goes before it. */
  readonly completeHeader: boolean;
  /** Offer `AUTH=PLAIN LOGIN` as well, the form of before RFC 2554. */
  readonly authEqualsLine: boolean;
  /** CR without LF or LF without CR, in commands and bodies (RFC 5321 §2.3.8). */
  readonly bareLineEnds: BareLineEnds;
  /** What a first recipient that comes alone hears; an account's own choice goes before it. */
  readonly firstRecipient: FirstRecipient;
  /** Our name in the greeting and in `Received`. */
  readonly hostname: string;
  readonly limits: ListenerLimits;
}

/** What a caller sets; everything else is the default. */
export type ListenerSettings = Partial<Omit<ListenerOptions, 'limits'>> & {
  readonly limits?: Partial<ListenerLimits>;
};

export const DEFAULT_LIMITS: ListenerLimits = {
  // Far above what an MTA opens to one next hop (Postfix 20, PowerMTA a few hundred), well below the
  // descriptor limit of 4096 that a service commonly starts with, each session needing one upstream too.
  maxSessions: 1_000,
  // One client that leaks connections leaves half to the others.
  maxSessionsPerAddress: 500,
  // The largest number a provider takes in one message (Exchange Online, administrator's maximum).
  maxRecipients: 1_000,
  // What Exchange Online announces, the largest of the providers.
  maxMessageBytes: 157_286_400,
  // RFC 4954 §4: AUTH lines may be as long as this; MAIL and RCPT with all extensions stay below 2048.
  maxCommandOctets: 12_288,
  // RFC 5321 §4.5.3.2.7: at least 5 minutes.
  idleMs: 300_000,
  // 150 MiB at 1 Mbit/s take 21 minutes; slower is an attack or a broken line.
  transactionMs: 1_800_000,
  // EHLO, STARTTLS, EHLO again and some NOOPs; nobody who means to log in needs more.
  maxUnauthenticatedCommands: 20,
  // A client that is wrong ten times is not speaking SMTP.
  maxBadCommands: 10,
  // 512 messages of the size that is held whole; the upstream is the bottleneck long before.
  maxHeldBytes: 134_217_728,
  // Half of what an MTA waits for the reply to DATA (RFC 5321 §4.5.3.2.4: 2 minutes).
  heldWaitMs: 60_000,
  // A proxy sends its header at once; a TLS handshake takes a few round trips.
  handshakeMs: 30_000,
  // A handshake and some ten round trips; a device that asks a person for the password asks before it connects.
  authMs: 60_000,
};

export const DEFAULT_OPTIONS: ListenerOptions = {
  host: '127.0.0.1',
  port: 2525,
  // The MTA's user gets in through the socket's group.
  pathMode: 0o660,
  tls: 'none',
  allow: [],
  authRequired: false,
  proxyProtocol: false,
  proxyFrom: [],
  lmtp: false,
  received: false,
  checkFromHeader: false,
  completeHeader: false,
  authEqualsLine: false,
  // What scripts and old devices send is mended as Postfix 3.9 does; nothing ends a body but CRLF.CRLF.
  bareLineEnds: 'normalize',
  firstRecipient: 'deferred',
  hostname: 'localhost',
  limits: DEFAULT_LIMITS,
};

/** Settings completed with the defaults. */
export function resolveOptions(settings: ListenerSettings): ListenerOptions {
  return { ...DEFAULT_OPTIONS, ...settings, limits: { ...DEFAULT_LIMITS, ...settings.limits } };
}

/** Where a listener listens, in words: `127.0.0.1:2525`, `[::1]:2525`, `/run/relay.sock`. */
export function formatPlace(options: Pick<ListenerOptions, 'host' | 'port' | 'path' | 'fd'>): string {
  if (options.path !== undefined) return options.path;
  if (options.fd !== undefined) return `fd ${options.fd}`;
  return options.host.includes(':') ? `[${options.host}]:${options.port}` : `${options.host}:${options.port}`;
}
