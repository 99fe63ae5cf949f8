/**
 * A sign-in as a person sees it: which way, where to go, how it went. In: a desk that is asked. Out: the view, kept
 * current while something is under way. The dashboard and the invited person's page share it.
 */
import type { SignInWay } from '../backend.ts';
import type { SignInRow } from '../shapes.ts';
import { button, h, sub } from './dom.ts';
import { ask } from './requests.ts';

/** What a request came to: a row, or why not, in words. */
export type Said = { readonly row: SignInRow } | { readonly error: string };

export interface Desk {
  look(): Promise<Said>;
  begin(way: SignInWay): Promise<Said>;
  paste(url: string): Promise<Said>;
  /** What to do when all is well. */
  readonly afterwards?: string;
}

export interface SignInView {
  readonly element: HTMLElement;
  /** Stops asking. */
  close(): void;
}

const ASK_EVERY_MS = 1500;

const WAY_WORDS: Readonly<Record<SignInWay, readonly [label: string, hint: string]>> = {
  browser: ['Sign in with this browser', 'Opens the provider’s sign-in page in a new tab.'],
  device: ['Sign in with a code', 'Shows a code to type on any device, such as a phone.'],
};

/** `first`: what is shown before anything is asked. */
export function createSignInView(desk: Desk, mailbox: string, first?: Said): SignInView {
  // Only what changes is read out.
  const status = h('p', { class: 'sign-in-status', role: 'status' });
  const content = h('div', { class: 'sign-in-content' });
  const element = h('div', { class: 'sign-in' }, status, content);
  let timer: ReturnType<typeof setTimeout> | undefined;
  let shown = '';
  let isClosed = false;

  /** Where to go is told once, to whoever began. */
  let prompt: Pick<SignInRow, 'url' | 'code'> = { url: null, code: null };

  const again = (): void => {
    clearTimeout(timer);
    if (!isClosed) timer = setTimeout(() => void desk.look().then(show), ASK_EVERY_MS);
  };

  const begin = async (way: SignInWay, button: HTMLButtonElement): Promise<void> => {
    button.setAttribute('aria-busy', 'true');
    const said = await desk.begin(way);
    button.removeAttribute('aria-busy');
    shown = '';
    show(said);
    content.querySelector<HTMLElement>('a, input')?.focus();
  };

  const choices = (offered: readonly SignInWay[]): HTMLElement =>
    h(
      'div',
      { class: 'ways' },
      ...offered.map((way, index) => {
        const [label, hint] = WAY_WORDS[way];
        const choice = button(label, (own) => begin(way, own), { class: index === 0 ? 'primary' : '' });
        return h('div', {}, choice, sub(hint));
      }),
    );

  const pasteForm = (): HTMLElement => {
    const input = h('input', { type: 'text', id: 'pasted', autocomplete: 'off', spellcheck: 'false' });
    const form = h(
      'form',
      { class: 'paste' },
      h('label', { for: 'pasted' }, 'Address of the page you end on, even if it could not be loaded'),
      input,
      h('button', { type: 'submit' }, 'Go on'),
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      void desk.paste(input.value).then((said) => {
        if ('error' in said) status.textContent = said.error;
        else show(said);
      });
    });
    return form;
  };

  const waiting = (row: SignInRow): Node[] => {
    const { url, code } = prompt;
    if (url === null) return [choices(row.offered)];
    const link = h('a', { href: url, target: '_blank', rel: 'noopener noreferrer', class: 'button primary' });
    link.textContent = row.way === 'device' ? `Open ${new URL(url).host}` : 'Open the sign-in page';
    return [
      h('p', {}, `Sign in there as `, h('strong', {}, mailbox), code === null ? '.' : ' and type this code:'),
      ...(code === null ? [] : [h('p', { class: 'code' }, code)]),
      link,
      ...(row.way === 'browser' ? [pasteForm()] : []),
    ];
  };

  const steps = (row: SignInRow): HTMLElement =>
    h(
      'ul',
      { class: 'steps' },
      ...row.steps.map(({ stage, ok, detail }) =>
        h(
          'li',
          { 'data-ok': ok ? 'true' : 'false' },
          h('strong', {}, `${ok ? '✓' : '✗'} ${stage}`),
          sub(detail),
        ),
      ),
    );

  function show(said: Said): void {
    if (isClosed) return;
    const print = JSON.stringify(said);
    if (print === shown) {
      again();
      return;
    }
    shown = print;
    if ('error' in said) {
      status.textContent = said.error;
      element.dataset.state = 'failed';
      content.replaceChildren();
      return;
    }
    const { row } = said;
    if (row.url !== null || row.code !== null) prompt = row;
    element.dataset.state = row.state;
    switch (row.state) {
      case 'idle':
        status.textContent =
          row.offered.length === 0 ? 'This provider has no sign-in that a page could do.' : '';
        content.replaceChildren(choices(row.offered));
        return;
      case 'starting':
        status.textContent = 'Asking the provider …';
        again();
        return;
      case 'waiting': {
        const until = row.until === null ? '' : ` until ${new Date(row.until).toLocaleTimeString('en-GB')}`;
        status.textContent =
          prompt.url === null ? 'A sign-in is under way. Begin again:' : `Waiting for you${until}.`;
        // What is being typed stays.
        if (content.querySelector('#pasted') === null) content.replaceChildren(...waiting(row));
        again();
        return;
      }
      case 'proving':
        status.textContent = 'Signed in. Trying the mailbox, nothing is sent …';
        content.replaceChildren(steps(row));
        again();
        return;
      case 'done':
        status.textContent = [
          `Done: ${mailbox} can send again.`,
          ...(row.note === null ? [] : [`${row.note}.`]),
          ...(desk.afterwards === undefined ? [] : [desk.afterwards]),
        ].join(' ');
        content.replaceChildren();
        return;
      case 'failed':
        status.textContent = row.note ?? 'It did not work.';
        content.replaceChildren(steps(row), choices(row.offered));
        return;
      default:
        row.state satisfies never;
    }
  }

  if (first === undefined) void desk.look().then(show);
  else show(first);
  return {
    element,
    close: () => {
      isClosed = true;
      clearTimeout(timer);
    },
  };
}

/** A request to the relay as `Said`. */
export async function say(
  path: string,
  init?: RequestInit,
  rowOf: (body: unknown) => SignInRow = (body) => body as SignInRow,
): Promise<Said> {
  const { body, trouble } = await ask(path, init);
  return trouble === undefined ? { row: rowOf(body) } : { error: trouble };
}
