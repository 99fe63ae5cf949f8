/**
 * The HTTP API: the one file that knows hono. In: requests. Out: JSON with the keys of openapi.ts, the
 * exposition, the event stream, the dashboard's files. Every request passes the guard first.
 */
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { Log } from '../log.ts';
import type { Outcome } from '../relay/record.ts';
import { createAssets } from './assets.ts';
import type { AccountDetail, AdminBackend, AdminLogLevel } from './backend.ts';
import { openEventStream } from './event-stream.ts';
import { createGuard, type GuardOptions } from './guard.ts';
import type { Live } from './live.ts';
import type { Metrics } from './metrics.ts';
import { openApi } from './openapi.ts';
import type { Series } from './series.ts';
import { rate } from './summary.ts';
import type { TransactionLog } from './transaction-log.ts';

export interface RouteDeps {
  readonly backend: AdminBackend;
  readonly metrics: Metrics;
  readonly transactions: TransactionLog;
  readonly series: Series;
  readonly live: Live;
  readonly log: Log;
}

export interface RouteOptions extends GuardOptions {
  readonly version: string;
}

export interface Routes {
  fetch(request: Request, env?: object): Response | Promise<Response>;
  /** Ends the open event streams. */
  close(): void;
}

const OUTCOMES: readonly Outcome[] = ['relayed', 'deferred', 'rejected', 'aborted', 'unknown'];
const LEVELS: readonly AdminLogLevel[] = ['debug', 'info', 'warn', 'error', 'silent'];
const DEFAULT_TRANSACTIONS = 100;
const MAX_TRANSACTIONS = 1000;
/** The largest body any route reads is a log level. */
const MAX_BODY_BYTES = 16 * 1024;
/** Event streams at once: each costs a snapshot and a backlog. */
const MAX_STREAMS = 50;

/** Nothing but our own files may run or be shown, and no page may frame ours. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': CONTENT_SECURITY_POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'cache-control': 'no-store',
};

/** Builds the routes; throws where the guard's options are unsafe. */
export function createRoutes(deps: RouteDeps, options: RouteOptions): Routes {
  const { backend, live } = deps;
  const guard = createGuard(options);
  const assets = createAssets();
  const streams = new Set<() => void>();
  const app = new Hono();

  app.use(async (c, next) => {
    // Whether the process answers is no secret, and a health check has no token.
    const isHealth = c.req.path === '/healthz' && (c.req.method === 'GET' || c.req.method === 'HEAD');
    const refusal = isHealth
      ? undefined
      : guard({ method: c.req.method, header: (name) => c.req.header(name) });
    if (refusal === undefined) await next();
    else {
      deps.log.warn(
        { event: 'admin_refused', method: c.req.method, path: c.req.path, status: refusal.status },
        refusal.error,
      );
      c.res = c.json({ error: refusal.error }, refusal.status);
      if (refusal.status === 401) {
        c.header('www-authenticate', 'Bearer realm="xoauth2-relay", Basic realm="xoauth2-relay"');
      }
    }
    for (const [name, value] of Object.entries(HEADERS)) {
      if (!c.res.headers.has(name)) c.header(name, value);
    }
  });
  app.use(bodyLimit({ maxSize: MAX_BODY_BYTES, onError: (c) => c.json({ error: 'body too large' }, 413) }));
  app.notFound((c) => c.json({ error: 'no such path' }, 404));
  app.onError((error, c) => {
    deps.log.error(
      { event: 'admin_failed', method: c.req.method, path: c.req.path, error: error.message },
      'admin request failed',
    );
    return c.json({ error: 'internal error' }, 500);
  });

  app.get('/healthz', (c) => c.json({ status: 'ok' }));
  app.get('/readyz', (c) => {
    const r = backend.readiness();
    const ready = r.warmed_up && r.usable > 0;
    return c.json({ ready, ...r }, ready ? 200 : 503);
  });
  app.get('/metrics', async (c) =>
    c.body(await deps.metrics.render(), 200, { 'content-type': deps.metrics.contentType }),
  );

  app.get('/admin/openapi.json', (c) => c.json(openApi(options.version)));
  app.get('/admin/accounts', (c) => c.json({ accounts: backend.accounts() }));
  app.get('/admin/tokens', (c) => {
    const totals = backend.tokenTotals();
    return c.json({
      ...totals,
      cache_hit_rate: rate(totals.cache_hits, totals.cache_hits + totals.cache_misses),
      refresh_success_rate: rate(totals.refresh_success, totals.refresh_success + totals.refresh_failures),
      breakers: backend.breakers(),
      removed: backend.keptRemoved(),
      accounts: backend.accounts().map(({ id, email, provider, status, token }) => ({
        ...{ id, email, provider, status, ...token },
        ...backend.tokenDetail(id),
      })),
    });
  });
  app.get('/admin/breakers', (c) => c.json({ breakers: backend.breakers() }));
  app.get('/admin/series', (c) => c.json({ points: deps.series.points() }));
  app.get('/admin/transactions', (c) => {
    const limit = Number(c.req.query('limit') ?? DEFAULT_TRANSACTIONS);
    if (!Number.isInteger(limit) || limit < 1 || limit > MAX_TRANSACTIONS) {
      return c.json({ error: `limit must be a whole number from 1 to ${MAX_TRANSACTIONS}` }, 400);
    }
    const wanted = c.req.query('outcome');
    const outcome = OUTCOMES.find((o) => o === wanted);
    if (wanted !== undefined && outcome === undefined) {
      return c.json({ error: `outcome must be one of ${OUTCOMES.join(', ')}` }, 400);
    }
    const asked = c.req.query('account');
    // An account that was removed still has its transactions: then the name is taken as its id.
    const account = asked === undefined ? undefined : (backend.account(asked)?.id ?? asked);
    return c.json({ transactions: deps.transactions.latest({ limit, account, outcome }) });
  });
  app.get('/admin/events', (c) => {
    if (streams.size >= MAX_STREAMS) return c.json({ error: 'too many event streams' }, 503);
    const stream = openEventStream(live, () => streams.delete(stream.end));
    streams.add(stream.end);
    return c.body(stream.body, 200, { 'content-type': 'text/event-stream; charset=utf-8' });
  });

  /** Runs `answer` with the account of the path, or answers 404. */
  const withAccount =
    (answer: (c: Context, account: AccountDetail) => Response | Promise<Response>) =>
    (c: Context): Response | Promise<Response> => {
      const account = backend.account(c.req.param('id') ?? '');
      return account === undefined ? c.json({ error: 'no such account' }, 404) : answer(c, account);
    };
  const acted = (action: string, account: string): void => {
    deps.log.info({ event: 'admin_action', action, account }, `admin: ${action} ${account}`);
    live.lookSoon();
  };

  app.get(
    '/admin/accounts/:id',
    withAccount((c, account) => c.json(account)),
  );
  app.post(
    '/admin/accounts/:id/refresh',
    withAccount(async (c, { id }) => {
      const result = await backend.refreshToken(id);
      acted('refresh', id);
      const account = backend.account(id) ?? null;
      if (result.ok) return c.json({ ok: true, error: null, cure: null, account });
      const { error = 'the token could not be refreshed', cure = null } = result;
      return c.json({ ok: false, error, cure, account }, 502);
    }),
  );
  app.post(
    '/admin/accounts/:id/retry',
    withAccount(async (c, { id }) => {
      await backend.retry(id);
      acted('retry', id);
      return c.json({ ok: true, account: backend.account(id) ?? null });
    }),
  );
  app.delete(
    '/admin/accounts/:id/token',
    withAccount(async (c, { id }) => {
      const forgotten = await backend.forgetToken(id);
      acted('forget token', id);
      return c.json({ ok: true, forgotten });
    }),
  );
  app.post(
    '/admin/accounts/:id/drain',
    withAccount(async (c, { id }) => {
      await backend.drain(id);
      acted('drain', id);
      return c.json({ ok: true, account: backend.account(id) ?? null });
    }),
  );
  app.post(
    '/admin/accounts/:id/resume',
    withAccount(async (c, { id }) => {
      await backend.resume(id);
      acted('resume', id);
      return c.json({ ok: true, account: backend.account(id) ?? null });
    }),
  );
  app.post('/admin/reload', async (c) => {
    const result = await backend.reload();
    live.lookSoon();
    return c.json(result, result.ok ? 200 : 422);
  });
  app.post('/admin/log-level', async (c) => {
    const body: unknown = await c.req.json().catch(() => undefined);
    const wanted = typeof body === 'object' && body !== null && 'level' in body ? body.level : undefined;
    const level = LEVELS.find((l) => l === wanted);
    if (level === undefined) return c.json({ error: `level must be one of ${LEVELS.join(', ')}` }, 400);
    backend.setLogLevel(level);
    deps.log.warn({ event: 'admin_action', action: 'log-level', level }, `admin: log level is now ${level}`);
    return c.json({ level });
  });

  app.get('*', (c) => {
    const asset = assets(c.req.path);
    if (asset === undefined) return c.notFound();
    const headers = { 'content-type': asset.contentType, etag: asset.etag, 'cache-control': 'no-cache' };
    if (c.req.header('if-none-match') === asset.etag) return c.body(null, 304, headers);
    return c.body(new Uint8Array(asset.body), 200, headers);
  });

  return {
    fetch: (request, env) => app.fetch(request, env),
    close: () => {
      for (const end of [...streams]) end();
    },
  };
}
