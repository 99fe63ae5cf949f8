/** The admin server's socket: the one file that knows @hono/node-server. Owns the listening port. */
import { createServer, type RequestListener, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { isLoopbackHost } from '../protocol/cidr.ts';
import { createRoutes, type RouteDeps, type RouteOptions } from './routes.ts';

export interface AdminServerOptions extends RouteOptions {
  /** 0 picks a free one. */
  readonly port: number;
}

export interface AdminServer {
  /** Rejects where the port cannot be had. */
  listen(): Promise<{ readonly host: string; readonly port: number }>;
  /** Ends streams and connections; resolves when the port is free. Idempotent. */
  close(): Promise<void>;
}

const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
/** From one address, and in all. A dashboard has one or two, a scraper one. */
const MAX_CONNECTIONS_PER_ADDRESS = 64;
const MAX_CONNECTIONS = 200;

/** Throws where the options are unsafe: an address beyond loopback without a token. */
export function createAdminServer(deps: RouteDeps, options: AdminServerOptions): AdminServer {
  const routes = createRoutes(deps, options);
  const server = createServer({ headersTimeout: HEADERS_TIMEOUT_MS, requestTimeout: REQUEST_TIMEOUT_MS });
  const answer = getRequestListener(
    (request, env) => routes.fetch(request, { cut: () => void env.incoming.socket.destroy() }),
    { hostname: options.host },
  );
  limitConnections(server, answer);
  // After `close`, so that a failed socket is not an unhandled error.
  server.on('error', (error) =>
    deps.log.error({ event: 'admin_socket', error: error.message }, 'admin server'),
  );

  return {
    listen: () =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(options.port, options.host, () => {
          server.off('error', reject);
          const address = server.address();
          const port = typeof address === 'object' && address !== null ? address.port : options.port;
          if (!isLoopbackHost(options.host)) {
            deps.log.warn(
              { event: 'admin_exposed', host: options.host, port },
              'the admin address is not loopback: every request needs the admin token; put TLS in front of it',
            );
          }
          resolve({ host: options.host, port });
        });
      }),
    close: () =>
      new Promise((resolve) => {
        routes.close();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/**
 * Whoever opens too many connections loses his own, the idle and the oldest first, and never keeps a new one
 * out: `/healthz` answers however many somebody holds open. On each one request is under way at a time: whoever asks on
 * without an answer (RFC 9112 §9.3.2, which no browser and no scraper does) could have any number made and held.
 */
function limitConnections(
  server: Server,
  answer: RequestListener,
  { perAddress = MAX_CONNECTIONS_PER_ADDRESS, inAll = MAX_CONNECTIONS } = {},
): void {
  const open = new Map<string, Set<Socket>>();
  const busy = new Set<Socket>();
  let total = 0;
  const largest = (): Set<Socket> =>
    [...open.values()].reduce((most, sockets) => (sockets.size > most.size ? sockets : most));
  server.on('connection', (socket) => {
    const address = socket.remoteAddress ?? '';
    const mine = open.get(address) ?? new Set();
    open.set(address, mine.add(socket));
    total += 1;
    socket.once('close', () => {
      total -= 1;
      mine.delete(socket);
      busy.delete(socket);
      if (mine.size === 0) open.delete(address);
    });
    const crowd = mine.size > perAddress ? mine : total > inAll ? largest() : undefined;
    if (crowd === undefined) return;
    const others = [...crowd].filter((other) => other !== socket && !other.destroyed);
    (others.find((other) => !busy.has(other)) ?? others[0])?.destroy();
  });
  server.on('request', (request, response) => {
    const { socket } = request;
    if (socket.destroyed) return;
    if (busy.has(socket)) {
      socket.destroy();
      return;
    }
    busy.add(socket);
    response.once('close', () => busy.delete(socket));
    // What the same segment brings beside is parsed before, even where the answer is ready at once.
    setImmediate(() => {
      if (!socket.destroyed) answer(request, response);
    });
  });
}
