/** One account in full, in a dialog: its state in words, its settings, its latest transactions, what can be done. */
import { act, loadDetail } from './actions.ts';
import { drain, openSignIn, remove } from './dialogs.ts';
import { byId, h } from './dom.ts';
import {
  formatBytes,
  formatClock,
  formatCount,
  formatMs,
  OUTCOME_WORDS,
  SHOWN_WORDS,
  STATUS_WORDS,
  shownStatus,
} from './format.ts';
import type { PageState } from './stream.ts';

const TRANSACTIONS_SHOWN = 8;

const time = (iso: string | null): string => (iso === null ? '–' : new Date(iso).toLocaleString('en-GB'));

/** The page on troubles, at this one. */
const linkToCause = (cause: string): HTMLElement =>
  h('a', { href: `/troubleshooting#${cause}`, target: '_blank' }, cause);

/** Opens the dialog for an account and fills it. */
export async function openDetail(id: string, state: PageState): Promise<void> {
  const dialog = byId<HTMLDialogElement>('detail');
  const account = await loadDetail(id);
  if (account === undefined) return;
  const close = h('button', { type: 'button', class: 'quiet', 'aria-label': 'Close' }, '✕');
  close.addEventListener('click', () => dialog.close());

  const button = (label: string, action: Parameters<typeof act>[0], style = ''): HTMLButtonElement => {
    const b = h('button', { type: 'button', class: style }, label);
    b.addEventListener('click', async () => {
      b.disabled = true;
      await act(action, account);
      if (dialog.open) await openDetail(id, state);
    });
    return b;
  };
  const fact = (name: string, value: string | HTMLElement): HTMLElement[] => [
    h('dt', {}, name),
    h('dd', {}, value),
  ];
  /** Does what asks first, then shows the account as it is. */
  const ask = (label: string, run: () => Promise<void>, style = ''): HTMLButtonElement => {
    const b = h('button', { type: 'button', class: style }, label);
    b.addEventListener('click', async () => {
      await run();
      if (dialog.open) await openDetail(id, state);
    });
    return b;
  };
  const trouble =
    account.status === 'ready'
      ? null
      : h(
          'div',
          { class: 'notice', 'data-status': account.status },
          h('p', {}, account.reason ?? account.last_error ?? STATUS_WORDS[account.status]),
          account.cure === null ? null : h('p', { class: 'cure' }, account.cure),
        );
  // The same words stand in the notice already.
  const isSaid = trouble !== null && (account.reason ?? account.last_error) === account.last_error;
  const recent = state.transactions.filter((t) => t.account === account.id).slice(0, TRANSACTIONS_SHOWN);

  dialog.replaceChildren(
    h(
      'header',
      {},
      h('h2', { id: 'detail-title' }, account.email),
      h(
        'span',
        { class: 'status', 'data-status': shownStatus(account) },
        h('span', { class: 'dot', 'aria-hidden': 'true' }),
        account.drained && shownStatus(account) !== 'drained'
          ? `${STATUS_WORDS[account.status]}, drained`
          : SHOWN_WORDS[shownStatus(account)],
      ),
      close,
    ),
    ...(trouble === null ? [] : [trouble]),
    h(
      'dl',
      {},
      ...fact('Account', account.id),
      ...(account.cause === null ? [] : fact('Cause', linkToCause(account.cause))),
      ...fact('Provider', account.provider),
      ...fact('Signs in as', account.user),
      ...fact('May send as', account.senders.join(', ')),
      ...(account.group.length === 0
        ? []
        : fact(
            'Shares senders with',
            account.group
              .map(
                (other) =>
                  `${other.id} (preference ${other.preference}, ${other.drained ? 'drained' : other.status})`,
              )
              .join(', '),
          )),
      ...fact('Submission server', account.smtp),
      ...fact('Token', account.token.cached ? `until ${time(account.token.expires_at)}` : 'none cached'),
      ...fact(
        'Connections',
        `${account.pool.busy} busy, ${account.pool.idle} idle of ${account.max_connections}`,
      ),
      ...fact(
        'Limits',
        [
          account.messages_per_minute === null ? '' : `${formatCount(account.messages_per_minute)} a minute`,
          account.messages_per_day === null ? '' : `${formatCount(account.messages_per_day)} a day`,
          `${account.max_recipients} recipients a message`,
        ]
          .filter(Boolean)
          .join(', '),
      ),
      ...fact(
        'Since start',
        `${formatCount(account.messages.relayed)} relayed, ${formatCount(account.messages.deferred)} deferred, ${formatCount(account.messages.rejected)} rejected`,
      ),
      ...fact(
        'Last error',
        account.last_error === null
          ? 'none'
          : isSaid
            ? `as above, at ${time(account.last_error_at)}`
            : `${account.last_error} (${time(account.last_error_at)})`,
      ),
    ),
    h('h3', {}, 'Latest transactions'),
    recent.length === 0
      ? h('p', { class: 'empty' }, 'None in memory.')
      : h(
          'ul',
          { class: 'recent' },
          ...recent.map((t) =>
            h(
              'li',
              { 'data-outcome': t.outcome },
              h('time', { datetime: t.at }, formatClock(t.at)),
              h(
                'span',
                { class: 'status' },
                h('span', { class: 'dot', 'aria-hidden': 'true' }),
                OUTCOME_WORDS[t.outcome],
              ),
              h('span', {}, `${formatBytes(t.bytes)} in ${formatMs(t.timings.total_ms)}`),
              h('span', { class: 'sub' }, t.upstream_reply?.text ?? t.reply?.text ?? ''),
            ),
          ),
        ),
    h(
      'footer',
      {},
      ...(account.grant === 'refresh_token'
        ? [
            ask(
              'Sign in again',
              async () => {
                dialog.close();
                openSignIn(account);
              },
              account.status === 'needs_consent' ? 'primary' : '',
            ),
          ]
        : []),
      button('Refresh token', 'refresh', account.status === 'needs_consent' ? '' : 'primary'),
      button('Forget token', 'forget'),
      account.drained ? button('Resume', 'resume') : ask('Drain', () => drain(account)),
      ask('Remove', async () => {
        if (await remove(account)) dialog.close();
      }),
    ),
  );
  if (!dialog.open) dialog.showModal();
}
