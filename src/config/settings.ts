/**
 * Every setting once: its form, default, the reason for the default, and what it means. Flags, environment,
 * config file, validation, --help and the manual page are all derived from this table. Pure.
 */
import { hostname } from 'node:os';
import { z } from 'zod';
import { isHeloName } from '../protocol/helo-name.ts';

/** How a value is written as text (flag, environment) and read. `path` is resolved where it was written. */
export type SettingKind = 'text' | 'path' | 'number' | 'boolean' | 'list' | 'json' | 'secret';

export interface SettingDefinition<T = unknown> {
  readonly kind: SettingKind;
  readonly schema: z.ZodType<T>;
  readonly fallback: T;
  /** What it is, with its unit. */
  readonly help: string;
  /** Why the default is what it is; empty where there is nothing to say. */
  readonly why: string;
  /** Heading in --help and the manual. */
  readonly group: SettingGroup;
}

export type SettingGroup = 'Serving' | 'Listener' | 'Tokens' | 'Upstream' | 'Admin' | 'Log and alerts';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const MIB = 1_048_576;

const host = z.string().min(1, 'must not be empty').max(255);
const port = z.int().min(0).max(65_535);
const text = z.string().min(1, 'must not be empty');
const list = z.array(text);
const milliseconds = (min: number, max: number) => z.int().min(min).max(max);
const optional = <T>(schema: z.ZodType<T>): z.ZodType<T | undefined> => schema.optional();
const url = z.string().regex(/^https?:\/\/\S+$/, 'expected an http:// or https:// address');

const tlsMode = z.enum(['none', 'starttls', 'implicit']);
const proxyProtocol = z.union([z.boolean(), list]);

/** One entry of `listeners`; what is left out comes from the settings of the same name. */
export const listenerSchema = z.strictObject({
  host: host.optional(),
  port: port.optional(),
  path: text.optional(),
  fd: z.int().min(3).optional(),
  path_mode: z
    .string()
    .regex(/^0?[0-7]{3}$/, 'expected three octal digits such as 660')
    .optional(),
  tls: tlsMode.optional(),
  cert_file: text.optional(),
  key_file: text.optional(),
  allow: list.optional(),
  auth_required: z.boolean().optional(),
  proxy_protocol: proxyProtocol.optional(),
  proxy_from: list.optional(),
  accounts: list.optional(),
  lmtp: z.boolean().optional(),
  received: z.boolean().optional(),
  check_from_header: z.boolean().optional(),
  complete_header: z.boolean().optional(),
  auth_equals_line: z.boolean().optional(),
  bare_line_ends: z.enum(['normalize', 'reject', 'pass']).optional(),
  first_recipient: z.enum(['deferred', 'live']).optional(),
});
export type ListenerEntry = z.infer<typeof listenerSchema>;

function define<T>(
  group: SettingGroup,
  kind: SettingKind,
  schema: z.ZodType<T>,
  fallback: NoInfer<T>,
  help: string,
  why = '',
): SettingDefinition<T> {
  return { group, kind, schema, fallback, help, why };
}

export const SETTINGS = {
  accounts: define('Serving', 'path', text, 'accounts.json', 'accounts file'),
  host: define(
    'Serving',
    'text',
    host,
    '127.0.0.1',
    'address the SMTP listener binds',
    'only programs of this machine',
  ),
  port: define(
    'Serving',
    'number',
    port,
    2525,
    'port of the SMTP listener, 0 for a free one',
    'needs no privilege',
  ),
  adminHost: define(
    'Serving',
    'text',
    host,
    '127.0.0.1',
    'address the admin API binds',
    'any other address needs admin_token',
  ),
  adminPort: define('Serving', 'number', port, 9090, 'port of the admin API, 0 for a free one'),
  stateDir: define(
    'Serving',
    'path',
    optional(text),
    undefined,
    'directory for tokens that survive a restart',
    'without it tokens live in memory',
  ),
  precache: define(
    'Serving',
    'boolean',
    z.boolean(),
    true,
    'fetch all tokens and warm connections at the start',
  ),
  stopDeadlineMs: define(
    'Serving',
    'number',
    milliseconds(0, HOUR),
    30 * SECOND,
    'how long a stop waits for transactions, ms',
    'well inside the 90 s of systemd and above the slowest normal final reply',
  ),

  listeners: define(
    'Listener',
    'json',
    optional(z.array(listenerSchema).min(1)),
    undefined,
    'several listeners in place of host and port, JSON',
  ),
  socket: define('Listener', 'path', optional(text), undefined, 'UNIX socket in place of host and port'),
  tls: define('Listener', 'text', tlsMode, 'none', 'none, starttls or implicit', 'loopback needs none'),
  certFile: define('Listener', 'path', optional(text), undefined, 'PEM certificate chain'),
  keyFile: define('Listener', 'path', optional(text), undefined, 'PEM private key'),
  allow: define(
    'Listener',
    'list',
    list,
    [],
    'addresses and CIDR ranges that may connect',
    'empty: everybody who can',
  ),
  authRequired: define('Listener', 'boolean', z.boolean(), false, 'AUTH with a password before MAIL'),
  proxyProtocol: define(
    'Listener',
    'json',
    proxyProtocol,
    false,
    'a PROXY header (v1 or v2) comes first: true, or the ranges it may come from',
  ),
  proxyFrom: define(
    'Listener',
    'list',
    list,
    [],
    'load balancers whose PROXY header is believed, addresses and CIDR ranges; others are refused',
    'beyond loopback proxy_protocol needs it',
  ),
  lmtp: define('Listener', 'boolean', z.boolean(), false, 'LMTP (RFC 2033) in place of SMTP'),
  received: define(
    'Listener',
    'boolean',
    z.boolean(),
    false,
    'prepend a Received line',
    'bodies pass untouched',
  ),
  checkFromHeader: define(
    'Listener',
    'boolean',
    z.boolean(),
    false,
    'refuse a message whose From: is none of the account’s senders',
  ),
  completeHeader: define(
    'Listener',
    'boolean',
    z.boolean(),
    false,
    'add a missing Date or Message-ID, for devices (RFC 6409)',
    'bodies pass untouched',
  ),
  bareLineEnds: define(
    'Listener',
    'text',
    z.enum(['normalize', 'reject', 'pass']),
    'normalize',
    'LF alone: normalize to CRLF, reject or pass (CR alone only with pass)',
    'scripts and devices send LF; only CRLF.CRLF ends a message, and passing on what others take for it invites smuggling',
  ),
  firstRecipient: define(
    'Listener',
    'text',
    z.enum(['deferred', 'live']),
    'deferred',
    'a first recipient that comes alone: deferred (told with the message) or live (asked at once, one round trip more)',
    'Postfix and Exim send theirs together, and an MTA sends again what hears 452; live where devices and scripts send',
  ),
  hostname: define(
    'Listener',
    'text',
    host,
    `relay.${hostname()}`,
    'own name in the greeting, in the reply to EHLO and in Received',
    'an MTA that is greeted by its own name takes it for a loop',
  ),
  authEqualsLine: define(
    'Listener',
    'boolean',
    z.boolean(),
    false,
    'also offer AUTH=PLAIN LOGIN, the form old Outlook and some printers look for',
  ),
  maxSessions: define(
    'Listener',
    'number',
    z.int().min(1),
    1_000,
    'client sessions at once',
    'far above what an MTA opens',
  ),
  maxSessionsPerAddress: define(
    'Listener',
    'number',
    z.int().min(1),
    500,
    'client sessions at once from one address',
    'one leaking client leaves half to the others',
  ),
  maxRecipients: define(
    'Listener',
    'number',
    z.int().min(1),
    1_000,
    'recipients in one transaction',
    'the account’s own limit is usually lower',
  ),
  maxMessageBytes: define(
    'Listener',
    'number',
    z.int().min(1024),
    157_286_400,
    'largest message, octets',
    'what Exchange Online announces, the largest of the providers',
  ),
  idleTimeoutMs: define(
    'Listener',
    'number',
    milliseconds(1_000, HOUR),
    5 * MINUTE,
    'a client silent for longer is let go, ms',
    'RFC 5321 §4.5.3.2.7',
  ),
  transactionTimeoutMs: define(
    'Listener',
    'number',
    milliseconds(1_000, 24 * HOUR),
    30 * MINUTE,
    'a transaction longer than this is ended, ms',
    '150 MiB at 1 Mbit/s take 21 minutes',
  ),
  maxHeldBytes: define(
    'Listener',
    'number',
    z.int().min(MIB),
    128 * MIB,
    'bodies held in memory at once, octets; then clients wait',
    '512 messages of replay_bytes',
  ),

  store: define(
    'Tokens',
    'secret',
    optional(
      z
        .string()
        .regex(
          /^(?:memory|file|rediss?:\/\/\S+)$/,
          'expected memory, file, redis://host:6379 or rediss://host:6379',
        ),
    ),
    undefined,
    'where tokens are kept: memory, file, redis:// or rediss://',
    'file with state_dir, else memory',
  ),
  withoutRedis: define(
    'Upstream',
    'text',
    z.enum(['share', 'defer']),
    'share',
    'while the Redis that several relays share is away: send a share of every limit, or defer all mail',
    'mail flows, and what the relays send together stays within the limit',
  ),
  expectedRelays: define(
    'Upstream',
    'number',
    z.int().min(1).max(1_000),
    1,
    'relays on one Redis to reckon with as long as it was never heard since the start',
    'one relay may use the whole limit',
  ),
  stateKey: define(
    'Tokens',
    'secret',
    optional(text),
    undefined,
    'key that encrypts the store; two, each on a line, rotate it (new first)',
  ),
  precacheConcurrency: define(
    'Tokens',
    'number',
    z.int().min(1).max(1_000),
    50,
    'token requests at once',
    '1,000 accounts in about 5 s at 250 ms an answer',
  ),
  tokenTimeoutMs: define(
    'Tokens',
    'number',
    milliseconds(100, 10 * MINUTE),
    20 * SECOND,
    'longest wait for a token endpoint, ms',
    'Microsoft has been seen to take 10 s',
  ),
  forgetAfter: define(
    'Tokens',
    'number',
    z.number().min(0).max(3_650),
    14,
    'days the grant of an account that left the accounts file is kept',
    'longer than a mistake is noticed',
  ),

  replayBytes: define(
    'Upstream',
    'number',
    z
      .int()
      .min(0)
      .max(64 * MIB),
    256 * 1024,
    'bodies up to this size are held whole and can be replayed, octets',
    'most mail is smaller; larger streams through',
  ),
  acquireTimeoutMs: define(
    'Upstream',
    'number',
    milliseconds(0, 5 * MINUTE),
    30 * SECOND,
    'longest wait for a connection, ms',
    'an MTA waits 300 s for the reply to MAIL (RFC 5321 §4.5.3.2.2)',
  ),
  maxHoldMs: define(
    'Upstream',
    'number',
    milliseconds(0, 4 * MINUTE),
    20 * SECOND,
    'longest wait for a rate limit before 451, ms',
    'well inside the 300 s of an MTA',
  ),
  submissionRetryMs: define(
    'Upstream',
    'number',
    milliseconds(0, 5 * MINUTE),
    60 * SECOND,
    'how long 432 (too many submissions) is waited out at the end of DATA, ms',
    'an MTA waits 600 s there (RFC 5321 §4.5.3.2.6)',
  ),
  connectTimeoutMs: define(
    'Upstream',
    'number',
    milliseconds(100, 5 * MINUTE),
    15 * SECOND,
    'connect, TLS and greeting of an upstream connection, ms each',
  ),
  heloName: define(
    'Upstream',
    'text',
    optional(
      z
        .string()
        .refine(isHeloName, 'expected a host name with a dot, or an address literal such as [192.0.2.1]'),
    ),
    undefined,
    'name given to the provider with EHLO',
    'without it this host’s name if it has a dot, else the address of the connection (RFC 5321 §4.1.4)',
  ),
  warmConcurrency: define(
    'Upstream',
    'number',
    z.int().min(1).max(1_000),
    50,
    'connections opened at once by the warm-up',
    'each account’s own logins are paced besides',
  ),

  adminToken: define('Admin', 'secret', optional(text), undefined, 'bearer token that may read and act'),
  adminReadToken: define('Admin', 'secret', optional(text), undefined, 'bearer token that may read'),
  adminAllowedHosts: define(
    'Admin',
    'list',
    list,
    [],
    'further names accepted in Host, such as a reverse proxy’s',
  ),

  logLevel: define(
    'Log and alerts',
    'text',
    z.enum(['debug', 'info', 'warn', 'error', 'silent']),
    'info',
    'debug, info, warn, error or silent',
  ),
  logFile: define(
    'Log and alerts',
    'path',
    optional(text),
    undefined,
    'log file in place of standard output, rotated at 10 MiB, nine older ones kept',
  ),
  logAddresses: define(
    'Log and alerts',
    'boolean',
    z.boolean(),
    false,
    'whole addresses in log and transaction list',
    'people’s addresses are nobody’s business: only domains otherwise',
  ),
  summaryIntervalMs: define(
    'Log and alerts',
    'number',
    milliseconds(0, 24 * HOUR),
    15 * MINUTE,
    'time between two summary lines, ms; 0 for none',
  ),
  alertWebhook: define(
    'Log and alerts',
    'secret',
    optional(url),
    undefined,
    'address that gets a JSON POST when an account needs a person',
  ),
  alertCommand: define(
    'Log and alerts',
    'list',
    optional(list),
    undefined,
    'program and arguments run, without a shell, when an account needs a person',
  ),
} as const;

export type SettingName = keyof typeof SETTINGS;

/** `stateDir` → `state_dir`, the key in the config file. */
export const settingKey = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** `stateDir` → `XOAUTH2_RELAY_STATE_DIR`. */
export const settingVariable = (name: string): string => `XOAUTH2_RELAY_${settingKey(name).toUpperCase()}`;

/** `stateDir` → `--state-dir`. */
export const settingFlag = (name: string): string => `--${settingKey(name).replaceAll('_', '-')}`;
