/** Talks to the admin API of a running relay. In: settings. Out: its answers; a relay that is not there is told as such. */
import {
  type AccountDetail,
  type AccountRow,
  type FleetView,
  type ReloadResult,
  SHAPES,
  type Shape,
  type ShapeName,
  type UnclearRow,
} from '../admin/shapes.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { Settings } from '../config.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { cleanText } from '../protocol/text.ts';
import type { CommandContext } from './definition.ts';
import { commandSettings } from './setting-options.ts';

export interface AdminClient {
  readonly url: string;
  /** What runs there. */
  relay(): Promise<Shape<'Relay'>>;
  accounts(): Promise<readonly AccountRow[]>;
  /** The relays that share its limits, if any. */
  fleet(): Promise<FleetView>;
  /** By id or address. Rejects with `OperatorError` where there is none. */
  account(id: string): Promise<AccountDetail>;
  /** Rejects with `OperatorError` where it cannot be done. */
  act(id: string, action: 'refresh' | 'drain' | 'resume'): Promise<void>;
  /** Rejects with `OperatorError` where nobody can sign in to it. */
  invite(id: string): Promise<Shape<'Invitation'>>;
  reload(): Promise<ReloadResult>;
  /** Tells the relay that an account may be well again. */
  retry(accountId: string): Promise<void>;
  /** Messages of which nobody knows whether they were sent. */
  unclear(): Promise<readonly UnclearRow[]>;
  /** Rejects with `OperatorError` where it cannot be done. */
  decide(key: string, decision: 'delivered' | 'again'): Promise<void>;
  /** Whether the first warm-up round is over and some account is usable. */
  isReady(): Promise<boolean>;
}

/** Nobody answers at the admin address. */
export class NotRunningError extends OperatorError {}
/** A relay that wants a token it was not given. */
export class TokenWantedError extends OperatorError {}

/** A local API answers in milliseconds; a reload reads files and may hash passwords. */
const TIMEOUT_MS = 30_000;
/** Asked beside what the command is for: something else that listens there holds nobody up. */
const ASIDE_MS = 2_000;
/** 100,000 accounts are told in half of it. */
const MAX_OCTETS = 256 * 1024 * 1024;

/** An answer, whole. */
interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

export function createAdminClient(
  settings: Settings,
  {
    clock = systemClock,
    maxOctets = MAX_OCTETS,
  }: { readonly clock?: Clock; readonly maxOctets?: number } = {},
): AdminClient {
  const { adminHost, adminPort, adminToken, adminReadToken } = settings;
  // The address a server binds to is not always one a client can connect to.
  const host = adminHost === '0.0.0.0' ? '127.0.0.1' : adminHost === '::' ? '::1' : adminHost;
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${adminPort}`;
  const token = adminToken ?? adminReadToken;

  const request = async (path: string, method = 'GET', timeoutMs = TIMEOUT_MS): Promise<Answer> => {
    // Not AbortSignal.timeout: once the answer has begun it can be collected before it fires.
    const cut = new AbortController();
    const cancel = clock.after(timeoutMs, () => cut.abort());
    let hasBegun = false;
    try {
      const response = await fetch(url + path, {
        method,
        headers: token === undefined ? {} : { authorization: authorizationOf(token.reveal()) },
        signal: cut.signal,
        redirect: 'error',
      });
      hasBegun = true;
      const type = response.headers.get('content-type') ?? '';
      return { status: response.status, type, body: await readWhole(response, maxOctets, cut.signal) };
    } catch (error) {
      if (hasBegun)
        throw new OperatorError(
          `${url} began an answer and did not end it: is it a relay, and does it still run? ask again`,
          1,
          { cause: error },
        );
      throw new NotRunningError(
        `no relay answers at ${url}: is it running? (--admin-host and --admin-port name another)`,
        1,
        { cause: error },
      );
    } finally {
      cancel();
    }
  };
  const json = ({ status, type, body }: Answer): unknown => {
    if (status === 401 || status === 403)
      throw new TokenWantedError(`${url} refuses: give its admin token with --admin-token-file`);
    try {
      if (!type.includes('json')) throw new SyntaxError(type);
      // Whoever answers there: nothing of it may steer the terminal.
      return JSON.parse(body, (_key, value: unknown) =>
        typeof value === 'string' ? cleanText(value) : value,
      );
    } catch (error) {
      throw new OperatorError(`${url} answers HTTP ${status} without JSON: is it a relay?`, 1, {
        cause: error,
      });
    }
  };
  /** The answer, checked; keys of a later version may stand in it. Rejects with the relay's own error, or where it is none of its answers. */
  const read = <N extends ShapeName>(shape: N, response: Answer): Shape<N> => {
    const answer = json(response);
    const result = SHAPES[shape].safeParse(answer);
    const wrong = result.error?.issues.find((issue) => issue.code !== 'unrecognized_keys');
    if (wrong === undefined) return answer as Shape<N>;
    const refusal = SHAPES.Error.safeParse(answer);
    if (refusal.success) throw new OperatorError(refusal.data.error);
    throw new OperatorError(
      `${url} answers what this command does not understand (${wrong.path.join('.')}: ${wrong.message}): is the relay of another version? restart it`,
    );
  };
  const path = (id: string, rest = ''): string => `/admin/accounts/${encodeURIComponent(id)}${rest}`;
  const orNone = (id: string, response: Answer): Answer => {
    if (response.status === 404)
      throw new OperatorError(`the relay at ${url} has no account ${id}: "xoauth2-relay status" lists them`);
    return response;
  };
  return {
    url,
    account: async (id) => read('AccountDetail', orNone(id, await request(path(id)))),
    async act(id, action) {
      const response = orNone(id, await request(path(id, `/${action}`), 'POST'));
      if (action !== 'refresh') {
        read('Drained', response);
        return;
      }
      const { ok, error, cure } = read('Refreshed', response);
      if (!ok)
        throw new OperatorError([error ?? `HTTP ${response.status}`, cure].filter(Boolean).join(' — '));
    },
    invite: async (id) => read('Invitation', orNone(id, await request(path(id, '/invite'), 'POST'))),
    relay: async () => read('Relay', await request('/admin/relay', 'GET', ASIDE_MS)),
    fleet: async () => read('Fleet', await request('/admin/fleet', 'GET', ASIDE_MS)),
    accounts: async () => read('Accounts', await request('/admin/accounts')).accounts,
    reload: async () => read('Reload', await request('/admin/reload', 'POST')),
    retry: async (accountId) => void read('Drained', await request(path(accountId, '/retry'), 'POST')),
    unclear: async () => read('Unclear', await request('/admin/unclear')).messages,
    decide: async (key, decision) =>
      void read('Decided', await request(`/admin/unclear/${encodeURIComponent(key)}/${decision}`, 'POST')),
    isReady: async () => (await request('/readyz')).status === 200,
  };
}

/** By the command's settings. */
export const adminOf = async (context: CommandContext): Promise<AdminClient> =>
  createAdminClient(await commandSettings(context));

/** Rejects where it is longer: whoever floods us may have our memory sooner than our time is up. */
async function readWhole({ body }: Response, maxOctets: number, signal: AbortSignal): Promise<string> {
  const reader = body?.getReader();
  const end = (): void => void reader?.cancel().catch(() => undefined);
  // By ourselves: what links signal and answer can be collected meanwhile.
  signal.addEventListener('abort', end);
  const pieces: Uint8Array[] = [];
  let octets = 0;
  try {
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true };
      signal.throwIfAborted();
      if (value === undefined || done) return Buffer.concat(pieces).toString();
      octets += value.length;
      if (octets > maxOctets) throw new Error('too long');
      pieces.push(value);
    }
  } finally {
    signal.removeEventListener('abort', end);
    end();
  }
}

/** A bearer token has no spaces and nothing beyond ASCII (RFC 6750 §2.1); one of a person's making goes as a password. */
const authorizationOf = (token: string): string =>
  /^[!-~]+$/.test(token) ? `Bearer ${token}` : `Basic ${Buffer.from(`:${token}`).toString('base64')}`;
