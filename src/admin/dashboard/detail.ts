/** One account in full, in a dialog: its state in words, its settings, its latest transactions, what can be done. */
import { shownStatus } from '../../protocol/vocabulary.ts';
import { act, loadDetail } from './actions.ts';
import { drain, openSignIn, remove } from './dialogs.ts';
import { button, byId, closeButton, dotted, h, sub } from './dom.ts';
import {
  formatBytes,
  formatClock,
  formatCount,
  formatMs,
  OUTCOME_WORDS,
  SHOWN_WORDS,
  STATUS_WORDS,
} from './format.ts';
import type { PageState } from './stream.ts';

const TRANSACTIONS_SHOWN = 8;

const time = (iso: string | null): string => (iso === null ? '–' : new Date(iso).toLocaleString('en-GB'));

/** Opens the dialog for an account and fills it. */
export async function openDetail(id: string, state: PageState): Promise<void> {
  const dialog = byId<HTMLDialogElement>('detail');
  const account = await loadDetail(id);
  if (account === undefined) return;
  /** Does what it says, then shows the account as it is. */
  const doing = (label: string, run: () => Promise<unknown>, style = ''): HTMLButtonElement =>
    button(
      label,
      async (own) => {
        own.disabled = true;
        await run();
        if (dialog.open) await openDetail(id, state);
      },
      { class: style },
    );
  const fact = (name: string, value: string | HTMLElement): HTMLElement[] => [
    h('dt', {}, name),
    h('dd', {}, value),
  ];
  const needsSignIn = account.status === 'needs_consent';
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
      dotted(
        account.drained && shownStatus(account) !== 'drained'
          ? `${STATUS_WORDS[account.status]}, drained`
          : SHOWN_WORDS[shownStatus(account)],
        { 'data-status': shownStatus(account) },
      ),
      closeButton('Close', () => dialog.close()),
    ),
    ...(trouble === null ? [] : [trouble]),
    h(
      'dl',
      {},
      ...fact('Account', account.id),
      ...(account.cause === null
        ? []
        : fact(
            'Cause',
            h('a', { href: `/troubleshooting#${account.cause}`, target: '_blank' }, account.cause),
          )),
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
              dotted(OUTCOME_WORDS[t.outcome]),
              h('span', {}, `${formatBytes(t.bytes)} in ${formatMs(t.timings.total_ms)}`),
              sub(t.upstream_reply?.text ?? t.reply?.text ?? ''),
            ),
          ),
        ),
    h(
      'footer',
      {},
      account.grant === 'refresh_token'
        ? button(
            'Sign in again',
            () => {
              dialog.close();
              openSignIn(account);
            },
            { class: needsSignIn ? 'primary' : '' },
          )
        : null,
      doing('Refresh token', () => act('refresh', account), needsSignIn ? '' : 'primary'),
      doing('Forget token', () => act('forget', account)),
      account.drained ? doing('Resume', () => act('resume', account)) : doing('Drain', () => drain(account)),
      doing('Remove', async () => {
        if (await remove(account)) dialog.close();
      }),
    ),
  );
  if (!dialog.open) dialog.showModal();
}
