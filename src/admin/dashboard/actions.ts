/** What an operator can do from the page. In: clicks. Out: requests, and a toast that says how they went. */
import type { AccountDetail, ReloadResult } from '../shapes.ts';
import { byId, closeButton, h } from './dom.ts';
import { ask, pathOf } from './requests.ts';

export type AccountAction = 'refresh' | 'forget' | 'drain' | 'resume';

const TOAST_MS = 6_000;
const LONG_TOAST_MS = 15_000;

/** Says something in the corner; errors stay longer. */
export function toast(text: string, kind: 'ok' | 'bad' = 'ok'): void {
  const note = h('div', { class: 'toast', 'data-kind': kind }, h('span', {}, text));
  note.append(closeButton('Dismiss', () => note.remove()));
  byId('toasts').append(note);
  setTimeout(() => note.remove(), kind === 'ok' ? TOAST_MS : LONG_TOAST_MS);
}

export interface Named {
  readonly id: string;
  readonly email: string;
}

/** Asks, and says how it went; true where it went well. */
async function askFor(done: string, { email }: Named, path: string, method: string): Promise<boolean> {
  const { trouble } = await ask(path, { method });
  if (trouble === undefined) toast(`${email}: ${done}`);
  else toast(`${email}: ${trouble}`, 'bad');
  return trouble === undefined;
}

/** The account leaves the accounts file; true where it has. */
export const forgetAccount = (account: Named): Promise<boolean> =>
  askFor('removed', account, pathOf(account.id), 'DELETE');

const ACTIONS: Readonly<Record<AccountAction, readonly [method: string, under: string, done: string]>> = {
  refresh: ['POST', '/refresh', 'new token fetched'],
  forget: ['DELETE', '/token', 'token dropped; the next message fetches another'],
  drain: ['POST', '/drain', 'drained: new mail waits at the MTA until you resume'],
  resume: ['POST', '/resume', 'back in service'],
};

/** Does `action` and says how it went. */
export async function act(action: AccountAction, account: Named): Promise<void> {
  const [method, under, done] = ACTIONS[action];
  await askFor(done, account, pathOf(account.id) + under, method);
}

/** The account with its settings; undefined where the relay does not say. */
export async function loadDetail(id: string): Promise<AccountDetail | undefined> {
  const { body, trouble } = await ask(pathOf(id));
  return trouble === undefined ? (body as AccountDetail) : undefined;
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
  const { status, trouble } = await ask('/admin/reload', { method: 'POST' });
  button.disabled = false;
  if (trouble !== undefined && status !== 422) toast(trouble, 'bad');
}
