/** Talks to the admin API of a running relay. In: settings. Out: its answers; a relay that is not there is told as such. */
import {
  type AccountDetail,
  type AccountRow,
  type ReloadResult,
  SHAPES,
  type Shape,
  type ShapeName,
  type UnclearRow,
} from '../admin/shapes.ts';
import type { Settings } from '../config.ts';
import { cleanText } from '../protocol/text.ts';
import { CommandError } from './definition.ts';

export type { AccountDetail, AccountRow, ReloadResult };

export interface AdminClient {
  readonly url: string;
  /** What runs there. */
  relay(): Promise<Shape<'Relay'>>;
  accounts(): Promise<readonly AccountRow[]>;
  /** By id or address. Rejects with `CommandError` where there is none. */
  account(id: string): Promise<AccountDetail>;
  /** Rejects with `CommandError` where it cannot be done. */
  act(id: string, action: 'refresh' | 'drain' | 'resume'): Promise<void>;
  /** Rejects with `CommandError` where nobody can sign in to it. */
  invite(id: string): Promise<Shape<'Invitation'>>;
  reload(): Promise<ReloadResult>;
  /** Tells the relay that an account may be well again. */
  retry(accountId: string): Promise<void>;
  /** Messages of which nobody knows whether they were sent. */
  unclear(): Promise<readonly UnclearRow[]>;
  /** Rejects with `CommandError` where it cannot be done. */
  decide(key: string, decision: 'delivered' | 'again'): Promise<void>;
  /** Whether the first warm-up round is over and some account is usable. */
  isReady(): Promise<boolean>;
}

/** Nobody answers at the admin address. */
export class NotRunningError extends CommandError {}

/** A local API answers in milliseconds; a reload reads files and may hash passwords. */
const TIMEOUT_MS = 30_000;
/** Asked beside what the command is for: something else that listens there holds nobody up. */
const ASIDE_MS = 2_000;

export function createAdminClient(settings: Settings): AdminClient {
  const { adminHost, adminPort, adminToken, adminReadToken } = settings;
  // The address a server binds to is not always one a client can connect to.
  const host = adminHost === '0.0.0.0' ? '127.0.0.1' : adminHost === '::' ? '::1' : adminHost;
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${adminPort}`;
  const token = adminToken ?? adminReadToken;

  const request = async (path: string, method = 'GET', timeoutMs = TIMEOUT_MS): Promise<Response> => {
    try {
      return await fetch(url + path, {
        method,
        headers: token === undefined ? {} : { authorization: `Bearer ${token.reveal()}` },
        signal: AbortSignal.timeout(timeoutMs),
        redirect: 'error',
      });
    } catch (error) {
      throw new NotRunningError(
        `no relay answers at ${url}: is it running? (--admin-host and --admin-port name another)`,
        1,
        { cause: error },
      );
    }
  };
  const json = async (response: Response): Promise<unknown> => {
    if (response.status === 401 || response.status === 403)
      throw new CommandError(`${url} refuses: give its admin token with --admin-token-file`);
    const type = response.headers.get('content-type') ?? '';
    if (!type.includes('json'))
      throw new CommandError(`${url} answers HTTP ${response.status} without JSON: is it a relay?`);
    // Whoever answers there: nothing of it may steer the terminal.
    return JSON.parse(await response.text(), (_key, value: unknown) =>
      typeof value === 'string' ? cleanText(value) : value,
    );
  };
  /** The answer, checked; keys of a later version may stand in it. Rejects with the relay's own error, or where it is none of its answers. */
  const read = async <N extends ShapeName>(shape: N, response: Response): Promise<Shape<N>> => {
    const answer = await json(response);
    const result = SHAPES[shape].safeParse(answer);
    const wrong = result.error?.issues.find((issue) => issue.code !== 'unrecognized_keys');
    if (wrong === undefined) return answer as Shape<N>;
    const refusal = SHAPES.Error.safeParse(answer);
    if (refusal.success) throw new CommandError(refusal.data.error);
    throw new CommandError(
      `${url} answers what this command does not understand (${wrong.path.join('.')}: ${wrong.message}): is the relay of another version? restart it`,
    );
  };
  const path = (id: string, rest = ''): string => `/admin/accounts/${encodeURIComponent(id)}${rest}`;
  const orNone = (id: string, response: Response): Response => {
    if (response.status === 404)
      throw new CommandError(`the relay at ${url} has no account ${id}: "xoauth2-relay status" lists them`);
    return response;
  };
  return {
    url,
    account: async (id) => read('AccountDetail', orNone(id, await request(path(id)))),
    async act(id, action) {
      const response = orNone(id, await request(path(id, `/${action}`), 'POST'));
      if (action !== 'refresh') {
        await read('Drained', response);
        return;
      }
      const { ok, error, cure } = await read('Refreshed', response);
      if (!ok) throw new CommandError([error ?? `HTTP ${response.status}`, cure].filter(Boolean).join(' — '));
    },
    invite: async (id) => read('Invitation', orNone(id, await request(path(id, '/invite'), 'POST'))),
    relay: async () => read('Relay', await request('/admin/relay', 'GET', ASIDE_MS)),
    accounts: async () => (await read('Accounts', await request('/admin/accounts'))).accounts,
    reload: async () => read('Reload', await request('/admin/reload', 'POST')),
    retry: async (accountId) =>
      void (await read('Drained', await request(path(accountId, '/retry'), 'POST'))),
    async unclear() {
      return (await read('Unclear', await request('/admin/unclear'))).messages;
    },
    async decide(key, decision) {
      await read('Decided', await request(`/admin/unclear/${encodeURIComponent(key)}/${decision}`, 'POST'));
    },
    isReady: async () => (await request('/readyz')).ok,
  };
}
