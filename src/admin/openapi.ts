/** The OpenAPI 3.1 description of the admin API, served at /admin/openapi.json and checked against the answers in tests. */
import { ref, SCHEMAS, type Schema } from './openapi-schemas.ts';

interface Answer {
  readonly description: string;
  readonly content?: Readonly<Record<string, { readonly schema: Schema }>>;
}

export interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly parameters?: readonly object[];
  readonly requestBody?: object;
  readonly responses: Readonly<Record<string, Answer>>;
}

export interface OpenApi {
  readonly openapi: '3.1.0';
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly security: readonly object[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, Schema>>;
    readonly securitySchemes: object;
  };
}

const json = (description: string, schema: string): Answer => ({
  description,
  content: { 'application/json': { schema: ref(schema) } },
});
const plain = (description: string, type: string): Answer => ({
  description,
  content: { [type]: { schema: { type: 'string' } } },
});

const REFUSALS: Readonly<Record<string, Answer>> = {
  '400': json('Malformed request', 'Error'),
  '401': json('A token is needed, or this one is not accepted', 'Error'),
  '403': json('Foreign Host or Origin, or the token may only read', 'Error'),
};
const NO_ACCOUNT = json('No such account', 'Error');
const ID = {
  name: 'id',
  in: 'path',
  required: true,
  description: 'Account id or e-mail address, percent-encoded',
  schema: { type: 'string' },
};
const query = (name: string, description: string, schema: Schema): object => ({
  name,
  in: 'query',
  description,
  schema,
});

const operation = (
  operationId: string,
  summary: string,
  responses: Readonly<Record<string, Answer>>,
  rest: Pick<Operation, 'parameters' | 'requestBody'> = {},
): Operation => ({ operationId, summary, ...rest, responses: { ...responses, ...REFUSALS } });

const accountAction = (id: string, summary: string, answer: Readonly<Record<string, Answer>>): Operation =>
  operation(id, summary, { ...answer, '404': NO_ACCOUNT }, { parameters: [ID] });

const EVENTS = `Server-sent events. The first is \`snapshot\` (schema Snapshot), then as they happen:
\`account\` (Account), \`account_removed\` ({ id }), \`breakers\` (Breakers), \`reload\` (Reload), \`transaction\` (Transaction; at most 100 a second)
and once a second \`rate\` (SeriesPoint with skipped, ready, now, tokens).`;

const PATHS: OpenApi['paths'] = {
  '/healthz': { get: operation('health', 'The process answers', { '200': json('It does', 'Health') }) },
  '/readyz': {
    get: operation('readiness', 'Whether mail can be relayed', {
      '200': json('Warm-up has ended and an account is usable', 'Readiness'),
      '503': json('Not yet, or no account is usable', 'Readiness'),
    }),
  },
  '/metrics': {
    get: operation('metrics', 'Prometheus exposition', { '200': plain('Metrics', 'text/plain') }),
  },
  '/': { get: operation('dashboard', 'Dashboard', { '200': plain('The page', 'text/html') }) },
  '/admin/openapi.json': {
    get: operation('description', 'This description', {
      '200': {
        description: 'OpenAPI 3.1',
        content: { 'application/json': { schema: { type: 'object' } } },
      },
    }),
  },
  '/admin/accounts': {
    get: operation('accounts', 'All accounts, in the order of the accounts file', {
      '200': json('Accounts', 'Accounts'),
    }),
  },
  '/admin/accounts/{id}': {
    get: accountAction('account', 'One account with its settings', {
      '200': json('The account', 'AccountDetail'),
    }),
  },
  '/admin/accounts/{id}/refresh': {
    post: accountAction('refreshToken', 'Fetch a new access token now', {
      '200': json('Fetched', 'Refreshed'),
      '502': json('The token endpoint gave none', 'Refreshed'),
    }),
  },
  '/admin/accounts/{id}/retry': {
    post: accountAction('retry', 'Try an account that is not ready again now, whatever pause stands', {
      '200': json('Tried; the account as it is now', 'Drained'),
    }),
  },
  '/admin/accounts/{id}/token': {
    delete: accountAction('forgetToken', 'Drop the cached access token', {
      '200': json('Dropped', 'Forgotten'),
    }),
  },
  '/admin/accounts/{id}/drain': {
    post: accountAction('drain', 'Take the account out of service: new mail is answered 451', {
      '200': json('Drained', 'Drained'),
    }),
  },
  '/admin/accounts/{id}/resume': {
    post: accountAction('resume', 'Put the account back into service', { '200': json('Resumed', 'Drained') }),
  },
  '/admin/tokens': {
    get: operation('tokens', 'Token cache and refresh figures', { '200': json('Figures', 'Tokens') }),
  },
  '/admin/breakers': {
    get: operation('breakers', 'Circuit breakers', { '200': json('Breakers', 'Breakers') }),
  },
  '/admin/series': {
    get: operation('series', 'Messages and latency, second by second', { '200': json('Points', 'Series') }),
  },
  '/admin/transactions': {
    get: operation(
      'transactions',
      'The latest transactions (1,000 are kept)',
      { '200': json('Transactions', 'Transactions') },
      {
        parameters: [
          query('limit', 'Most to answer', { type: 'integer', minimum: 1, maximum: 1000, default: 100 }),
          query('account', 'Only of this account (id or e-mail)', { type: 'string' }),
          query('outcome', 'Only with this outcome', {
            enum: ['relayed', 'deferred', 'rejected', 'aborted', 'unknown'],
          }),
        ],
      },
    ),
  },
  '/admin/events': {
    get: operation('events', EVENTS, {
      '200': plain('The stream', 'text/event-stream'),
      '503': json('Too many streams', 'Error'),
    }),
  },
  '/admin/reload': {
    post: operation('reload', 'Read the accounts file again', {
      '200': json('What changed', 'Reload'),
      '422': json('The file is broken: nothing changed', 'Reload'),
    }),
  },
  '/admin/log-level': {
    post: operation(
      'setLogLevel',
      'Change the log level until the next start',
      { '200': json('The level now', 'LogLevel') },
      { requestBody: { required: true, content: { 'application/json': { schema: ref('LogLevel') } } } },
    ),
  },
};

/** The description, with the version of the program that serves it. */
export const openApi = (version: string): OpenApi => ({
  openapi: '3.1.0',
  info: {
    title: 'xoauth2-relay admin API',
    version,
    description:
      'On loopback without a token; elsewhere every request needs one. No answer carries a secret.',
  },
  security: [{}, { bearer: [] }],
  paths: PATHS,
  components: {
    schemas: SCHEMAS,
    securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } },
  },
});
