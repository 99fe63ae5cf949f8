/** JSON Schemas (draft 2020-12) of every answer; each object is closed: a key not named here is not in an answer. */

export interface Schema {
  readonly [keyword: string]: unknown;
}

const text: Schema = { type: 'string' };
const integer: Schema = { type: 'integer', minimum: 0 };
const flag: Schema = { type: 'boolean' };
const instant: Schema = { type: 'string', format: 'date-time' };
const list = (items: Schema): Schema => ({ type: 'array', items });
const oneOf = (...values: readonly string[]): Schema => ({ type: 'string', enum: values });
const about = (schema: Schema, description: string): Schema => ({ ...schema, description });

/** The same, or null. */
const nullable = (schema: Schema): Schema =>
  schema.type === undefined
    ? { oneOf: [schema, { type: 'null' }] }
    : { ...schema, type: [schema.type, 'null'] };

/** A closed object with every key present. */
const object = (properties: Readonly<Record<string, Schema>>, description?: string): Schema => ({
  type: 'object',
  ...(description === undefined ? {} : { description }),
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});

/** Reference to a schema below. */
export const ref = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });

const seconds: Schema = { type: 'number' };
const milliseconds: Schema = { type: 'number', minimum: 0 };
const status = oneOf('ready', 'refreshing', 'throttled', 'needs_consent', 'misconfigured', 'unreachable');
const outcome = oneOf('relayed', 'deferred', 'rejected', 'aborted', 'unknown');

const token = {
  cached: flag,
  expires_at: nullable(instant),
  expires_in_s: nullable(seconds),
  age_s: nullable(seconds),
};

const accountRow = {
  id: about(text, '`account_id` where given, else the e-mail address'),
  email: text,
  provider: text,
  transport: about(oneOf('smtp', 'graph', 'smtp_then_graph'), 'By which way mail is to leave'),
  way: about(oneOf('smtp', 'graph'), 'By which way it leaves now'),
  status,
  reason: about(nullable(text), 'What led to the status'),
  cause: about(nullable(text), 'Row of docs/troubleshooting.md'),
  cure: about(nullable(text), 'What the operator should do'),
  until: about(nullable(instant), 'When it is tried again'),
  drained: about(flag, 'Taken out of service by an operator until it is resumed'),
  token: about(object(token), 'Of the resource mail leaves by first'),
  tokens: about(
    list(object({ resource: oneOf('smtp', 'graph', 'imap'), status, ...token })),
    'One for each resource asked for so far',
  ),
  pool: object({ size: integer, idle: integer, busy: integer, max: integer }),
  messages: object({ relayed: integer, deferred: integer, rejected: integer }),
  last_error: about(nullable(text), 'The last thing that went wrong, also when all is well again'),
  last_error_at: nullable(instant),
};

const totals = {
  cache_hits: integer,
  cache_misses: integer,
  refresh_attempts: integer,
  refresh_success: integer,
  refresh_failures: integer,
};

const share = about(nullable({ type: 'number', minimum: 0, maximum: 1 }), 'Null before the first one');

export const SCHEMAS: Readonly<Record<string, Schema>> = {
  Error: object({ error: text }),
  Health: object({ status: oneOf('ok') }),
  Readiness: object({
    ready: flag,
    warmed_up: about(flag, 'The first pre-cache and warm-up round has ended'),
    usable: about(integer, 'Accounts that could relay a message now'),
    total: integer,
  }),
  Account: object(accountRow),
  Accounts: object({ accounts: list(ref('Account')) }),
  AccountDetail: object({
    ...accountRow,
    user: about(text, 'XOAUTH2 user'),
    senders: list(text),
    smtp: text,
    graph: about(
      nullable(object({ url: text, permissions: text, recipients: text })),
      'Null where mail does not leave by Graph, by which recipients are not checked and refusals arrive as mail',
    ),
    max_connections: integer,
    messages_per_minute: nullable(integer),
    messages_per_day: nullable(integer),
    max_recipients: integer,
  }),
  Breaker: object({
    name: text,
    kind: oneOf('token_endpoint', 'upstream'),
    state: oneOf('closed', 'open', 'half_open'),
    failures: integer,
    opened_at: nullable(instant),
    retry_at: nullable(instant),
  }),
  Breakers: object({ breakers: list(ref('Breaker')) }),
  Tokens: object({
    ...totals,
    cache_hit_rate: share,
    refresh_success_rate: share,
    breakers: list(ref('Breaker')),
    removed: about(
      list(object({ account: text, kept_until: instant })),
      'Left the accounts file; their grants are kept until then (--forget-after)',
    ),
    accounts: list(
      object({
        ...{ id: text, email: text, provider: text, status, ...token },
        source: about(
          nullable(text),
          'What made the token come: pre-cache, refresh-ahead, on-demand, store, …',
        ),
        refreshing: flag,
        next_refresh_at: nullable(instant),
        uses: integer,
        last_used_at: nullable(instant),
        last_error: about(nullable(text), 'Since the last success'),
        last_error_at: nullable(instant),
        refresh_token_obtained_at: about(nullable(instant), "Null: it is the operator's own"),
      }),
    ),
  }),
  Reply: object({
    code: { type: 'integer', minimum: 200, maximum: 599 },
    enhanced: nullable(text),
    text,
  }),
  Transaction: object({
    id: text,
    at: about(instant, 'Start'),
    session_id: text,
    client: text,
    account: text,
    provider: text,
    way: oneOf('smtp', 'graph'),
    sender: about(text, '`*@domain` unless addresses are logged; empty for the null sender'),
    recipients: about(list(text), 'The first 20'),
    recipient_count: integer,
    bytes: integer,
    outcome,
    reply: about(nullable(ref('Reply')), 'What the client heard last'),
    decided_by: oneOf('upstream', 'relay'),
    upstream_reply: nullable(ref('Reply')),
    flights: about(integer, 'Round trips made upstream'),
    reused: flag,
    replayed: flag,
    connection: nullable(text),
    timings: object({
      total_ms: milliseconds,
      gate_ms: milliseconds,
      acquire_ms: milliseconds,
      upstream_ms: milliseconds,
    }),
  }),
  Transactions: object({ transactions: about(list(ref('Transaction')), 'Newest first') }),
  SeriesPoint: object({
    at_s: about(integer, 'Start of the second, seconds since the epoch'),
    relayed: integer,
    deferred: integer,
    rejected: integer,
    aborted: integer,
    unknown: integer,
    p50_ms: nullable(milliseconds),
    p95_ms: nullable(milliseconds),
    p99_ms: nullable(milliseconds),
  }),
  Series: object({ points: about(list(ref('SeriesPoint')), 'The last 15 minutes, oldest first') }),
  Refreshed: object({
    ok: flag,
    error: nullable(text),
    cure: nullable(text),
    account: nullable(ref('AccountDetail')),
  }),
  Forgotten: object({ ok: flag, forgotten: about(flag, 'There was a token to forget') }),
  Drained: object({ ok: flag, account: nullable(ref('AccountDetail')) }),
  Reload: object({
    ok: about(flag, 'False: nothing has changed'),
    added: list(text),
    changed: list(text),
    removed: list(text),
    untouched: list(text),
    errors: list(object({ path: text, message: text })),
  }),
  LogLevel: object({ level: oneOf('debug', 'info', 'warn', 'error', 'silent') }),
  Snapshot: object({
    version: text,
    now: instant,
    ready: flag,
    accounts: list(ref('Account')),
    breakers: list(ref('Breaker')),
    tokens: object(totals),
    series: list(ref('SeriesPoint')),
    transactions: list(ref('Transaction')),
  }),
};
