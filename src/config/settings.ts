/**
 * Every setting of the process. Flags, environment, config file, validation, --help and the manual page are all
 * derived from this table; what a listener can be told stands in its room. Pure.
 */
import { z } from 'zod';
import { isSmtpProxy } from '../accounts/smtp-proxy.ts';
import { HOSTNAME, LIMIT_SETTINGS, LISTENER_SETTINGS, listenerEntry } from '../listener/options.ts';
import { isHeloName } from '../protocol/helo-name.ts';
import {
  define,
  HOUR,
  host,
  list,
  MIB,
  MINUTE,
  milliseconds,
  optional,
  port,
  SECOND,
  settingKey,
  text,
} from '../setting.ts';

const url = z.string().regex(/^https?:\/\/\S+$/, 'expected an http:// or https:// address');

/** Scheme and host alone, without a path. */
const origin = url
  .refine((text) => URL.canParse(text) && `${new URL(text).origin}` === text.replace(/\/$/, ''), {
    error: 'expected scheme and host only, such as https://relay.example.org',
  })
  .transform((text) => new URL(text).origin);

/** What the client library takes: it throws for all else, and quotes it. */
function isRedisUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { hostname, username, password, pathname } = new URL(text);
  try {
    decodeURIComponent(`${username}:${password}`);
  } catch {
    return false;
  }
  return hostname !== '' && /^\/?\d*$/.test(pathname);
}

export const SETTINGS = {
  accounts: define('Serving', 'path', text, 'accounts.json', 'accounts file'),
  listeners: define(
    'Listener',
    'json',
    optional(z.array(listenerEntry).min(1)),
    undefined,
    'several listeners in place of host and port, JSON',
  ),
  socket: define('Listener', 'path', optional(text), undefined, 'UNIX socket in place of host and port'),
  ...LISTENER_SETTINGS,
  hostname: HOSTNAME,
  ...LIMIT_SETTINGS,
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

  store: define(
    'Tokens',
    'secret',
    optional(
      z
        .string()
        .regex(
          /^(?:memory|file|rediss?:\/\/\S+)$/,
          'expected memory, file, redis://host:6379 or rediss://host:6379',
        )
        .refine((text) => !text.includes('://') || isRedisUrl(text), {
          error:
            'expected redis://user:password@host:6379/0, where user, password and the number of the database may be missing; % in a password stands there as %25, @ as %40, / as %2F',
        }),
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
  withoutStore: define(
    'Tokens',
    'text',
    z.enum(['wait', 'alone', 'ask']),
    'wait',
    'while the store that several relays share is away: wait with accounts whose token has ended, ask for a new one without a lock where this relay was the only one, or ask always',
    'two who ask at once can cost a mailbox its consent, where the provider revokes the old refresh token',
  ),
  stateKey: define(
    'Tokens',
    'secret',
    optional(text),
    undefined,
    'key that encrypts the store; two, each on a line, rotate it (new first)',
  ),
  tokenSocket: define(
    'Tokens',
    'path',
    optional(text),
    undefined,
    'UNIX socket over which programs of the same user get tokens (command token)',
    'off: whoever may open it may send as every account',
  ),
  precacheConcurrency: define(
    'Tokens',
    'number',
    z.int().min(1).max(1_000),
    50,
    'token requests at once',
    '1,000 accounts in about 5 s at 250 ms an answer',
  ),
  refreshIdleAfter: define(
    'Tokens',
    'number',
    z.number().min(0).max(8_760),
    24,
    'hours without a message after which an account has no token refreshed ahead and no warm connection; 0 for never',
    'the first message after that waits once; its grant is used once a day all the same, so that it lives and a dead one is known',
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
  smtpProxy: define(
    'Upstream',
    'secret',
    optional(
      z
        .string()
        .refine(
          isSmtpProxy,
          'expected http://host:3128 or socks5://host:1080, with user:password@ before the host where it asks for one',
        ),
    ),
    undefined,
    'proxy for SMTP: http://host:3128 (CONNECT) or socks5://host:1080',
    'HTTPS_PROXY is that of token requests and Graph; accounts and providers may name another, or none',
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
  adminUrl: define(
    'Admin',
    'text',
    optional(origin),
    undefined,
    'address under which browsers reach the dashboard, such as https://relay.example.org',
    'its / is then a redirect address of the OAuth clients, and invitations lead there',
  ),
  adminAllowedHosts: define(
    'Admin',
    'list',
    list,
    [],
    'further names accepted in Host, such as a reverse proxy’s',
  ),
  metricsAccounts: define(
    'Admin',
    'text',
    z.enum(['all', 'busy', 'none']),
    'all',
    'accounts with series of their own in /metrics: all, busy (sent since the start, connected or not ready), none',
    'totals are always there; thousands of accounts are much for a Prometheus',
  ),

  logLevel: define(
    'Log and alerts',
    'text',
    z.enum(['debug', 'info', 'warn', 'error', 'silent']),
    'info',
    'debug, info, warn, error or silent',
  ),
  logFormat: define(
    'Log and alerts',
    'text',
    z.enum(['auto', 'json', 'pretty']),
    'auto',
    'standard output for people (pretty) or programs (json); auto: for people on a terminal',
    'a log file always has JSON lines',
  ),
  logFile: define(
    'Log and alerts',
    'path',
    optional(text),
    undefined,
    'log file in place of standard output, a link to the newest; rotated at 10 MiB, nine older ones kept',
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
    'address that gets a JSON POST when an account or a message needs a person',
  ),
  alertCommand: define(
    'Log and alerts',
    'list',
    optional(list),
    undefined,
    'program and arguments run, without a shell, when an account or a message needs a person',
  ),
} as const;

export type SettingName = keyof typeof SETTINGS;

/** `stateDir` → `XOAUTH2_RELAY_STATE_DIR`. */
export const settingVariable = (name: string): string => `XOAUTH2_RELAY_${settingKey(name).toUpperCase()}`;

/** `stateDir` → `--state-dir`. */
export const settingFlag = (name: string): string => `--${settingKey(name).replaceAll('_', '-')}`;
