/**
 * The operations of the admin API, each once: path, words, parameters, answers and what is done. In: the
 * parts of a request. Out: status and body. routes.ts serves them, openapi.ts describes them.
 */

import { LOG_LEVELS } from '../log/levels.ts';
import { isRecord } from '../protocol/json-object.ts';
import { OUTCOMES } from '../protocol/vocabulary.ts';
import { LISTING, listAccounts } from './account-listing.ts';
import { inPieces, ok, refuse } from './answer.ts';
import type { AdminBackend } from './backend.ts';
import { TRANSACTIONS_KEPT } from './dashboard/kept.ts';
import { acted, type House, type Operation, onAccount, query } from './operation.ts';
import { listJson } from './pieces.ts';
import type { Shape, ShapeName, TokenDetail } from './shapes.ts';
import { SIGN_IN_OPERATIONS } from './sign-in-operations.ts';
import { rate } from './summary.ts';
import { UNCLEAR } from './unclear-operations.ts';

/** Of an account whose entry cannot be used. */
const NO_TOKEN: TokenDetail = {
  source: null,
  refreshing: false,
  next_refresh_at: null,
  uses: 0,
  last_used_at: null,
  last_error: null,
  last_error_at: null,
  refresh_token_obtained_at: null,
};

function* tokenRows(backend: AdminBackend): Generator<Shape<'Tokens'>['accounts'][number]> {
  // As one literal with three spreads it costs 50 times as much (V8 11), and there are thousands.
  for (const { id, email, provider, status, token } of backend.rows())
    yield Object.assign({ id, email, provider, status }, token, backend.tokenDetail(id) ?? NO_TOKEN);
}

const DEFAULT_TRANSACTIONS = 100;

const EVENTS = `Server-sent events. The first is \`snapshot\` (schema Snapshot), then as they happen:
\`account\` (Account), \`account_removed\` ({ id }), \`breakers\` (Breakers), \`reload\` (Reload), \`transaction\` (Transaction; at most 100 a second)
and once a second \`rate\` (Rate).`;

/** An action that ends with the account as it is then. */
const does = (action: 'retry' | 'drain' | 'resume', summary: string, done: string): Operation =>
  onAccount({
    method: 'post',
    path: `/admin/accounts/{id}/${action}`,
    id: action,
    summary,
    answers: { 200: [`${done}; the account as it is now`, 'Drained'] },
    async run(house, { id }) {
      await house.backend[action](id);
      return acted(house, action, id);
    },
  });

/** What shows one shape, and that is all. */
const shows = <N extends ShapeName>(
  id: string,
  summary: string,
  answer: readonly [meaning: string, shape: N],
  of: (house: House) => Shape<N> | Promise<Shape<N>>,
): Operation => ({
  method: 'get',
  path: `/admin/${id}`,
  id,
  summary,
  answers: { 200: answer },
  handle: async (house) => ok(answer[1], await of(house)),
});

export const OPERATIONS: readonly Operation[] = [
  {
    method: 'get',
    path: '/healthz',
    id: 'health',
    summary: 'The process answers',
    answers: { 200: ['It does', 'Health'] },
    handle: () => ok('Health', { status: 'ok' }),
  },
  {
    method: 'get',
    path: '/readyz',
    id: 'readiness',
    summary: 'Whether mail can be relayed',
    answers: {
      200: ['Warm-up has ended and an account is usable', 'Readiness'],
      503: ['Not yet, or no account is usable', 'Readiness'],
    },
    async handle({ backend }) {
      const r = await backend.readiness();
      const ready = r.warmed_up && r.usable > 0;
      return ok('Readiness', { ready, ...r }, ready ? 200 : 503);
    },
  },
  {
    method: 'get',
    path: '/metrics',
    id: 'metrics',
    summary: 'Prometheus exposition',
    answers: { 200: ['Metrics', 'text/plain'] },
    handle: ({ metrics }) => ({
      status: 200,
      body: undefined,
      chunks: metrics.render(),
      type: metrics.contentType,
    }),
  },
  {
    method: 'get',
    path: '/admin/openapi.json',
    id: 'description',
    summary: 'This description',
    answers: { 200: ['OpenAPI 3.1', 'object'] },
    handle: (house) => ({ status: 200, body: house.description() }),
  },
  shows('relay', 'The process: version, accounts file, since when', ['The process', 'Relay'], (house) =>
    house.relay(),
  ),
  {
    method: 'get',
    path: '/admin/accounts',
    id: 'accounts',
    summary: 'Accounts in the order of the accounts file; all of them where nothing is asked for',
    parameters: LISTING,
    answers: { 200: ['Accounts', 'Accounts'] },
    handle({ backend }, asked) {
      const listed = listAccounts(backend, (name) => asked.query(name));
      if ('refusal' in listed) return refuse(400, listed.refusal);
      const { rows, nextCursor } = listed;
      return inPieces(listJson({}, 'accounts', rows, () => ({ next_cursor: nextCursor() })));
    },
  },
  onAccount({
    method: 'get',
    path: '/admin/accounts/{id}',
    id: 'account',
    summary: 'One account with its settings',
    answers: { 200: ['The account', 'AccountDetail'] },
    run: (_house, account) => ok('AccountDetail', account),
  }),
  onAccount({
    method: 'post',
    path: '/admin/accounts/{id}/refresh',
    id: 'refreshToken',
    summary: 'Fetch a new access token now',
    answers: { 200: ['Fetched', 'Refreshed'], 502: ['The token endpoint gave none', 'Refreshed'] },
    async run(house, { id }) {
      const result = await house.backend.refreshToken(id);
      house.acted('refresh', { account: id });
      const account = house.backend.account(id) ?? null;
      if (result.ok) return ok('Refreshed', { ok: true, error: null, cure: null, account });
      const { error = 'the token could not be refreshed', cure = null } = result;
      return ok('Refreshed', { ok: false, error, cure, account }, 502);
    },
  }),
  does('retry', 'Try an account that is not ready again now, whatever pause stands', 'Tried'),
  onAccount({
    method: 'delete',
    path: '/admin/accounts/{id}/token',
    id: 'forgetToken',
    summary: 'Drop the cached access token',
    answers: { 200: ['Dropped', 'Forgotten'] },
    async run(house, { id }) {
      const forgotten = await house.backend.forgetToken(id);
      house.acted('forget token', { account: id });
      return ok('Forgotten', { ok: true, forgotten });
    },
  }),
  does('drain', 'Take the account out of service: new mail is answered 451', 'Drained'),
  does('resume', 'Put the account back into service', 'Resumed'),
  {
    method: 'get',
    path: '/admin/tokens',
    id: 'tokens',
    summary: 'Token cache and refresh figures',
    answers: { 200: ['Figures', 'Tokens'] },
    handle({ backend }) {
      const totals = backend.tokenTotals();
      const figures = {
        ...totals,
        cache_hit_rate: rate(totals.cache_hits, totals.cache_hits + totals.cache_misses),
        refresh_success_rate: rate(totals.refresh_success, totals.refresh_success + totals.refresh_failures),
        breakers: backend.breakers(),
        removed: backend.keptRemoved(),
      } satisfies Omit<Shape<'Tokens'>, 'accounts'>;
      return inPieces(listJson(figures, 'accounts', tokenRows(backend)));
    },
  },
  ...UNCLEAR,
  shows(
    'fleet',
    'The relays that serve these accounts together',
    ['The relays seen last', 'Fleet'],
    (house) => house.backend.fleet(),
  ),
  shows('breakers', 'Circuit breakers', ['Breakers', 'Breakers'], ({ backend }) => ({
    breakers: backend.breakers(),
  })),
  shows('series', 'Messages and latency, second by second', ['Points', 'Series'], ({ series }) => ({
    points: series.points(),
  })),
  {
    method: 'get',
    path: '/admin/transactions',
    id: 'transactions',
    summary: `The latest transactions (${TRANSACTIONS_KEPT.toLocaleString('en-GB')} are kept)`,
    parameters: [
      query('limit', 'Most to answer', {
        type: 'integer',
        minimum: 1,
        maximum: TRANSACTIONS_KEPT,
        default: DEFAULT_TRANSACTIONS,
      }),
      query('account', 'Only of this account (id or e-mail)'),
      query('outcome', 'Only with this outcome', { enum: OUTCOMES }),
    ],
    answers: { 200: ['Transactions', 'Transactions'] },
    handle({ backend, transactions }, asked) {
      const limit = Number(asked.query('limit') ?? DEFAULT_TRANSACTIONS);
      const outcome = OUTCOMES.find((o) => o === asked.query('outcome'));
      const name = asked.query('account');
      // An account that was removed still has its transactions: then the name is taken as its id.
      const account = name === undefined ? undefined : (backend.account(name)?.id ?? name);
      return ok('Transactions', { transactions: transactions.latest({ limit, account, outcome }) });
    },
  },
  {
    method: 'get',
    path: '/admin/events',
    id: 'events',
    summary: EVENTS,
    answers: { 200: ['The stream', 'text/event-stream'], 503: ['Too many streams', 'Error'] },
    handle(house, asked) {
      const body = house.openEvents(asked.cut);
      if (body === undefined) return refuse(503, 'too many event streams');
      return { status: 200, body, type: 'text/event-stream; charset=utf-8' };
    },
  },
  {
    method: 'post',
    path: '/admin/reload',
    id: 'reload',
    summary: 'Read the accounts file again',
    answers: { 200: ['What changed', 'Reload'], 422: ['The file is broken: nothing changed', 'Reload'] },
    async handle({ backend, live }) {
      const result = await backend.reload();
      live.lookSoon();
      return ok('Reload', result, result.ok ? 200 : 422);
    },
  },
  {
    method: 'post',
    path: '/admin/log-level',
    id: 'setLogLevel',
    summary: 'Change the log level until the next start',
    takes: 'LogLevel',
    answers: { 200: ['The level now', 'LogLevel'] },
    async handle(house, asked) {
      const body = await asked.json().catch(() => undefined);
      const wanted = isRecord(body) ? body.level : undefined;
      const level = LOG_LEVELS.find((l) => l === wanted);
      if (level === undefined) return refuse(400, `level must be one of ${LOG_LEVELS.join(', ')}`);
      house.backend.setLogLevel(level);
      house.acted('log-level', { level });
      return ok('LogLevel', { level });
    },
  },
  ...SIGN_IN_OPERATIONS,
];
