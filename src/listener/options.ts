/**
 * What can be set of a listener, once: the table from which flags, environment, config file, `listeners` and
 * `ListenerOptions` come, and the limits that are nobody's choice. Pure.
 */
import { hostname } from 'node:os';
import { z } from 'zod';
import { FIRST_RECIPIENTS, type FirstRecipient } from '../accounts/account.ts';
import { foldAddress } from '../protocol/text.ts';
import {
  HOUR,
  host,
  list,
  MIB,
  MINUTE,
  milliseconds,
  port,
  SECOND,
  type SettingDefinition,
  type SettingValue,
  settingKey,
  settingsOf,
  text,
} from '../setting.ts';

const serving = settingsOf('Serving');
const listener = settingsOf('Listener');

/** Of one listener; an entry of `listeners` may set each for itself, under the key of the same name. */
export const LISTENER_SETTINGS = {
  host: serving.text(
    host.default('127.0.0.1'),
    'address the SMTP listener binds',
    'only programs of this machine',
  ),
  port: serving.number(
    port.default(2525),
    'port of the SMTP listener, 0 for a free one',
    'needs no privilege',
  ),
  tls: listener.text(
    z.enum(['none', 'starttls', 'implicit']).default('none'),
    'none, starttls or implicit',
    'loopback needs none',
  ),
  certFile: listener.path('PEM certificate chain'),
  keyFile: listener.path('PEM private key'),
  allow: listener.list(
    list.default([]),
    'addresses and CIDR ranges that may connect',
    'empty: everybody who can',
  ),
  authRequired: listener.flag('AUTH with a password before MAIL'),
  proxyProtocol: listener.json(
    z.union([z.boolean(), list]).default(false),
    'a PROXY header (v1 or v2) comes first: true, or the ranges it may come from',
  ),
  proxyFrom: listener.list(
    list.default([]),
    'load balancers whose PROXY header is believed, addresses and CIDR ranges; others are refused',
    'beyond loopback proxy_protocol needs it',
  ),
  lmtp: listener.flag('LMTP (RFC 2033) in place of SMTP'),
  received: listener.flag('prepend a Received line', 'bodies pass untouched'),
  checkFromHeader: listener.flag('refuse a message whose From: is none of the account’s senders'),
  completeHeader: listener.flag(
    'add a missing Date or Message-ID, for devices (RFC 6409)',
    'bodies pass untouched',
  ),
  bareLineEnds: listener.text(
    z.enum(['normalize', 'reject', 'pass']).default('normalize'),
    'LF alone: normalize to CRLF, reject or pass (CR alone only with pass)',
    'scripts and devices send LF; only CRLF.CRLF ends a message, and passing on what others take for it invites smuggling',
  ),
  firstRecipient: listener.text(
    z.enum(FIRST_RECIPIENTS).optional(),
    'a first recipient that comes alone: deferred (told with the message) or live (asked at once, one round trip more); default deferred, live with complete_header or auth_equals_line',
    'Postfix and Exim send theirs together, and an MTA sends again what hears 452; devices and scripts do not',
  ),
  authEqualsLine: listener.flag(
    'also offer AUTH=PLAIN LOGIN, the form old Outlook and some printers look for',
  ),
} as const;

/** The name of all listeners of a process. */
export const HOSTNAME = listener.text(
  host.default(`relay.${hostname()}`),
  'own name in the greeting, in the reply to EHLO and in Received',
  'an MTA that is greeted by its own name takes it for a loop',
);

/** Limits of each listener, the same for all of a process; `maxHeldBytes` counts over all of them. */
export const LIMIT_SETTINGS = {
  maxSessions: listener.number(
    z.int().min(1).default(1_000),
    'client sessions at once',
    'far above what an MTA opens',
  ),
  maxSessionsPerAddress: listener.number(
    z.int().min(1).default(500),
    'client sessions at once from one address',
    'one leaking client leaves half to the others',
  ),
  maxRecipients: listener.number(
    z.int().min(1).default(1_000),
    'recipients in one transaction',
    'the account’s own limit is usually lower',
  ),
  maxMessageBytes: listener.number(
    z.int().min(1024).default(157_286_400),
    'largest message, octets',
    'what Exchange Online announces, the largest of the providers',
  ),
  idleTimeoutMs: listener.number(
    milliseconds(1_000, HOUR).default(5 * MINUTE),
    'a client silent for longer is let go, ms',
    'RFC 5321 §4.5.3.2.7',
  ),
  transactionTimeoutMs: listener.number(
    milliseconds(1_000, 24 * HOUR).default(30 * MINUTE),
    'a transaction longer than this is ended, ms',
    '150 MiB at 1 Mbit/s take 21 minutes',
  ),
  maxHeldBytes: listener.number(
    z
      .int()
      .min(MIB)
      .default(128 * MIB),
    'bodies held in memory at once, octets; then clients wait',
    '512 messages of replay_bytes',
  ),
} as const;

/** Limits that cannot be set. */
const FIXED_LIMITS = {
  /** Octets of a command line without CRLF. RFC 4954 §4: AUTH lines may be as long as this; MAIL and RCPT with all extensions stay below 2048. */
  maxCommandOctets: 12_288,
  /** Commands before AUTH where AUTH is required, AUTH itself and its answers not counted: EHLO, STARTTLS, EHLO again and some NOOPs; nobody who means to log in needs more. */
  maxUnauthenticatedCommands: 20,
  /** Unknown or malformed commands in one session: a client that is wrong ten times is not speaking SMTP. */
  maxBadCommands: 10,
  /** How long DATA may wait for memory, ms: half of what an MTA waits for its reply (RFC 5321 §4.5.3.2.4: 2 minutes). */
  heldWaitMs: MINUTE,
  /** From accept to the first command: PROXY header and handshake of implicit TLS; also that of STARTTLS. A proxy sends its header at once; a handshake takes a few round trips. ms. */
  handshakeMs: 30 * SECOND,
  /** From accept to AUTH, for clients that may do nothing without it: a handshake and some ten round trips; a device that asks a person for the password asks before it connects. ms. */
  authMs: MINUTE,
};

type Values<Table> = { readonly [N in keyof Table]: SettingValue<Table[N]> };

export type ListenerLimits = Values<typeof LIMIT_SETTINGS> & {
  readonly [N in keyof typeof FIXED_LIMITS]: number;
};

export interface ListenerOptions extends Values<typeof LISTENER_SETTINGS> {
  /** UNIX socket instead of host and port. */
  readonly path?: string | undefined;
  /** An already listening descriptor (socket activation) instead of host and port. */
  readonly fd?: number | undefined;
  readonly firstRecipient: FirstRecipient;
  /** Permissions of the UNIX socket. */
  readonly pathMode: number;
  /** Ids or addresses of the accounts that may be used here, folded and in order; undefined: all. */
  readonly accounts?: readonly string[] | undefined;
  /** Our name in the greeting and in `Received`. */
  readonly hostname: string;
  readonly limits: ListenerLimits;
}

/** One entry of `listeners`: the settings of a listener, and what only an entry can say. */
export const listenerEntry = z.strictObject({
  ...Object.fromEntries(
    Object.entries<SettingDefinition>(LISTENER_SETTINGS).map(([name, { schema }]) => [
      settingKey(name),
      schema.optional(),
    ]),
  ),
  path: text.optional(),
  fd: z.int().min(3).optional(),
  path_mode: z
    .string()
    .regex(/^0?[0-7]{3}$/, 'expected three octal digits such as 660')
    .optional(),
  accounts: list.optional(),
});
export type ListenerEntry = z.infer<typeof listenerEntry>;

/** What a caller sets; everything else is the default. */
export type PartialListenerOptions = Partial<Omit<ListenerOptions, 'limits' | 'firstRecipient'>> & {
  readonly firstRecipient?: FirstRecipient | undefined;
  readonly limits?: Partial<ListenerLimits>;
};

type Table = Readonly<Record<string, SettingDefinition>>;
const fallbacks = (table: Table) =>
  Object.fromEntries(Object.entries(table).map(([name, d]) => [name, d.fallback]));
const ofTable = (table: Table, values: object) =>
  Object.fromEntries(Object.entries(values).filter(([name]) => Object.hasOwn(table, name)));

const DEFAULTS = {
  ...(fallbacks(LISTENER_SETTINGS) as Values<typeof LISTENER_SETTINGS>),
  // The MTA's user gets in through the socket's group.
  pathMode: 0o660,
  hostname: HOSTNAME.fallback,
};
const LIMITS = {
  ...(fallbacks(LIMIT_SETTINGS) as Values<typeof LIMIT_SETTINGS>),
  ...FIXED_LIMITS,
};

export function resolveOptions(given: PartialListenerOptions): ListenerOptions {
  const own = { ...DEFAULTS, ...given };
  return {
    ...own,
    // Who needs these is a device: it has no queue for what hears 452.
    firstRecipient: own.firstRecipient ?? (own.completeHeader || own.authEqualsLine ? 'live' : 'deferred'),
    accounts: own.accounts?.map(foldAddress).sort(),
    limits: { ...LIMITS, ...given.limits },
  };
}

/** A listener of the settings: `socket` and what else `entry` leaves out comes from `all`. `resolvePath`: from where paths of the entry start. */
export function completeListener(
  entry: ListenerEntry,
  all: Values<typeof LISTENER_SETTINGS> & { readonly socket?: string | undefined; readonly hostname: string },
  resolvePath: (path: string) => string,
): ListenerOptions {
  const given = entry as Readonly<Record<string, unknown>>;
  const { fd, path, path_mode: pathMode, accounts } = entry;
  const isPort = given.host !== undefined || given.port !== undefined || fd !== undefined;
  const own = Object.entries<SettingDefinition>(LISTENER_SETTINGS)
    .map(([name, { kind }]) => {
      const value = given[settingKey(name)];
      return [name, kind === 'path' && typeof value === 'string' ? resolvePath(value) : value] as const;
    })
    .filter(([, value]) => value !== undefined);
  return resolveOptions({
    ...ofTable(LISTENER_SETTINGS, all),
    ...Object.fromEntries(own),
    hostname: all.hostname,
    path: path === undefined ? (isPort ? undefined : all.socket) : resolvePath(path),
    fd,
    accounts,
    ...(pathMode === undefined ? {} : { pathMode: Number.parseInt(pathMode, 8) }),
    limits: ofTable(LIMIT_SETTINGS, all),
  });
}

/** Where a listener listens, in words: `127.0.0.1:2525`, `[::1]:2525`, `/run/relay.sock`. */
export function formatPlace(options: Pick<ListenerOptions, 'host' | 'port' | 'path' | 'fd'>): string {
  if (options.path !== undefined) return options.path;
  if (options.fd !== undefined) return `fd ${options.fd}`;
  return options.host.includes(':') ? `[${options.host}]:${options.port}` : `${options.host}:${options.port}`;
}
