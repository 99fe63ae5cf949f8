/**
 * The form of the accounts file, written once: the parser checks with it and the shipped JSON Schema is
 * generated from it. In: one account or provider as read. Out: typed entry, or problems with their paths.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import { isHeloName } from '../protocol/helo-name.ts';
import { foldPattern } from '../protocol/sender-pattern.ts';
import { TRANSPORTS } from '../protocol/vocabulary.ts';
import { FIRST_RECIPIENTS, GRANTS } from './account.ts';
import { isParsed, parseHostPort, parseSmtpUrl } from './smtp-url.ts';

/** What is wrong, and where. Never a value. */
export interface Problem {
  /** Place in the list of accounts, from 0; undefined where it is about none of them. */
  readonly entry?: number;
  /** In that entry, else in the file: `client_id`, `senders[0]`, `providers.mine.smtp`; empty for all of it. */
  readonly key: string;
  /** What was expected. */
  readonly message: string;
  /** Line in the accounts file, from 1, where known. */
  readonly line?: number;
}

/** `accounts[3].client_id`. */
export const formatPlaceIn = ({ entry, key }: Pick<Problem, 'entry' | 'key'>): string =>
  entry === undefined ? key : `accounts[${entry}]${key === '' ? '' : `.${key}`}`;

/** As `check --json` and the admin API tell it. */
export const problemRow = (problem: Problem) => ({
  path: formatPlaceIn(problem),
  message: problem.message,
  ...(problem.line === undefined ? {} : { line: problem.line }),
});

const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

const secretReference = z.union([
  z.strictObject({ env: z.string().regex(ENV_NAME, 'the name of an environment variable') }),
  z.strictObject({ file: z.string().min(1) }),
  z.strictObject({ command: z.array(z.string()).min(1) }),
  z.strictObject({ credential: z.string().regex(/^[^/\0]+$/, 'the name of a systemd credential') }),
]);
const secret = z.union([z.string().min(1), secretReference]);
/** In words. */
export const SECRET_FORMS =
  'text, { "env": "NAME" }, { "file": "PATH" }, { "command": ["PROGRAM", …] } or { "credential": "NAME" }';
/** A secret as written: the text itself, or where it stands. */
export type SecretSource = z.infer<typeof secret>;

// biome-ignore lint/suspicious/noControlCharactersInRegex: they would break the command line they go into
const ADDRESS = /^[^\s<>@,;:"\u0000-\u001f\u007f]+@[^\s<>@,;:"\u0000-\u001f\u007f]+$/;
/** Whether `text` can name a mailbox. */
export const isAddress = (text: string): boolean => text.length <= 320 && ADDRESS.test(text);

const pattern = z
  .string()
  .max(320)
  .refine(
    (s) => foldPattern(s) !== undefined,
    'an address, prefix+*@domain, *@domain, *@*.domain, * or <>; anything else can never match',
  );

const count = (max: number) => z.int().min(1).max(max);
/** 0 switches the limit off. */
const rate = (max: number) => z.int().min(0).max(max);
const milliseconds = (min: number, max: number) => z.int().min(min).max(max);
const HOUR = 3_600_000;
/** What stands before the @ of an address would be told wherever the address is. */
export const NO_LOGIN = 'takes no user:password@, which would not be used: remove it';
const url = z.string().regex(/^https?:\/\/[^\s]+$/, 'an absolute https:// address');
const smtp = z.string().refine(isParsed(parseSmtpUrl), 'starttls://host:587 or smtps://host:465');
const scope = z.string().max(2000);

/** A key that may be left out, and what it says. */
const may = <S extends z.ZodType>(schema: S, help: string) => schema.optional().describe(help);

/** Pacing, the same keys in an account and in a provider. */
const pacing = {
  max_connections: may(
    count(100),
    'Connections at once to the provider: connecting, busy and idle together.',
  ),
  min_connections: may(z.int().min(0).max(100), 'Connections kept warm.'),
  messages_per_minute: may(rate(100_000), 'Messages a minute; 0 for no limit.'),
  messages_per_day: may(rate(10_000_000), 'Messages in 24 hours; 0 for no limit.'),
  recipients_per_day: may(rate(100_000_000), 'Accepted recipients in 24 hours; 0 for no limit.'),
  max_recipients: may(count(10_000), 'Recipients in one message; the next RCPT hears 452 4.5.3.'),
  messages_per_connection: may(count(1_000_000), 'Messages on one connection before it is replaced.'),
  idle_timeout_ms: may(
    milliseconds(1_000, HOUR),
    'A connection idle longer than this is replaced, in milliseconds.',
  ),
  max_age_ms: may(
    milliseconds(1_000, 24 * HOUR),
    'A connection older than this is replaced, in milliseconds.',
  ),
  login_interval_ms: may(
    milliseconds(0, HOUR),
    'Shortest time between two logins of one account, in milliseconds.',
  ),
  max_message_bytes: may(count(1_073_741_824), 'Largest message, in octets.'),
  helo_name: may(
    z.string().refine(isHeloName, 'a host name with a dot, or an address literal such as [192.0.2.1]'),
    'Name given to the provider with EHLO; default that of the relay.',
  ),
  smtp_proxy: may(
    secret,
    'Proxy for SMTP: http://host:3128 (CONNECT) or socks5://host:1080, with user:password@ before the host where it asks for one; none: not even that of the provider or the relay.',
  ),
  chunking: may(
    z.boolean(),
    'Use BDAT (RFC 3030) where the server offers it and proved that it discards what it refuses; off for Microsoft.',
  ),
  token_safety_buffer_ms: may(
    milliseconds(0, HOUR),
    'A token with less life than this left is replaced first, in milliseconds.',
  ),
};

const grant = z.enum(GRANTS);

const accountSchema = z.strictObject({
  email: z
    .string()
    .max(320)
    .regex(ADDRESS, 'an e-mail address')
    .describe('The mailbox: identity, default user, default sender. Case-insensitive.'),
  account_id: z
    .string()
    .min(1)
    .max(200)
    .regex(/^\S+$/, 'text without spaces')
    // The first would steer a terminal; the others no address of the admin API can have.
    .refine(
      (id) => !/\p{Cc}/u.test(id) && !/^\.{1,2}$/.test(id),
      'text without control characters, and not . or ..',
    )
    .optional()
    .describe('Name in logs, metrics and the admin API; default email.'),
  provider: z
    .string()
    .min(1)
    .describe('A built-in one (gmail, outlook, outlook-personal, …) or a key of "providers".'),
  grant: may(grant, 'How tokens are obtained; default refresh_token.'),
  client_id: may(z.string().min(1), 'Of the application, registered at the provider (RFC 6749).'),
  client_secret: may(secret, 'Of the application (RFC 6749); none for a public client.'),
  refresh_token: may(secret, 'What a sign-in gave (RFC 6749); account add writes it.'),
  certificate: may(secret, 'client_credentials: PEM certificate of the application.'),
  private_key: may(
    secret,
    'PEM private key: of the certificate (client_credentials) or the service account (jwt_bearer).',
  ),
  private_key_id: may(z.string().min(1), 'jwt_bearer: which of its keys private_key is, without the file.'),
  service_account_file: may(z.string().min(1), 'jwt_bearer: the JSON key file from Google.'),
  client_email: may(z.string().min(1), 'jwt_bearer: the service account, without its file.'),
  subject: may(z.string().min(1), 'jwt_bearer: the mailbox to act for; default user.'),
  access_token: may(secret, 'An access token to start with; needs expires_at.'),
  expires_at: may(
    z.union([
      z.number().positive(),
      z.iso.datetime({ offset: true, error: 'a time such as 2030-01-31T12:00:00Z, or seconds since 1970' }),
      z.strictObject({ env: z.string().regex(ENV_NAME, 'the name of an environment variable') }),
    ]),
    'End of access_token: ISO 8601, or seconds or milliseconds since 1970, or { env } with one of these.',
  ),
  user: may(
    z.string().min(1).max(320),
    'XOAUTH2 user if it is not email (shared mailbox, alias); never taken from MAIL FROM.',
  ),
  senders: may(
    z.array(pattern),
    'What may be used in MAIL FROM besides email: an address, prefix+*@domain, *@domain, *@*.domain, * (anything else), or <> (the null sender without AUTH).',
  ),
  deny: may(
    z.array(pattern),
    'What may not be used in MAIL FROM although senders matches it; the same patterns.',
  ),
  preference: may(
    z.int().min(0).max(65_535),
    'Among accounts that match a sender equally well the lower comes first, as in MX; default 10.',
  ),
  rewrite_sender: may(
    z.boolean(),
    'Replace a foreign sender (one that only * matches) by email in MAIL FROM.',
  ),
  rewrite_from: may(
    z.enum(['never', 'foreign', 'always']),
    'Replace the From: header by "Name (original)" <email> and add Reply-To: never (default), where it is foreign, or always.',
  ),
  complete_header: may(z.boolean(), 'Add a missing Date or Message-ID, for devices (RFC 6409).'),
  password: may(
    secret,
    'What a client must present with AUTH: a scrypt hash from hash-password, or a secret.',
  ),
  smtp: may(smtp, 'starttls://host:587 or smtps://host:465; default from the provider.'),
  transport: may(
    z.enum(TRANSPORTS),
    'By which way mail leaves; default smtp. graph: Microsoft Graph. smtp_then_graph: Graph only while SMTP AUTH is switched off.',
  ),
  graph_url: may(url, 'Microsoft Graph; default by national cloud.'),
  graph_permissions: may(
    z.enum(['read_write', 'send']),
    'What the application may do by Graph; default read_write (Mail.ReadWrite and Mail.Send). send: Mail.Send alone, and an unclear answer stays unclear.',
  ),
  graph_recipients: may(
    z.enum(['refuse', 'rewrite']),
    'By Graph, where a header names somebody who is not in the transaction: refuse the message (default), or rewrite To and Cc.',
  ),
  oauth_endpoint: may(
    z.string().refine(isParsed(parseHostPort), 'host:port'),
    'As smtp, in the form of earlier tools.',
  ),
  token_url: may(url, 'https, except on loopback; default from the provider.'),
  oauth_token_url: may(url, 'As token_url, in the form of earlier tools.'),
  scope: may(scope, 'Scopes of the token request, separated by spaces; default from the provider.'),
  imap_scope: may(
    scope,
    'Scopes of the request for an IMAP token (token --for imap); default the provider’s.',
  ),
  tenant: may(
    z.string().regex(/^[A-Za-z0-9.-]+$/, "a tenant's id or domain, common, organizations or consumers"),
    'Microsoft: id or domain, common, organizations or consumers; default from the provider.',
  ),
  local_address: may(
    z.string().refine((s) => isIP(s) > 0, 'an IP address of this machine'),
    'Source address of connections to the provider.',
  ),
  check_from_header: may(z.boolean(), 'Refuse a message whose From: header is none of the senders.'),
  first_recipient: may(
    z.enum(FIRST_RECIPIENTS),
    'live: the provider is asked at once for a first recipient that comes alone; default live with complete_header, else that of the listener.',
  ),
  ...pacing,
  comment: may(z.string(), 'For people; ignored.'),
});
export type AccountEntry = z.infer<typeof accountSchema>;

/** Whether all that a wrong entry says of its senders was understood: a key that is no key may have meant them. */
export function isSendersReadable(entry: unknown): boolean {
  if (typeof entry !== 'object' || entry === null) return false;
  return (
    accountSchema.shape.senders.safeParse((entry as { senders?: unknown }).senders).success &&
    Object.keys(entry).every((key) => key in accountSchema.shape)
  );
}

const providerSchema = z.strictObject({
  extends: may(z.string(), 'A built-in provider whose values hold where none is given.'),
  title: may(z.string(), 'Its name for people.'),
  smtp: may(smtp, 'starttls://host:587 or smtps://host:465'),
  token_url: may(url, 'Token endpoint; {tenant} stands for the tenant of the account.'),
  authorize_url: may(url, 'For account add.'),
  device_url: may(url, 'For account add with a device code.'),
  tenant: may(z.string(), 'Where the account has none.'),
  scope: may(scope, 'Scopes of the token request, separated by spaces.'),
  imap_scope: may(scope, 'As scope, for IMAP tokens (token --for imap).'),
  graph_url: may(url, 'Microsoft Graph, where mail can leave that way.'),
  grants: may(z.array(grant), 'Grants its token endpoint knows; default all.'),
  ...pacing,
  comment: may(z.string(), 'For people; ignored.'),
});
export type ProviderEntry = z.infer<typeof providerSchema>;

const fileSchema = z.union([
  z.strictObject({
    $schema: z.string().optional(),
    comment: z.string().optional(),
    providers: z.record(z.string(), providerSchema).optional(),
    accounts: z.array(accountSchema),
  }),
  z.array(accountSchema),
]);

/** The JSON Schema (draft 2020-12) that editors complete and check the accounts file with. */
export function accountsJsonSchema(): object {
  return { title: 'Accounts of xoauth2-relay', ...z.toJSONSchema(fileSchema, { io: 'input' }) };
}

type Checked<T> = { readonly entry: T } | { readonly issues: readonly Issue[] };

/** A violated expectation below the checked value. */
export interface Issue {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

export const checkAccount = (value: unknown): Checked<AccountEntry> => check(accountSchema, value);
export const checkProvider = (value: unknown): Checked<ProviderEntry> => check(providerSchema, value);

function check<T>(schema: z.ZodType<T>, value: unknown): Checked<T> {
  const result = schema.safeParse(value);
  if (result.success) return { entry: result.data };
  return { issues: result.error.issues.flatMap((issue) => describe(issue, value)) };
}

/** Own words for zod's issues: what was expected, never what stood there. */
function describe(issue: z.core.$ZodIssue, root: unknown): readonly Issue[] {
  const at = (message: string): readonly Issue[] => [{ path: issue.path, message }];
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => ({
        path: [...issue.path, key],
        message: 'unknown key: remove or correct it',
      }));
    case 'invalid_type':
      return at(
        valueAt(root, issue.path) === undefined ? 'is missing' : `expected ${withArticle(issue.expected)}`,
      );
    case 'invalid_value':
      return at(`expected one of ${issue.values.map((v) => String(v)).join(', ')}`);
    case 'invalid_union':
      return at(
        issue.path.at(-1) === 'expires_at'
          ? 'expected a time such as 2030-01-31T12:00:00Z, or seconds since 1970'
          : `expected a ${SECRET_FORMS.replace('text', 'text that is not empty')}`,
      );
    case 'too_small':
      return at(issue.origin === 'string' ? 'must not be empty' : `must be at least ${issue.minimum}`);
    case 'too_big':
      return at(
        issue.origin === 'string'
          ? `longer than ${issue.maximum} characters`
          : `must be at most ${issue.maximum}`,
      );
    case 'invalid_format':
    case 'custom':
      return at(`expected ${issue.message}`);
    default:
      return at('has the wrong form');
  }
}

const withArticle = (type: string): string =>
  type === 'int'
    ? 'a whole number'
    : `${/^[aeiou]/.test(type) ? 'an' : 'a'} ${type === 'string' ? 'text' : type}`;

const valueAt = (root: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>(
    (value, step) =>
      typeof value === 'object' && value !== null ? (value as Record<PropertyKey, unknown>)[step] : undefined,
    root,
  );

/** Every key an account may have. */
export const accountSchemaKeys: ReadonlySet<string> = new Set(Object.keys(accountSchema.shape));
