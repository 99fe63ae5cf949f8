/** Talks to the admin API of a running relay. In: settings. Out: its answers; a relay that is not there is told as such. */
import type { AccountDetail, AccountRow, ReloadResult, Shape, UnclearRow } from '../admin/shapes.ts';
import type { Settings } from '../config.ts';
import { cleanText } from '../protocol/text.ts';
import { CommandError } from './definition.ts';

export type { AccountDetail, AccountRow, ReloadResult };

export interface AdminClient {
  readonly url: string;
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

export function createAdminClient(settings: Settings): AdminClient {
  const { adminHost, adminPort, adminToken, adminReadToken } = settings;
  // The address a server binds to is not always one a client can connect to.
  const host = adminHost === '0.0.0.0' ? '127.0.0.1' : adminHost === '::' ? '::1' : adminHost;
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${adminPort}`;
  const token = adminToken ?? adminReadToken;

  const request = async (path: string, method = 'GET'): Promise<Response> => {
    try {
      return await fetch(url + path, {
        method,
        headers: token === undefined ? {} : { authorization: `Bearer ${token.reveal()}` },
        signal: AbortSignal.timeout(TIMEOUT_MS),
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
  const path = (id: string, rest = ''): string => `/admin/accounts/${encodeURIComponent(id)}${rest}`;
  const orNone = (id: string, response: Response): Response => {
    if (response.status === 404)
      throw new CommandError(`the relay at ${url} has no account ${id}: "xoauth2-relay status" lists them`);
    return response;
  };
  return {
    url,
    account: async (id) => (await json(orNone(id, await request(path(id))))) as AccountDetail,
    async act(id, action) {
      const response = orNone(id, await request(path(id, `/${action}`), 'POST'));
      const answer = (await json(response)) as { ok?: boolean; error?: string; cure?: string };
      if (!response.ok || answer.ok === false)
        throw new CommandError(
          `${answer.error ?? `HTTP ${response.status}`}${answer.cure === undefined ? '' : ` — ${answer.cure}`}`,
        );
    },
    async invite(id) {
      const response = orNone(id, await request(path(id, '/invite'), 'POST'));
      const answer = (await json(response)) as Shape<'Invitation'> & { error?: string };
      if (!response.ok) throw new CommandError(answer.error ?? `HTTP ${response.status}`);
      return answer;
    },
    accounts: async () => ((await json(await request('/admin/accounts'))) as Shape<'Accounts'>).accounts,
    reload: async () => (await json(await request('/admin/reload', 'POST'))) as ReloadResult,
    retry: async (accountId) =>
      void (await json(await request(`/admin/accounts/${encodeURIComponent(accountId)}/retry`, 'POST'))),
    async unclear() {
      const response = await request('/admin/unclear');
      const answer = await json(response);
      if (!response.ok) throw new CommandError((answer as Shape<'Error'>).error);
      return (answer as Shape<'Unclear'>).messages;
    },
    async decide(key, decision) {
      const response = await request(`/admin/unclear/${encodeURIComponent(key)}/${decision}`, 'POST');
      const answer = await json(response);
      if (!response.ok) throw new CommandError((answer as Shape<'Error'>).error);
    },
    isReady: async () => (await request('/readyz')).ok,
  };
}
