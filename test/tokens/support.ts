/** A token endpoint and accounts for the tests of this room. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import type { TestContext } from 'node:test';
import type { Account } from '../../src/accounts/account.ts';
import { type RefreshTokenCredential, Secret } from '../../src/accounts/credential.ts';
import type { Log } from '../../src/log.ts';

export interface TokenRequest {
  readonly form: URLSearchParams;
  readonly at: number;
}

export type Answer = (request: TokenRequest, response: ServerResponse) => void | Promise<void>;

export interface TestEndpoint {
  readonly url: string;
  readonly requests: TokenRequest[];
  /** Most requests that were open at once. */
  readonly peak: () => number;
  answer: Answer;
  /** Stops listening and cuts connections; the port stays known. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

/** Answers every grant with a new token of an hour unless told otherwise. */
export async function startEndpoint(t: TestContext): Promise<TestEndpoint> {
  const requests: TokenRequest[] = [];
  let open = 0;
  let peak = 0;
  let port = 0;
  const server = createServer((request, response) => {
    open += 1;
    peak = Math.max(peak, open);
    response.on('close', () => {
      open -= 1;
    });
    readForm(request).then(async (form) => {
      const seen = { form, at: Date.now() };
      requests.push(seen);
      await endpoint.answer(seen, response);
    }, response.destroy.bind(response));
  });
  const endpoint: TestEndpoint = {
    url: '',
    requests,
    peak: () => peak,
    answer: (_request, response) => grant(response, { access_token: `access-${requests.length}` }),
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
    start: () => new Promise((resolve) => server.listen(port, '127.0.0.1', () => resolve())),
  };
  await endpoint.start();
  port = (server.address() as AddressInfo).port;
  t.after(() => {
    if (server.listening) return endpoint.stop();
  });
  return Object.assign(endpoint, { url: `http://127.0.0.1:${port}/token` });
}

async function readForm(request: IncomingMessage): Promise<URLSearchParams> {
  let text = '';
  for await (const chunk of request) text += chunk;
  return new URLSearchParams(text);
}

export function answerJson(
  response: ServerResponse,
  status: number,
  body: object,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

export function grant(response: ServerResponse, members: object): void {
  answerJson(response, 200, { token_type: 'Bearer', expires_in: 3600, ...members });
}

export function account(id: string): Account {
  return {
    id,
    email: id,
    provider: 'test',
    user: id,
    senders: [id],
    clientPassword: undefined,
    upstream: { host: '127.0.0.1', port: 587, tls: 'starttls' },
    chunking: true,
    grant: 'refresh_token',
    localAddress: undefined,
    transport: 'smtp',
    limits: {
      maxConnections: 3,
      minConnections: 0,
      messagesPerMinute: undefined,
      messagesPerDay: undefined,
      recipientsPerDay: undefined,
      maxRecipients: 100,
      messagesPerConnection: 100,
      idleMs: 1,
      maxAgeMs: 1,
      loginIntervalMs: 1,
      maxBytes: 1,
    },
  };
}

export function refreshCredential(
  tokenUrl: string,
  id: string,
  more: Partial<RefreshTokenCredential> = {},
): RefreshTokenCredential {
  return {
    grant: 'refresh_token',
    tokenUrl,
    scope: '',
    safetyBufferMs: 300_000,
    clientId: 'client-1',
    clientSecret: new Secret('client-secret-1'),
    refreshToken: new Secret(`refresh-of-${id}`),
    ...more,
  };
}

export const entryFor = (tokenUrl: string, id: string, more: Partial<RefreshTokenCredential> = {}) => ({
  account: account(id),
  credential: refreshCredential(tokenUrl, id, more),
});

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

export function createTestLog(): Log & { readonly lines: LogLine[]; text(): string } {
  const lines: LogLine[] = [];
  const at = (level: string) => (fields: object, message: string) => {
    lines.push({ level, message, fields: { ...fields } });
  };
  return {
    lines,
    text: () => JSON.stringify(lines),
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
  };
}

/** A port nobody listens on. */
export async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  await new Promise((resolve) => connect(port, '127.0.0.1').on('error', resolve));
  return port;
}
