/**
 * Every setting of the process. Flags, environment, config file, validation, --help and the manual page are all
 * derived from this table; what a listener can be told stands in its room. Pure.
 */
import { z } from 'zod';
import { isSmtpProxy } from '../accounts/smtp-proxy.ts';
import { HOSTNAME, LIMIT_SETTINGS, LISTENER_SETTINGS, listenerEntry } from '../listener/options.ts';
import { LOG_LEVELS } from '../log/levels.ts';
import { isHeloName } from '../protocol/helo-name.ts';
import {
  HOUR,
  host,
  list,
  MIB,
  MINUTE,
  milliseconds,
  port,
  SECOND,
  settingKey,
  settingsOf,
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

const serving = settingsOf('Serving');
const listener = settingsOf('Listener');
const tokens = settingsOf('Tokens');
const upstream = settingsOf('Upstream');
const admin = settingsOf('Admin');
const logging = settingsOf('Log and alerts');

export const SETTINGS = {
  accounts: serving.pathOr('accounts.json', 'accounts file'),
  listeners: listener.json(
    z.array(listenerEntry).min(1).optional(),
    'several listeners in place of host and port, JSON',
  ),
  socket: listener.path('UNIX socket in place of host and port'),
  ...LISTENER_SETTINGS,
  hostname: HOSTNAME,
  ...LIMIT_SETTINGS,
  adminHost: serving.text(
    host.default('127.0.0.1'),
    'address the admin API binds',
    'any other address needs admin_token or admin_read_token',
  ),
  adminPort: serving.number(port.default(9090), 'port of the admin API, 0 for a free one'),
  stateDir: serving.path('directory for tokens that survive a restart', 'without it tokens live in memory'),
  precache: serving.flagOn('fetch all tokens and warm connections at the start'),
  stopDeadlineMs: serving.number(
    milliseconds(0, HOUR).default(30 * SECOND),
    'how long a stop waits for transactions, ms',
    'well inside the 90 s of systemd and above the slowest normal final reply',
  ),

  store: tokens.secret(
    'where tokens are kept: memory, file, redis:// or rediss://',
    'file with state_dir, else memory',
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
  withoutRedis: upstream.text(
    z.enum(['share', 'defer']).default('share'),
    'while the Redis that several relays share is away: send a share of every limit, or defer all mail',
    'mail flows, and what the relays send together stays within the limit',
  ),
  expectedRelays: upstream.number(
    z.int().min(1).max(1_000).default(1),
    'relays on one Redis to reckon with as long as it was never heard since the start',
    'one relay may use the whole limit',
  ),
  withoutStore: tokens.text(
    z.enum(['wait', 'alone', 'ask']).default('wait'),
    'while the store that several relays share is away: wait with accounts whose token has ended, ask for a new one without a lock where this relay was the only one, or ask always',
    'two who ask at once can cost a mailbox its consent, where the provider revokes the old refresh token',
  ),
  stateKey: tokens.secret('key that encrypts the store; two, each on a line, rotate it (new first)'),
  tokenSocket: tokens.path(
    'UNIX socket over which programs of the same user get tokens (command token)',
    'off: whoever may open it may send as every account',
  ),
  precacheConcurrency: tokens.number(
    z.int().min(1).max(1_000).default(50),
    'token requests at once that no mail waits for: at the start or a reload, and as many by refreshes ahead',
    '1,000 accounts in about 5 s at 250 ms an answer',
  ),
  refreshIdleAfter: tokens.number(
    z.number().min(0).max(8_760).default(24),
    'hours without a message after which an account has no token refreshed ahead and no warm connection; 0 for never',
    'the first message after that waits once; its grant is used once a day all the same, so that it lives and a dead one is known',
  ),
  tokenTimeoutMs: tokens.number(
    milliseconds(100, 10 * MINUTE).default(20 * SECOND),
    'longest wait for a token endpoint, ms',
    'Microsoft has been seen to take 10 s',
  ),
  forgetAfter: tokens.number(
    z.number().min(0).max(3_650).default(14),
    'days the grant of an account that left the accounts file is kept',
    'longer than a mistake is noticed',
  ),

  replayBytes: upstream.number(
    z
      .int()
      .min(0)
      .max(64 * MIB)
      .default(256 * 1024),
    'bodies up to this size are held whole and can be replayed, octets',
    'most mail is smaller; larger streams through',
  ),
  acquireTimeoutMs: upstream.number(
    milliseconds(0, 5 * MINUTE).default(30 * SECOND),
    'longest wait for a connection, ms',
    'an MTA waits 300 s for the reply to MAIL (RFC 5321 §4.5.3.2.2)',
  ),
  maxHoldMs: upstream.number(
    milliseconds(0, 4 * MINUTE).default(20 * SECOND),
    'longest wait for a rate limit before 451, ms',
    'well inside the 300 s of an MTA',
  ),
  submissionRetryMs: upstream.number(
    milliseconds(0, 5 * MINUTE).default(60 * SECOND),
    'how long 432 (too many submissions) is waited out at the end of DATA, ms',
    'an MTA waits 600 s there (RFC 5321 §4.5.3.2.6)',
  ),
  connectTimeoutMs: upstream.number(
    milliseconds(100, 5 * MINUTE).default(15 * SECOND),
    'connect, TLS and greeting of an upstream connection, ms each',
  ),
  heloName: upstream.text(
    z
      .string()
      .refine(isHeloName, 'expected a host name with a dot, or an address literal such as [192.0.2.1]')
      .optional(),
    'name given to the provider with EHLO',
    'without it this host’s name if it has a dot, else the address of the connection (RFC 5321 §4.1.4)',
  ),
  smtpProxy: upstream.secret(
    'proxy for SMTP: http://host:3128 (CONNECT) or socks5://host:1080',
    'HTTPS_PROXY is that of token requests and Graph; accounts and providers may name another, or none',
    z
      .string()
      .refine(
        isSmtpProxy,
        'expected http://host:3128 or socks5://host:1080, with user:password@ before the host where it asks for one',
      ),
  ),
  warmConcurrency: upstream.number(
    z.int().min(1).max(1_000).default(50),
    'connections to one server opened at once; what no mail waits for has half of them',
    'each account’s own logins are paced besides',
  ),

  adminToken: admin.secret('bearer token that may read and act'),
  adminReadToken: admin.secret('bearer token that may read'),
  adminUrl: admin.text(
    origin.optional(),
    'address under which browsers reach the dashboard, such as https://relay.example.org',
    'its / is then a redirect address of the OAuth clients, and invitations lead there',
  ),
  adminAllowedHosts: admin.list(
    list.default([]),
    'further names accepted in Host, such as a reverse proxy’s',
  ),
  metricsAccounts: admin.text(
    z.enum(['all', 'busy', 'none']).default('all'),
    'accounts with series of their own in /metrics: all, busy (sent since the start, connected or not ready), none',
    'totals are always there; thousands of accounts are much for a Prometheus',
  ),

  logLevel: logging.text(z.enum(LOG_LEVELS).default('info'), 'debug, info, warn, error or silent'),
  logFormat: logging.text(
    z.enum(['auto', 'json', 'pretty']).default('auto'),
    'standard output for people (pretty) or programs (json); auto: for people on a terminal',
    'a log file always has JSON lines',
  ),
  logFile: logging.path(
    'log file in place of standard output, a link to the newest; rotated at 10 MiB, nine older ones kept',
  ),
  logAddresses: logging.flag(
    'whole addresses in log and transaction list',
    'people’s addresses are nobody’s business: only domains otherwise',
  ),
  summaryIntervalMs: logging.number(
    milliseconds(0, 24 * HOUR).default(15 * MINUTE),
    'time between two summary lines, ms; 0 for none',
  ),
  alertWebhook: logging.secret(
    'address that gets a JSON POST when an account or a message needs a person',
    '',
    url,
  ),
  alertCommand: logging.list(
    list.optional(),
    'program and arguments run, without a shell, when an account or a message needs a person',
  ),
} as const;

export type SettingName = keyof typeof SETTINGS;

/** `stateDir` → `XOAUTH2_RELAY_STATE_DIR`. */
export const settingVariable = (name: string): string => `XOAUTH2_RELAY_${settingKey(name).toUpperCase()}`;

/** `stateDir` → `--state-dir`. */
export const settingFlag = (name: string): string => `--${settingKey(name).replaceAll('_', '-')}`;
