/** What the page asks before it acts: a question, a sign-in, a new account. In: an account. Out: dialogs. */
import type { Shape } from '../shapes.ts';
import { act, forgetAccount, type Named, toast } from './actions.ts';
import { button, byId, closeButton, h, sub } from './dom.ts';
import { ask, pathOf, post } from './requests.ts';
import { createSignInView, type Desk, type Said, say } from './sign-in-view.ts';

/** Asks; true where the person agreed. */
function confirmIn(question: string, consequence: string, label: string): Promise<boolean> {
  const dialog = byId<HTMLDialogElement>('confirm');
  const yes = button(label, () => dialog.close('yes'), { class: 'danger' });
  const no = button('Cancel', () => dialog.close('no'));
  dialog.returnValue = '';
  dialog.replaceChildren(
    h('header', {}, h('h2', { id: 'confirm-title' }, question)),
    h('p', { class: 'body' }, consequence),
    h('footer', {}, no, yes),
  );
  dialog.showModal();
  no.focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}

/** Drains after asking. */
export async function drain(account: Named): Promise<void> {
  const isSure = await confirmIn(
    `Drain ${account.email}?`,
    'New mail of this account is answered 451 and waits at the mail server until you resume it. What is under way is finished.',
    'Drain',
  );
  if (isSure) await act('drain', account);
}

/** Removes after asking; true where it is gone. */
export async function remove(account: Named): Promise<boolean> {
  const isSure = await confirmIn(
    `Remove ${account.email}?`,
    'Its entry is taken out of the accounts file, and mail from its senders is refused (550). The consent at the provider stays: end it there.',
    'Remove',
  );
  return isSure && (await forgetAccount(account));
}

const deskOf = (id: string): Desk => {
  const path = `${pathOf(id)}/sign-in`;
  return {
    look: () => say(path),
    begin: (way) => say(path, post({ way })),
    paste: (url) => say(`${path}/redirect`, post({ url })),
  };
};

function open(title: string, ...content: Node[]): HTMLDialogElement {
  const dialog = byId<HTMLDialogElement>('sign-in-dialog');
  dialog.replaceChildren(
    h(
      'header',
      {},
      h('h2', { id: 'sign-in-title' }, title),
      closeButton('Close', () => dialog.close()),
    ),
    h('div', { class: 'body' }, ...content),
  );
  if (!dialog.open) dialog.showModal();
  return dialog;
}

/** A person signs in to an account; with a link for somebody else. */
export function openSignIn(account: Named, first?: Said): void {
  const view = createSignInView(deskOf(account.id), account.email, first);
  const link = h('div', { class: 'invitation', role: 'status' });
  const other = h(
    'details',
    { class: 'invite' },
    h('summary', {}, 'Somebody else has to sign in'),
    h('p', {}, 'A link opens this one sign-in and nothing else, once, within a day.'),
    button('Make a link for the owner', () => showLink(account, link)),
    link,
  );
  const dialog = open(
    `Sign in to ${account.email}`,
    h(
      'p',
      {},
      'The new grant is tried (login, nothing is sent) before it is kept. Mail that waits flows at once.',
    ),
    view.element,
    ...(first === undefined ? [other] : []),
  );
  dialog.addEventListener('close', view.close, { once: true });
}

async function showLink({ id, email }: Named, place: HTMLElement): Promise<void> {
  const { body, trouble } = await ask(`${pathOf(id)}/invite`, { method: 'POST' });
  if (trouble !== undefined) return toast(`${email}: ${trouble}`, 'bad');
  const { path, until } = body as Shape<'Invitation'>;
  const field = h('input', {
    type: 'text',
    readonly: true,
    value: location.origin + path,
    'aria-label': 'Link for the owner of the mailbox',
  });
  place.replaceChildren(field, sub(`Good until ${new Date(until).toLocaleString('en-GB')}.`));
  field.select();
}

const field = (
  name: string,
  label: string,
  hint: string,
  attributes: Readonly<Record<string, string | boolean>> = {},
): HTMLElement =>
  h(
    'p',
    { class: 'field' },
    h('label', { for: `new-${name}` }, label),
    h('input', {
      id: `new-${name}`,
      name,
      type: 'text',
      autocomplete: 'off',
      spellcheck: 'false',
      ...attributes,
    }),
    hint === '' ? null : sub(hint),
  );

/** A new account: what it is, then the sign-in. */
export function openNewAccount(providers: readonly string[]): void {
  const trouble = h('p', { class: 'trouble', role: 'alert' });
  const form = h(
    'form',
    { class: 'new-account' },
    field('email', 'Mailbox', '', { type: 'email', required: true, placeholder: 'alice@example.com' }),
    h(
      'p',
      { class: 'field' },
      h('label', { for: 'new-provider' }, 'Provider'),
      h(
        'select',
        { id: 'new-provider', name: 'provider' },
        ...providers.map((p) => h('option', { value: p }, p)),
      ),
    ),
    field('client_id', 'Client ID', 'Empty: the OAuth client of the first account of this provider.'),
    field('client_secret', 'Client secret', 'Empty for a public client.', { type: 'password' }),
    field('tenant', 'Tenant', 'Microsoft only: its ID or domain. Empty: any.'),
    trouble,
    h(
      'p',
      { class: 'row' },
      h('button', { type: 'submit', class: 'primary', value: 'browser' }, 'Sign in with this browser'),
      h('button', { type: 'submit', value: 'device' }, 'Sign in with a code'),
    ),
  );
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const way = (event.submitter as HTMLButtonElement | null)?.value ?? 'browser';
    const given = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ''));
    void say('/admin/accounts', post({ ...given, way })).then((said) => {
      if ('error' in said) trouble.textContent = said.error;
      else openSignIn({ id: said.row.account, email: String(given.email) }, said);
    });
  });
  open('Add an account', form);
  form.querySelector('input')?.focus();
}

/** The row of the book of causes, as the relay serves it. */
export const causeLink = (cause: string | null): HTMLElement | null => {
  if (cause === null) return null;
  return h(
    'a',
    { href: `/troubleshooting#${cause}`, target: '_blank', class: 'more' },
    'What this means',
    h('span', { class: 'sr' }, ` (${cause}, in a new tab)`),
  );
};
