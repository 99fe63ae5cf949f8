/** What an operator can do from the page. In: clicks. Out: requests, and a toast that says how they went. */
import type { AccountDetail, ReloadResult } from '../backend.ts';
import { byId, h } from './dom.ts';

export type AccountAction = 'refresh' | 'forget' | 'drain' | 'resume';

const TOAST_MS = 6_000;
const LONG_TOAST_MS = 15_000;

/** Says something in the corner; errors stay longer. */
export function toast(text: string, kind: 'ok' | 'bad' = 'ok'): void {
  const note = h('div', { class: 'toast', 'data-kind': kind }, h('span', {}, text));
  const close = h('button', { type: 'button', class: 'quiet', 'aria-label': 'Dismiss' }, '✕');
  close.addEventListener('click', () => note.remove());
  note.append(close);
  byId('toasts').append(note);
  setTimeout(() => note.remove(), kind === 'ok' ? TOAST_MS : LONG_TOAST_MS);
}

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

/** The account leaves the accounts file; true where it has. Never rejects. */
export async function forgetAccount(account: { id: string; email: string }): Promise<boolean> {
  try {
    const { status, body } = await ask('DELETE', pathOf(account.id));
    if (status < 300) toast(`${account.email}: removed`);
    else toast(`${account.email}: ${part(body, 'error') ?? `answer ${status}`}`, 'bad');
    return status < 300;
  } catch {
    toast(`${account.email}: the relay does not answer`, 'bad');
    return false;
  }
}

async function ask(method: 'GET' | 'POST' | 'DELETE', path: string): Promise<Answer> {
  const answer = await fetch(path, { method });
  return { status: answer.status, body: await answer.json() };
}

const part = (body: unknown, key: string): string | undefined => {
  const value =
    typeof body === 'object' && body !== null ? (body as Record<string, unknown>)[key] : undefined;
  return typeof value === 'string' ? value : undefined;
};

const REQUEST = {
  refresh: ['POST', '/refresh'],
  forget: ['DELETE', '/token'],
  drain: ['POST', '/drain'],
  resume: ['POST', '/resume'],
} as const;

const DONE: Readonly<Record<AccountAction, string>> = {
  refresh: 'new token fetched',
  forget: 'token dropped; the next message fetches another',
  drain: 'drained: new mail waits at the MTA until you resume',
  resume: 'back in service',
};

export const pathOf = (id: string): string => `/admin/accounts/${encodeURIComponent(id)}`;

/** Does `action` and says how it went; never rejects. */
export async function act(action: AccountAction, account: { id: string; email: string }): Promise<void> {
  const [method, suffix] = REQUEST[action];
  try {
    const { status, body } = await ask(method, pathOf(account.id) + suffix);
    if (status < 300) toast(`${account.email}: ${DONE[action]}`);
    else
      toast(
        [`${account.email}: ${part(body, 'error') ?? `answer ${status}`}`, part(body, 'cure')]
          .filter(Boolean)
          .join(' — '),
        'bad',
      );
  } catch {
    toast(`${account.email}: the relay does not answer`, 'bad');
  }
}

/** The account with its settings; undefined where the relay does not say. */
export async function loadDetail(id: string): Promise<AccountDetail | undefined> {
  try {
    const { status, body } = await ask('GET', pathOf(id));
    return status === 200 ? (body as AccountDetail) : undefined;
  } catch {
    return undefined;
  }
}

/** What a reload did, in a line. */
export function describeReload(result: ReloadResult): string {
  const counts = (['added', 'changed', 'removed'] as const)
    .filter((kind) => result[kind].length > 0)
    .map((kind) => `${result[kind].length} ${kind}`);
  const errors = result.errors.map((e) => `${e.path}: ${e.message}`).join('; ');
  if (!result.ok) return `Reload refused, nothing changed. ${errors}`;
  const what = counts.length === 0 ? 'no account changed' : counts.join(', ');
  return `Accounts reloaded: ${what}, ${result.untouched.length} untouched.${errors === '' ? '' : ` Left out: ${errors}`}`;
}

/** Asks for a reload; the result itself comes back over the event stream too, so only a failure to ask is said here. */
export async function reload(button: HTMLButtonElement): Promise<void> {
  button.disabled = true;
  try {
    const { status, body } = await ask('POST', '/admin/reload');
    if (status !== 200 && status !== 422) toast(part(body, 'error') ?? `answer ${status}`, 'bad');
  } catch {
    toast('The relay does not answer', 'bad');
  } finally {
    button.disabled = false;
  }
}
