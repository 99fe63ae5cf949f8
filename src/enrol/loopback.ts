/**
 * The loopback redirect of a sign-in (RFC 8252 §7.3). In: host and port. Out: the address the browser came
 * back with. Owns an HTTP server that answers that one request and closes.
 */
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { OperatorError } from './operator-error.ts';

export interface Redirect {
  /** `http://127.0.0.1:PORT/`, to be sent as redirect_uri. */
  readonly uri: string;
  readonly port: number;
  /** Rejects with `OperatorError` when nobody came in time. */
  readonly arrived: Promise<URL>;
  close(): void;
}

const PAGE = (text: string): string =>
  `<!doctype html><html lang="en"><meta charset="utf-8"><title>xoauth2-relay</title><p>${text}</p></html>`;

export async function listenForRedirect(host: string, port: number, timeoutMs: number): Promise<Redirect> {
  let settle: (url: URL) => void = () => {};
  let refuse: (error: Error) => void = () => {};
  const arrived = new Promise<URL>((resolve, reject) => {
    settle = resolve;
    refuse = reject;
  });
  // Whoever awaits it may already have been served by a pasted address.
  arrived.catch(() => {});
  const answer = (response: ServerResponse, status: number, text: string): void => {
    response.writeHead(status, {
      'content-type': 'text/html; charset=utf-8',
      'content-security-policy': "default-src 'none'",
      connection: 'close',
    });
    response.end(PAGE(text));
  };
  let uri = '';
  const server = createServer((request, response) => {
    const target = request.url ?? '/';
    // What is no address, such as `//`, is nobody's redirect and must not end the sign-in.
    if (!URL.canParse(target, uri)) return answer(response, 404, 'Nothing here.');
    const url = new URL(target, uri);
    const isRedirect =
      request.method === 'GET' &&
      url.host === new URL(uri).host &&
      url.pathname === '/' &&
      (url.searchParams.has('code') || url.searchParams.has('error'));
    // A browser also asks for its icon.
    if (!isRedirect) return answer(response, 404, 'Nothing here.');
    answer(response, 200, 'Received. You can close this page and go back to the terminal.');
    server.close();
    settle(url);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(new OperatorError(`cannot listen on 127.0.0.1:${port}: ${error.code ?? error.message}`)),
    );
    server.listen(port, '127.0.0.1', resolve);
  });
  const bound = (server.address() as AddressInfo).port;
  uri = `http://${host}:${bound}/`;
  const timer = setTimeout(() => refuse(new OperatorError('nobody signed in: start again')), timeoutMs);
  return {
    uri,
    port: bound,
    arrived,
    close: () => {
      clearTimeout(timer);
      server.close();
      server.closeAllConnections();
    },
  };
}
