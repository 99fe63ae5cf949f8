/**
 * Every row and answer of the admin API, once: from here come the types of the room, the OpenAPI document
 * and what the command line reads. Objects are closed: a key that is not named is not in an answer, and
 * none is named that could carry a secret. Instants are ISO 8601 text in UTC; durations end in `_s` or `_ms`.
 */
import { z } from 'zod';
import { LOG_LEVELS } from '../log/levels.ts';
import {
  boolean,
  type LineShape,
  members,
  number,
  orNull,
  texts,
  thousandths,
  type Writer,
  object as writeObject,
  text as writeText,
} from '../log/stringify.ts';
import { CHOSEN_BY, OUTCOMES, STATUSES, TOKEN_RESOURCES, TRANSPORTS } from '../protocol/vocabulary.ts';

const text = z.string();
const flag = z.boolean();
const count = z.number().int().min(0);
const ms = z.number().min(0);
const instant = z.string().meta({ format: 'date-time' });
const list = <T extends z.ZodType>(of: T) => z.array(of).readonly();
const object = <T extends z.ZodRawShape>(shape: T) => z.strictObject(shape).readonly();

const status = z.enum(STATUSES);
const outcome = z.enum(OUTCOMES);
const way = z.enum(['smtp', 'graph']);

const tokenLife = {
  cached: flag,
  expires_at: instant.nullable(),
  expires_in_s: z.number().nullable().describe('Negative for a token that has run out'),
  age_s: z.number().nullable(),
};
const TokenLife = object(tokenLife);
export type TokenLife = z.infer<typeof TokenLife>;
const ResourceToken = object({ resource: z.enum(TOKEN_RESOURCES), status, ...tokenLife });

const accountRow = {
  id: text.describe('`account_id` where given, else the e-mail address'),
  email: text,
  provider: text,
  transport: z.enum(TRANSPORTS).describe('By which way mail is to leave'),
  way: way.describe('By which way it leaves now'),
  status,
  reason: text
    .nullable()
    .describe('What led to the status; null for `ready`, unless mail leaves by another way than wished'),
  cause: text.nullable().describe('Row of docs/troubleshooting.md; null where the reason says it all'),
  cure: text.nullable().describe('What the operator should do; null where nobody can do anything'),
  until: instant.nullable().describe('When it is tried again'),
  drained: flag.describe('Taken out of service by an operator until it is resumed'),
  token: TokenLife.describe('Of the resource mail leaves by first'),
  tokens: list(ResourceToken).describe('One for each resource asked for so far'),
  pool: object({
    size: count.describe('Connecting, busy and idle together'),
    idle: count,
    busy: count,
    max: count,
  }),
  messages: object({ relayed: count, deferred: count, rejected: count }).describe(
    'Transactions since start, or since the account was added',
  ),
  last_error: text.nullable().describe('The last thing that went wrong, also when all is well again'),
  last_error_at: instant.nullable(),
};
const Account = object(accountRow);
/** One account as an operator sees it. */
export type AccountRow = z.infer<typeof Account>;

const AccountDetail = object({
  ...accountRow,
  user: text.describe('XOAUTH2 user'),
  grant: text.describe('`refresh_token` where a person signs in, else the application itself'),
  senders: list(text),
  smtp: text.describe('`starttls://host:587` or `smtps://host:465`'),
  graph: object({ url: text, permissions: text, recipients: text })
    .nullable()
    .describe(
      'Null where mail does not leave by Graph, by which recipients are not checked and refusals arrive as mail',
    ),
  preference: count.describe('Among equally exact matches of a sender the lower comes first'),
  group: list(object({ id: text, preference: count, status, drained: flag })).describe(
    'Other accounts that can take mail of its senders, 20 at most',
  ),
  max_connections: count,
  messages_per_minute: count.nullable(),
  messages_per_day: count.nullable(),
  max_recipients: count,
});
/** `GET /admin/accounts/{id}`: the row and its settings. */
export type AccountDetail = z.infer<typeof AccountDetail>;

const signInWay = z.enum(['device', 'browser']);
const SignIn = object({
  account: text.describe('Its id'),
  state: z
    .enum(['idle', 'starting', 'waiting', 'proving', 'done', 'failed'])
    .describe('`waiting` for the person; `proving`: the new grant logs in on trial, nothing is sent'),
  way: signInWay.nullable(),
  offered: list(signInWay).describe('Ways the provider has'),
  url: text.nullable().describe('To be opened by the person; only in the answer to a request that acts'),
  code: text.nullable().describe('To be typed there; only in the answer to a request that acts'),
  until: instant.nullable().describe('When the wait ends'),
  returns: flag.describe('The browser comes back by itself; else the address it ends on has to be pasted'),
  steps: list(object({ stage: text, ok: flag, detail: text })).describe('Of the proof'),
  note: text.nullable().describe('What went wrong, or what should be known of what went well'),
});
/** A sign-in of a person, by dashboard or invitation. */
export type SignInRow = z.infer<typeof SignIn>;

const totals = {
  cache_hits: count,
  cache_misses: count,
  refresh_attempts: count,
  refresh_success: count,
  refresh_failures: count,
};
const TokenTotals = object(totals);
/** Counts since start. */
export type TokenTotals = z.infer<typeof TokenTotals>;

const tokenDetail = {
  source: text
    .nullable()
    .describe(
      'What made the token come: pre-cache, refresh-ahead, on-demand, renewal, operator, store or accounts-file; null without one',
    ),
  refreshing: flag,
  next_refresh_at: instant.nullable(),
  uses: count,
  last_used_at: instant.nullable(),
  last_error: text.nullable().describe('Since the last success; in words, with the provider’s trace id'),
  last_error_at: instant.nullable(),
  refresh_token_obtained_at: instant.nullable().describe('Null: it is the operator’s own'),
};
const TokenDetail = object(tokenDetail);
/** How one account's token came and is used: beside the row, in `GET /admin/tokens`. */
export type TokenDetail = z.infer<typeof TokenDetail>;

const Breaker = object({
  name: text.describe('What it guards: a host or URL without query'),
  kind: z.enum(['token_endpoint', 'upstream']),
  state: z.enum(['closed', 'open', 'half_open']),
  failures: count.describe('In the current window'),
  opened_at: instant.nullable().describe('When it opened last; null: not yet'),
  retry_at: instant.nullable().describe('When it lets the next attempt through'),
});
/** A circuit breaker: one per token endpoint, one per upstream. */
export type BreakerRow = z.infer<typeof Breaker>;

const Reply = object({
  code: z.number().int().min(200).max(599),
  enhanced: text.nullable(),
  text,
});
export type ReplyRow = z.infer<typeof Reply>;

const Transaction = object({
  id: text,
  at: instant.describe('Start'),
  session_id: text,
  client: text,
  account: text,
  provider: text,
  way,
  chosen_by: z
    .enum(CHOSEN_BY)
    .nullable()
    .describe(
      'Why this account of several that match the sender: the more exact match, the lower preference, more room, its place in the file, those before it could take nothing, or it was ready first; null where there was no choice',
    ),
  sender: text.describe('`*@domain` unless addresses are logged; empty for the null sender'),
  recipients: list(text).describe('The first 20, shown like `sender`'),
  recipient_count: count,
  bytes: count,
  outcome,
  reply: Reply.nullable().describe('What the client heard last'),
  decided_by: z.enum(['upstream', 'relay']),
  upstream_reply: Reply.nullable(),
  flights: count.describe('Round trips made upstream'),
  reused: flag,
  replayed: flag,
  connection: text.nullable(),
  timings: object({ total_ms: ms, gate_ms: ms, acquire_ms: ms, upstream_ms: ms }),
});
/** A finished transaction as `GET /admin/transactions` and the event stream show it. */
export type TransactionRow = z.infer<typeof Transaction>;

const seriesPoint = {
  at_s: count.describe('Start of the second, seconds since the epoch'),
  relayed: count,
  deferred: count,
  rejected: count,
  aborted: count,
  unknown: count,
  p50_ms: ms.nullable(),
  p95_ms: ms.nullable(),
  p99_ms: ms.nullable(),
};
const SeriesPoint = object(seriesPoint);
/** One second. Percentiles are of whole transaction times and null in a second without one. */
export type SeriesPoint = z.infer<typeof SeriesPoint>;

const Reload = object({
  ok: flag.describe('False: nothing has changed'),
  added: list(text),
  changed: list(text),
  removed: list(text),
  untouched: list(text),
  errors: list(
    object({ path: text, message: text, line: count.optional().describe('In the accounts file') }),
  ).describe('Path in the file and what was expected; single bad accounts do not make `ok` false'),
});
/** What a reload did. With `ok: false` nothing changed and `errors` say why. */
export type ReloadResult = z.infer<typeof Reload>;

const Fleet = object({
  shared: flag.describe('Several relays share limits and states through Redis'),
  apart: flag.describe('Redis does not decide now: each relay keeps to its share'),
  share: z.number().min(0).max(1).describe("This relay's part of each account's limits while apart"),
  relays: list(
    object({
      id: text,
      self: flag,
      version: text.nullable(),
      host: text.nullable(),
      pid: count.nullable(),
      since: instant.nullable(),
      relayed: count,
      deferred: count,
      rejected: count,
      lag_ms: ms.describe('99th percentile of the event loop delay'),
      silent_ms: ms.describe('Since its last sign of life'),
    }),
  ),
});
/** The relays that serve these accounts together. */
export type FleetView = z.infer<typeof Fleet>;

const Unclear = object({
  key: text.describe('Names it in a decision'),
  account: text.nullable(),
  message_id: text.nullable(),
  since: instant,
  reason: text,
  clears: z
    .enum(['person', 'retry'])
    .describe('`retry`: the next retry of the mail server looks again; `person`: nothing else will clear it'),
});
export type UnclearRow = z.infer<typeof Unclear>;

const share = z.number().min(0).max(1).nullable().describe('Null before the first one');
const Accounts = object({
  accounts: list(Account),
  next_cursor: text.nullable().describe('For the next page; null: that was the last'),
});

/** By the name in the description. */
export const SHAPES = {
  Error: object({ error: text }),
  Health: object({ status: z.literal('ok') }),
  Readiness: object({
    ready: flag,
    warmed_up: flag.describe('The first pre-cache and warm-up round has ended'),
    usable: count.describe('Accounts that could relay a message now'),
    total: count,
  }),
  Relay: object({
    version: text,
    pid: count,
    host: text.describe('Name of the machine; paths are those of its files'),
    accounts_file: text,
    started_at: instant,
  }),
  Account,
  Accounts,
  AccountDetail,
  Breaker,
  Breakers: object({ breakers: list(Breaker) }),
  TokenTotals,
  Tokens: object({
    ...totals,
    cache_hit_rate: share,
    refresh_success_rate: share,
    breakers: list(Breaker),
    removed: list(object({ account: text, kept_until: instant })).describe(
      'Left the accounts file; their grants are kept until then (--forget-after)',
    ),
    accounts: list(object({ id: text, email: text, provider: text, status, ...tokenLife, ...tokenDetail })),
  }),
  Reply,
  Transaction,
  Transactions: object({ transactions: list(Transaction).describe('Newest first') }),
  SeriesPoint,
  Series: object({ points: list(SeriesPoint).describe('The last 15 minutes, oldest first') }),
  Refreshed: object({
    ok: flag,
    error: text.nullable(),
    cure: text.nullable(),
    account: AccountDetail.nullable(),
  }),
  SignIn,
  SignInWay: object({ way: signInWay }),
  Pasted: object({ url: text.describe('Address of the page the browser ended on') }),
  NewAccount: object({
    email: text,
    provider: text,
    client_id: text.optional().describe('Without one: that of the first account of the provider'),
    client_secret: text.optional().describe('Never told again'),
    tenant: text.optional(),
    way: signInWay,
  }),
  Invitation: object({
    key: text.describe('Good for one sign-in; told this once'),
    path: text.describe('Of the page, with the key behind #, which browsers keep to themselves'),
    until: instant,
  }),
  Invited: object({ email: text, provider: text, sign_in: SignIn }),
  GivenToken: object({
    access_token: text.describe('Never told again'),
    expires_in: count.describe('Seconds it still lives; more than a week counts as a week'),
  }),
  Forgotten: object({ ok: flag, forgotten: flag.describe('There was a token to forget') }),
  Drained: object({ ok: flag, account: AccountDetail.nullable() }),
  Unclear: object({ messages: list(Unclear).describe('Oldest first') }),
  Decided: object({ ok: flag }),
  Reload,
  Fleet,
  LogLevel: object({ level: z.enum(LOG_LEVELS) }),
  Snapshot: object({
    version: text,
    now: instant,
    ready: flag,
    accounts: list(Account),
    breakers: list(Breaker),
    tokens: TokenTotals,
    series: list(SeriesPoint),
    transactions: list(Transaction),
  }),
  Rate: object({
    ...seriesPoint,
    skipped: count.describe('Transactions of the last second that were not sent one by one'),
    ready: flag,
    now: instant,
    tokens: TokenTotals,
  }),
} as const;
export type ShapeName = keyof typeof SHAPES;
export type Shape<N extends ShapeName> = z.infer<(typeof SHAPES)[N]>;

/** What writes the members of a shape as JSON, made once of the shape; a measured time has three decimals. */
export const membersOf = <N extends ShapeName>(name: N): Writer<Shape<N>> =>
  members(writersOf(SHAPES[name] as z.ZodType) as LineShape<Shape<N>>);

const writersOf = (schema: z.ZodType): Record<string, Writer<never>> => {
  const inner = schema instanceof z.ZodReadonly ? schema.unwrap() : schema;
  if (!(inner instanceof z.ZodObject)) throw new Error('no object');
  return Object.fromEntries(Object.entries(inner.shape).map(([key, of]) => [key, writerOf(of)]));
};

function writerOf(schema: z.ZodType): Writer<never> {
  if (schema instanceof z.ZodNullable) return orNull(writerOf(schema.unwrap() as z.ZodType));
  if (schema instanceof z.ZodNumber) return schema.format === 'safeint' ? number : thousandths;
  if (schema instanceof z.ZodBoolean) return boolean;
  if (schema instanceof z.ZodString || schema instanceof z.ZodEnum) return writeText;
  const inner = schema instanceof z.ZodReadonly ? schema.unwrap() : schema;
  return inner instanceof z.ZodArray ? texts : writeObject(writersOf(inner as z.ZodType));
}

/** The shapes as JSON Schema (draft 2020-12), for `components.schemas`. */
export function jsonSchemas(): Readonly<Record<ShapeName, object>> {
  const registry = z.registry<{ id: string }>();
  for (const [id, shape] of Object.entries(SHAPES)) registry.add(shape, { id });
  const { schemas } = z.toJSONSchema(registry, {
    uri: (id) => `#/components/schemas/${id}`,
    override: ({ jsonSchema }) => {
      // Says nothing of the answer: all of it is read only, and every integer is a safe one.
      delete jsonSchema.readOnly;
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
    },
  });
  for (const schema of Object.values(schemas)) {
    delete schema.$schema;
    delete schema.$id;
  }
  return schemas as Record<ShapeName, object>;
}
