/** Talks to the admin API of a running relay. In: settings. Out: its answers; a relay that is not there is told as such. */
import type { AccountRow, ReloadResult, Shape } from '../admin/shapes.ts';
import type { Settings } from '../config.ts';
import { cleanText } from '../protocol/text.ts';
import { CommandError } from './definition.ts';

export type { AccountRow, ReloadResult };

export interface AdminClient {
  readonly url: string;
  accounts(): Promise<readonly AccountRow[]>;
  reload(): Promise<ReloadResult>;
  /** Tells the relay that an account may be well again. */
  retry(accountId: string): Promise<void>;
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
  return {
    url,
    accounts: async () => ((await json(await request('/admin/accounts'))) as Shape<'Accounts'>).accounts,
    reload: async () => (await json(await request('/admin/reload', 'POST'))) as ReloadResult,
    retry: async (accountId) =>
      void (await json(await request(`/admin/accounts/${encodeURIComponent(accountId)}/retry`, 'POST'))),
    isReady: async () => (await request('/readyz')).ok,
  };
}
