/**
 * Serves the operations of the API; the one file that knows hono. In: requests. Out: JSON of the shapes, the
 * exposition, the event stream, the dashboard's files. Every request passes the guard first.
 */
import { realpath } from 'node:fs/promises';
import { hostname } from 'node:os';
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { createAssets } from './assets.ts';
import { openEventStream } from './event-stream.ts';
import { type Access, createGuard, type GuardOptions } from './guard.ts';
import { openApi } from './openapi.ts';
import { type House, oddQuery } from './operation.ts';
import { OPERATIONS } from './operations.ts';
import { toByteStream } from './pieces.ts';

export interface RouteDeps extends Pick<House, 'backend' | 'metrics' | 'transactions' | 'series' | 'live'> {
  readonly log: Log;
}

export interface RouteOptions extends GuardOptions {
  readonly version: string;
  /** Absolute path. */
  readonly accountsFile: string;
  readonly clock?: Clock;
}

/** What is known of the connection a request came on. */
export interface OfConnection {
  /** Ends it, whatever is under way on it. */
  cut(): void;
}

export interface Routes {
  fetch(request: Request, of: OfConnection): Response | Promise<Response>;
  /** Ends the open event streams. */
  close(): void;
}

/** The largest body any route reads is an access token. */
const MAX_BODY_BYTES = 16 * 1024;
/** Event streams at once: each costs a snapshot and a backlog. */
const MAX_STREAMS = 50;
/** Where all places are taken, one who has had his for as long gives it up, ms: a dashboard left open comes back by itself. */
const PLACE_MS = 60_000;

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

/** Need no token. */
const PROBES: ReadonlySet<string> = new Set(['/healthz', '/readyz']);

/** A browser that comes back from a provider's sign-in page (RFC 6749 §4.1.2). */
const isRedirect = (path: string, query: URLSearchParams): boolean =>
  path === '/' && query.has('state') && (query.has('code') || query.has('error'));

/** Operations for whoever has a key of their own. */
const OPEN_PATHS = new Set(OPERATIONS.filter(({ access }) => access === 'open').map(({ path }) => path));

/** Our pages hold no facts; what the sign-in brings back is known to whoever began it only. */
function accessOf(path: string, isReading: boolean, query: URLSearchParams): Access {
  const isPage = isReading && (path === '/sign-in' || path.startsWith('/assets/'));
  return isPage || OPEN_PATHS.has(path) || (isReading && isRedirect(path, query)) ? 'open' : 'token';
}

const page = (title: string, words: string): string =>
  `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>${title}</title><link rel="stylesheet" href="/assets/dashboard.css"></head><body class="plain"><main><h1>${title}</h1><p>${words}</p></main></body></html>`;
const RETURNED = page(
  'Thank you',
  'The relay now tries the mailbox. Go back to the page where you began: it says how it went. This one can be closed.',
);
const STRAY = page(
  'Nothing waits for this sign-in',
  'It was ended, took too long, or was answered already. Begin again where you began.',
);

/** Builds the routes; throws where the guard's options are unsafe. */
export function createRoutes(deps: RouteDeps, options: RouteOptions): Routes {
  const { clock = systemClock } = options;
  const guard = createGuard(options);
  const assets = createAssets();
  const startedAt = new Date(Date.now() - process.uptime() * 1000).toISOString();
  /** What ends each, and since when it is open, the oldest first. */
  const streams = new Map<() => void, number>();
  const app = new Hono<{ Bindings: OfConnection }>();

  app.use(async (c, next) => {
    const { method, path } = c.req;
    const isReading = method === 'GET' || method === 'HEAD';
    const refusal = guard(
      { method, header: (name) => c.req.header(name) },
      accessOf(path, isReading, new URL(c.req.url).searchParams),
    );
    // Whether the process answers and can relay is no secret, and a probe of an orchestrator has no token.
    const isProbe = PROBES.has(path) && isReading;
    if (refusal === undefined || isProbe) await next();
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
    // How many accounts there are is nobody's business.
    if (refusal !== undefined && isProbe && c.req.path === '/readyz') {
      const ready = c.res.status === 200;
      c.res = undefined;
      c.res = c.json({ ready }, ready ? 200 : 503);
    }
    for (const [name, value] of Object.entries(HEADERS)) {
      if (!c.res.headers.has(name)) c.header(name, value);
    }
  });
  app.use(bodyLimit({ maxSize: MAX_BODY_BYTES, onError: (c) => c.json({ error: 'body too large' }, 413) }));
  app.notFound((c) => c.json({ error: 'no such path' }, 404));
  const failed = ({ method, path }: Pick<Request, 'method'> & { path: string }, error: unknown): void =>
    deps.log.error(
      { event: 'admin_failed', method, path, error: error instanceof Error ? error.message : String(error) },
      'admin request failed',
    );
  app.onError((error, c) => {
    failed(c.req, error);
    return c.json({ error: 'internal error' }, 500);
  });

  const house: House = {
    ...deps,
    acted: (action, fields) => {
      const line = { event: 'admin_action', action, ...fields };
      if ('account' in fields) deps.log.info(line, `admin: ${action} ${fields.account}`);
      else if ('key' in fields) deps.log.info(line, `admin: ${action} ${fields.key}`);
      else deps.log.warn(line, `admin: log level is now ${fields.level}`);
      deps.live.lookSoon();
    },
    openEvents: (cut) => {
      const now = clock.monotonic();
      const [oldest] = streams;
      if (streams.size >= MAX_STREAMS && oldest !== undefined && now - oldest[1] >= PLACE_MS) oldest[0]();
      if (streams.size >= MAX_STREAMS) return undefined;
      const stream = openEventStream(deps.live, { cut, onClose: () => streams.delete(stream.end) });
      streams.set(stream.end, now);
      return stream.body;
    },
    relay: async () => ({
      version: options.version,
      pid: process.pid,
      host: hostname(),
      // A path that stands nowhere is told as it was given.
      accounts_file: await realpath(options.accountsFile).catch(() => options.accountsFile),
      started_at: startedAt,
    }),
    description: () => openApi(options.version),
  };
  for (const { method, path, parameters = [], answers, handle } of OPERATIONS)
    app.on(method.toUpperCase(), path.replaceAll(/\{(\w+)\}/g, ':$1'), async (c) => {
      const { cut } = c.env;
      const isHead = c.req.method === 'HEAD';
      // Nobody would read the stream, and it would keep a place.
      const streamType = 'text/event-stream';
      if (isHead && answers[200]?.[1] === streamType)
        return c.body(null, 200, { 'content-type': `${streamType}; charset=utf-8` });
      const query = (name: string): string | undefined => c.req.query(name);
      const odd = oddQuery(parameters, query);
      if (odd !== undefined) return c.json({ error: odd }, 400);
      const { status, body, chunks, type } = await handle(house, {
        param: (name) => c.req.param(name) ?? '',
        query,
        json: () => c.req.json(),
        header: (name) => c.req.header(name),
        cut,
        origin: () => c.req.header('origin') ?? `http://${c.req.header('host') ?? ''}`,
      });
      if (type === undefined) return c.json(body as object, status as 200);
      const headers = { 'content-type': type };
      if (isHead) return c.body(null, status as 200, headers);
      if (chunks === undefined) return c.body(body as string | ReadableStream, status as 200, headers);
      // A fault of the beginning is still answered; after it nobody must take for whole what is not.
      const first = await chunks.next();
      const stream = toByteStream(first, chunks, (error) => {
        failed(c.req, error);
        cut();
      });
      return c.body(stream, status as 200, headers);
    });

  app.get('*', (c) => {
    if (isRedirect(c.req.path, new URL(c.req.url).searchParams)) {
      const isOurs = deps.backend.signIns.returned(new URL(c.req.url).searchParams);
      return c.html(isOurs ? RETURNED : STRAY, isOurs ? 200 : 404);
    }
    const asset = assets(c.req.path);
    if (asset === undefined) return c.notFound();
    const headers = { 'content-type': asset.contentType, etag: asset.etag, 'cache-control': 'no-cache' };
    if (c.req.header('if-none-match') === asset.etag) return c.body(null, 304, headers);
    return c.body(new Uint8Array(asset.body), 200, headers);
  });

  return {
    fetch: (request, of) => app.fetch(request, of),
    close: () => {
      for (const end of [...streams.keys()]) end();
    },
  };
}
