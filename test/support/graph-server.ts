/**
 * The mail side of Microsoft Graph on loopback, strict where the real one is: media type, base64,
 * `Content-Length: 0`, audience and permissions of the token, 4 MB, 4 requests at once. In: mailboxes
 * and faults. Out: who was sent what, how often, and every request. What is not known of the real one it
 * does the worse way: a second send of a draft delivers a second time.
 */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import addressparser from 'nodemailer/lib/addressparser';
import { type Certificate, issueCertificate } from './certificate.ts';

export type GraphCallName = 'create' | 'send' | 'look' | 'search' | 'delete' | 'send_mail';

/** What a bearer token is good for. */
export interface GraphToken {
  readonly audience: string;
  /** `Mail.Send`, `Mail.ReadWrite`. */
  readonly scopes: readonly string[];
  /** Mailboxes it may use; undefined: every one. */
  readonly mailboxes?: readonly string[];
  readonly app: string;
}

export interface GraphFault {
  /** The request is carried out all the same. Default false. */
  readonly carriedOut?: boolean;
  /** So long after the answer; default before it. */
  readonly lateMs?: number;
  /** `reset` cuts the connection, `silence` never answers. */
  readonly answer:
    | { readonly status: number; readonly code?: string; readonly retryAfter?: string }
    /** These octets, then the end of the connection. */
    | { readonly torn: string }
    | 'reset'
    | 'silence';
}

export interface GraphRules {
  /** Requests at once before 429; 0: no limit. Default 4. */
  atOnce: number;
  /** Whom the 4 count for. Default `mailbox`. */
  atOnceBy: 'mailbox' | 'app';
  /** A draft cannot be found for this long after it was sent, ms. */
  hiddenMs: number;
  /** Too large a message is answered 200 instead of 413. */
  okForTooLarge: boolean;
  /** The client's Message-ID is replaced. */
  replacesMessageId: boolean;
  latencyMs: number;
  /** So long it reads nothing of a request's body. */
  readsAfterMs: number;
  /** Serves HTTPS under the name `localhost`, with a certificate of the test CA. Fixed at the start. */
  tls: boolean;
  /** Asked for each request where no fault is queued. */
  chaos: ((call: GraphCallName, mailbox: string) => GraphFault | undefined) | undefined;
}

export interface GraphDelivered {
  readonly mailbox: string;
  readonly recipients: readonly string[];
  /** As the recipients get it: Bcc removed. */
  readonly text: string;
  readonly messageId: string | undefined;
  readonly draft: string | undefined;
}

export interface GraphRequest {
  readonly call: GraphCallName | 'unknown';
  readonly mailbox: string;
  readonly headers: IncomingMessage['headers'];
  readonly url: string;
  status: number | undefined;
}

export interface GraphServer {
  /** For `graph_url`. */
  readonly url: string;
  readonly rules: GraphRules;
  readonly delivered: readonly GraphDelivered[];
  readonly requests: readonly GraphRequest[];
  /** Called with each request once it is answered. */
  observe: ((request: GraphRequest) => void) | undefined;
  /** Drafts now in the mailboxes. */
  readonly drafts: readonly { readonly id: string; readonly mailbox: string }[];
  readonly maxAtOnce: number;
  count(call: GraphCallName): number;
  /** The next requests of this kind; several faults wait in line. */
  fault(call: GraphCallName, fault: GraphFault, times?: number): void;
  clearFaults(): void;
  /** The mailbox refuses everything with this; status 0 ends it. */
  refuseMailbox(mailbox: string, status: number, code: string): void;
  close(): Promise<void>;
}

interface Item {
  readonly id: string;
  readonly mailbox: string;
  readonly message: string;
  readonly internetMessageId: string;
  readonly createdAt: number;
  isDraft: boolean;
  hiddenUntil: number;
}

const MAX_REQUEST_OCTETS = 4 * 1024 * 1024;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

export async function startGraphServer(options: {
  /** The token as issued; undefined: not one of ours. */
  readonly verify: (bearer: string) => GraphToken | undefined;
  readonly rules?: Partial<GraphRules>;
  /** Wall clock for `createdDateTime`; default the real one. */
  readonly now?: () => number;
  /** Bodies are kept; default true. Off for load. */
  readonly record?: boolean;
}): Promise<GraphServer> {
  const rules: GraphRules = {
    atOnce: 4,
    atOnceBy: 'mailbox',
    hiddenMs: 0,
    okForTooLarge: false,
    replacesMessageId: false,
    latencyMs: 0,
    readsAfterMs: 0,
    tls: false,
    chaos: undefined,
    ...options.rules,
  };
  const items = new Map<string, Item>();
  const delivered: GraphDelivered[] = [];
  const requests: GraphRequest[] = [];
  const queued: { readonly call: GraphCallName; readonly fault: GraphFault; left: number }[] = [];
  const refused = new Map<string, { status: number; code: string }>();
  const busy = new Map<string, number>();
  const timers = new Set<NodeJS.Timeout>();
  let maxAtOnce = 0;

  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    handle(request, response).catch(() => response.destroy());
  };
  const { certPem: cert, keyPem: key } = rules.tls ? issueCertificate() : ({} as Partial<Certificate>);
  const server = rules.tls ? createSecureServer({ cert, key }, listener) : createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));

  function later(ms: number, task: () => void): void {
    const timer = setTimeout(() => {
      timers.delete(timer);
      task();
    }, ms);
    timers.add(timer);
  }

  function answer(
    response: ServerResponse,
    request: GraphRequest,
    status: number,
    json?: object,
    headers: Record<string, string> = {},
  ): void {
    request.status = status;
    graph.observe?.(request);
    response.writeHead(status, {
      'request-id': randomUUID(),
      ...(json === undefined ? { 'content-length': '0' } : { 'content-type': 'application/json' }),
      ...headers,
    });
    response.end(json === undefined ? undefined : JSON.stringify(json));
  }

  const errorBody = (code: string, message: string) => ({
    error: { code, message, innerError: { 'request-id': randomUUID(), date: new Date().toISOString() } },
  });

  async function handle(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(incoming.url ?? '/', 'http://localhost');
    const path = url.pathname
      .replace(/^\/v1\.0\//, '')
      .split('/')
      .map(decodeURIComponent);
    const bearer = /^Bearer (.+)$/.exec(incoming.headers.authorization ?? '')?.[1];
    const token = bearer === undefined ? undefined : options.verify(bearer);
    const [mailbox, rest] =
      path[0] === 'me'
        ? [token?.mailboxes?.[0] ?? 'me', path.slice(1)]
        : [(path[1] ?? '').toLowerCase(), path.slice(2)];
    const call = callOf(incoming.method ?? '', rest);
    const request: GraphRequest = {
      call,
      mailbox,
      headers: incoming.headers,
      url: incoming.url ?? '',
      status: undefined,
    };
    requests.push(request);
    const limitKey = rules.atOnceBy === 'app' ? (token?.app ?? '') : `${token?.app} ${mailbox}`;
    const now = (busy.get(limitKey) ?? 0) + 1;
    busy.set(limitKey, now);
    maxAtOnce = Math.max(maxAtOnce, now);
    response.on('close', () => busy.set(limitKey, (busy.get(limitKey) ?? 1) - 1));
    if (rules.readsAfterMs > 0) await new Promise<void>((resume) => later(rules.readsAfterMs, resume));
    const octets = await read(incoming);
    const fail = (status: number, code: string, message = code, headers: Record<string, string> = {}): void =>
      answer(response, request, status, errorBody(code, message), headers);
    if (rules.latencyMs > 0) await new Promise<void>((resume) => later(rules.latencyMs, resume));
    if (token === undefined || token.audience !== 'https://graph.microsoft.com')
      return fail(401, 'InvalidAuthenticationToken', 'Access token validation failure. Invalid audience.');
    if (call === 'unknown') return fail(400, 'BadRequest', 'Resource not found for the segment');
    if (rules.atOnce > 0 && now > rules.atOnce)
      return fail(429, 'ApplicationThrottled', 'Application is over its MailboxConcurrency limit.', {
        'retry-after': '1',
        'ratelimit-exceeded': 'MailboxConcurrency',
      });
    const wall = refused.get(mailbox);
    if (wall !== undefined) return fail(wall.status, wall.code);
    if (token.mailboxes !== undefined && !token.mailboxes.includes(mailbox))
      return fail(403, 'ErrorAccessDenied');
    const needed = call === 'send' || call === 'send_mail' ? 'Mail.Send' : 'Mail.ReadWrite';
    if (!token.scopes.includes(needed))
      return fail(403, 'ErrorAccessDenied', 'Access is denied. Check credentials and try again.');
    const line = queued.findIndex((q) => q.call === call && q.left > 0);
    const entry = queued[line];
    if (entry !== undefined && --entry.left === 0) queued.splice(line, 1);
    const fault = entry?.fault ?? rules.chaos?.(call, mailbox);
    const immutable = incoming.headers.prefer === 'IdType="ImmutableId"';
    const carryOut = (): { status: number; json?: object } =>
      perform(call, mailbox, rest, url, octets, incoming, immutable);
    if (fault === undefined) {
      const { status, json } = carryOut();
      return answer(response, request, status, json);
    }
    if (fault.carriedOut === true) {
      if (fault.lateMs === undefined) carryOut();
      else later(fault.lateMs, carryOut);
    }
    if (fault.answer === 'silence') return;
    if (fault.answer === 'reset') {
      incoming.socket.resetAndDestroy();
      return;
    }
    if ('torn' in fault.answer) {
      incoming.socket.end(fault.answer.torn);
      return;
    }
    const { status, code, retryAfter } = fault.answer;
    const headers: Record<string, string> = retryAfter === undefined ? {} : { 'retry-after': retryAfter };
    if (status < 300) answer(response, request, status, undefined, headers);
    else fail(status, code ?? 'UnknownError', code ?? 'UnknownError', headers);
  }

  function perform(
    call: GraphCallName,
    mailbox: string,
    rest: readonly string[],
    url: URL,
    octets: Buffer,
    incoming: IncomingMessage,
    immutable: boolean,
  ): { status: number; json?: object } {
    switch (call) {
      case 'create':
      case 'send_mail': {
        const wrong = refusalOf(octets, incoming);
        if (wrong !== undefined) return wrong;
        const message = Buffer.from(octets.toString('latin1'), 'base64').toString('latin1');
        if (recipientsOf(message).length === 0 && call === 'send_mail')
          return {
            status: 400,
            json: errorBody('ErrorInvalidRecipients', 'At least one recipient is needed.'),
          };
        const own = /^message-id:[ \t]*(<[^>\r\n]+>)/im.exec(headerOf(message))?.[1];
        const item: Item = {
          id: `${immutable ? 'I' : 'M'}-${randomUUID()}=`,
          mailbox,
          message,
          internetMessageId:
            own === undefined || rules.replacesMessageId ? `<${randomUUID()}@prod.outlook.com>` : own,
          createdAt: (options.now ?? Date.now)(),
          isDraft: true,
          hiddenUntil: 0,
        };
        items.set(item.id, item);
        if (call === 'create') {
          const content = message.slice(message.indexOf('\r\n\r\n') + 4);
          return { status: 201, json: { ...show(item, true), body: { contentType: 'text', content } } };
        }
        deliver(item);
        return { status: 202 };
      }
      case 'send': {
        const item = visible(rest[1], mailbox);
        if (incoming.headers['content-length'] !== '0')
          return { status: 411, json: errorBody('LengthRequired', 'Content-Length is required') };
        if (item === undefined) return { status: 404, json: errorBody('ErrorItemNotFound', 'not found') };
        if (recipientsOf(item.message).length === 0)
          return {
            status: 400,
            json: errorBody('ErrorInvalidRecipients', 'At least one recipient is needed.'),
          };
        deliver(item);
        return { status: 202 };
      }
      case 'look': {
        const item = visible(rest[1], mailbox);
        if (item === undefined) return { status: 404, json: errorBody('ErrorItemNotFound', 'not found') };
        return { status: 200, json: show(item, false) };
      }
      case 'search': {
        const id = /^internetMessageId eq '(.*)'$/
          .exec(url.searchParams.get('$filter') ?? '')?.[1]
          ?.replaceAll("''", "'");
        const found = [...items.values()].filter(
          (i) =>
            (rest[0] === 'messages' || i.isDraft) &&
            i.mailbox === mailbox &&
            i.internetMessageId === id &&
            i.hiddenUntil <= Date.now(),
        );
        const most = Number(url.searchParams.get('$top') ?? 10);
        return { status: 200, json: { value: found.slice(0, most).map((i) => show(i, true)) } };
      }
      case 'delete': {
        const item = visible(rest[1], mailbox);
        if (item === undefined) return { status: 404, json: errorBody('ErrorItemNotFound', 'not found') };
        items.delete(item.id);
        return { status: 204 };
      }
      default:
        return call satisfies never;
    }
  }

  function refusalOf(
    octets: Buffer,
    incoming: IncomingMessage,
  ): { status: number; json?: object } | undefined {
    if (octets.length > MAX_REQUEST_OCTETS)
      return rules.okForTooLarge
        ? { status: 200 }
        : {
            status: 413,
            json: errorBody('RequestEntityTooLarge', 'The maximum request length supported is 4MB.'),
          };
    if (incoming.headers['content-type'] !== 'text/plain')
      return { status: 400, json: errorBody('BadRequest', 'Requested content type is not supported') };
    if (!BASE64.test(octets.toString('latin1')))
      return {
        status: 400,
        json: errorBody('ErrorMimeContentInvalidBase64String', 'Invalid base64 string for MIME content.'),
      };
    return undefined;
  }

  function visible(id: string | undefined, mailbox: string): Item | undefined {
    const item = items.get(id ?? '');
    if (item?.mailbox !== mailbox || item.hiddenUntil > Date.now()) return undefined;
    // Only an immutable id names the copy in Sent Items.
    return !item.isDraft && item.id.startsWith('M') ? undefined : item;
  }

  function deliver(item: Item): void {
    item.isDraft = false;
    item.hiddenUntil = Date.now() + rules.hiddenMs;
    delivered.push({
      mailbox: item.mailbox,
      recipients: recipientsOf(item.message),
      text: options.record === false ? '' : withoutBcc(item.message),
      messageId: /^message-id:[ \t]*(<[^>\r\n]+>)/im.exec(headerOf(item.message))?.[1],
      draft: item.id,
    });
  }

  function show(item: Item, full: boolean): object {
    const list = (field: string): object[] =>
      addressesIn(item.message, field).map((address) => ({ emailAddress: { name: address, address } }));
    return {
      id: item.id,
      isDraft: item.isDraft,
      internetMessageId: item.internetMessageId,
      ...(full
        ? {
            createdDateTime: new Date(item.createdAt).toISOString(),
            toRecipients: list('to'),
            ccRecipients: list('cc'),
            bccRecipients: list('bcc'),
          }
        : {}),
    };
  }

  const { port } = server.address() as AddressInfo;
  const graph: GraphServer = {
    observe: undefined,
    url: rules.tls ? `https://localhost:${port}/v1.0` : `http://127.0.0.1:${port}/v1.0`,
    rules,
    delivered,
    requests,
    get drafts() {
      return [...items.values()].filter((i) => i.isDraft);
    },
    get maxAtOnce() {
      return maxAtOnce;
    },
    count: (call) => requests.filter((r) => r.call === call).length,
    fault: (call, fault, times = 1) => void queued.push({ call, fault, left: times }),
    clearFaults: () => void queued.splice(0),
    refuseMailbox(mailbox, status, code) {
      if (status === 0) refused.delete(mailbox);
      else refused.set(mailbox, { status, code });
    },
    async close() {
      for (const timer of timers) clearTimeout(timer);
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return graph;
}

function callOf(method: string, rest: readonly string[]): GraphCallName | 'unknown' {
  const [kind, id, verb] = rest;
  if (method === 'GET' && rest.join('/') === 'mailFolders/drafts/messages') return 'search';
  if (kind === 'sendMail' && method === 'POST' && id === undefined) return 'send_mail';
  if (kind !== 'messages') return 'unknown';
  if (method === 'POST') return id === undefined ? 'create' : verb === 'send' ? 'send' : 'unknown';
  if (method === 'DELETE' && id !== undefined) return 'delete';
  return method === 'GET' ? (id === undefined ? 'search' : 'look') : 'unknown';
}

async function read(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

const headerOf = (message: string): string => message.slice(0, message.indexOf('\r\n\r\n') + 2);

function addressesIn(message: string, field: string): string[] {
  const fields = [
    ...headerOf(message).matchAll(new RegExp(`^${field}[ \\t]*:((?:[^\\r]|\\r\\n[ \\t])*)`, 'gim')),
  ];
  return fields.flatMap(([, value = '']) =>
    addressparser(value.replace(/\r\n/g, ''), { flatten: true })
      .map((a) => a.address)
      .filter((a) => a.includes('@')),
  );
}

/** Each mailbox once, as Exchange does. */
const recipientsOf = (message: string): string[] => [
  ...new Set(['to', 'cc', 'bcc'].flatMap((field) => addressesIn(message, field))),
];

const withoutBcc = (message: string): string => {
  const header = headerOf(message);
  return header.replace(/^bcc[ \t]*:(?:[^\r]|\r\n[ \t])*\r\n/gim, '') + message.slice(header.length);
};
