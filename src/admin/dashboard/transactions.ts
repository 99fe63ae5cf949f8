/** The latest transactions: newest on top, filtered, paused on demand. In: the state's list. Out: table rows. */
import { orMake } from '../../or-make.ts';
import type { TransactionRow } from '../shapes.ts';
import { byId, cell, dotted, h, setAttribute, setChildren, setText, wordsOf } from './dom.ts';
import { formatBytes, formatClock, formatMs, OUTCOME_WORDS } from './format.ts';

export interface TransactionsView {
  update(transactions: readonly TransactionRow[]): void;
}

/** Rows shown; the filter looks through all that are kept. */
const SHOWN = 100;

const CHOSEN_WORDS: Readonly<Record<NonNullable<TransactionRow['chosen_by']>, string>> = {
  exactness: 'of several accounts the one that matches the sender best',
  preference: 'of several accounts the one with the lower preference',
  room: 'of several accounts the one with the most room',
  order: 'of several equal accounts the first of the file',
  passed_over: 'the accounts before it could take nothing',
  ready_first: 'no account could take it at once; this one was ready first',
};

const text = (reply: TransactionRow['reply']): string =>
  reply === null
    ? ''
    : [reply.code, reply.enhanced, reply.text].filter((p) => p !== null && p !== '').join(' ');

/** `*@example.org`, `*@example.org +2`. */
function formatRecipients(row: TransactionRow): string {
  const [first = ''] = row.recipients;
  return row.recipient_count > 1 ? `${first} +${row.recipient_count - 1}` : first;
}

/** Where the time went, as a bar of stages; the same in words for a reader and the pointer. */
function createTimings(row: TransactionRow): HTMLElement {
  const { total_ms: total, gate_ms: gate, acquire_ms: acquire, upstream_ms: upstream } = row.timings;
  const words = `${row.flights} ${row.flights === 1 ? 'flight' : 'flights'}; gate ${formatMs(gate)}, connection ${formatMs(acquire)}, upstream ${formatMs(upstream)}`;
  const bar = h('span', { class: 'stages', 'aria-hidden': 'true' });
  for (const [stage, ms] of [
    ['gate', gate],
    ['acquire', acquire],
    ['upstream', upstream],
  ] as const) {
    const piece = h('i', { 'data-stage': stage });
    piece.style.setProperty(
      'inline-size',
      `${total > 0 ? Math.min(100, (ms / total) * 100).toFixed(1) : 0}%`,
    );
    bar.append(piece);
  }
  return h('span', { title: words }, formatMs(total), bar, h('span', { class: 'sr' }, words));
}

function createRow(row: TransactionRow): HTMLTableRowElement {
  const reply = text(row.upstream_reply ?? row.reply);
  const extra = [
    row.replayed ? 'replayed' : '',
    row.decided_by === 'relay' && row.outcome !== 'aborted' ? 'by the relay' : '',
  ].filter(Boolean);
  return h(
    'tr',
    { role: 'row', 'data-outcome': row.outcome },
    cell('time', h('time', { datetime: row.at }, formatClock(row.at))),
    cell('outcome', dotted(OUTCOME_WORDS[row.outcome])),
    cell(
      'account',
      row.account,
      row.chosen_by === null
        ? ''
        : h('span', { class: 'tag', title: CHOSEN_WORDS[row.chosen_by] }, row.chosen_by),
    ),
    cell('to', formatRecipients(row)),
    cell('size', formatBytes(row.bytes)),
    cell('took', createTimings(row)),
    cell(
      'reply',
      h('span', { title: reply }, reply === '' ? '–' : reply),
      extra.length > 0 ? h('span', { class: 'tag' }, extra.join(', ')) : '',
    ),
  );
}

/** Wires the list, its filters and the pause button. */
export function createTransactionsView(): TransactionsView {
  const body = byId('transactions');
  const empty = byId('transactions-empty');
  const search = byId<HTMLInputElement>('transaction-search');
  const pause = byId<HTMLButtonElement>('pause');
  const made = new Map<string, HTMLTableRowElement>();
  let latest: readonly TransactionRow[] = [];
  let paused: readonly TransactionRow[] | undefined;
  let outcome = '';

  const fits = (row: TransactionRow, words: readonly string[]): boolean => {
    if (
      outcome === 'other'
        ? row.outcome !== 'aborted' && row.outcome !== 'unknown'
        : outcome !== '' && row.outcome !== outcome
    )
      return false;
    if (words.length === 0) return true;
    const haystack =
      `${row.account} ${row.sender} ${row.recipients.join(' ')} ${text(row.upstream_reply ?? row.reply)} ${row.id}`.toLowerCase();
    return words.every((word) => haystack.includes(word));
  };

  const draw = (): void => {
    const words = wordsOf(search);
    const list = paused ?? latest;
    const rows: HTMLTableRowElement[] = [];
    const ids = new Set<string>();
    for (const row of list) {
      if (rows.length >= SHOWN) break;
      if (!fits(row, words)) continue;
      ids.add(row.id);
      rows.push(orMake(made, row.id, () => createRow(row)));
    }
    for (const id of made.keys()) if (!ids.has(id)) made.delete(id);
    setChildren(body, rows);
    empty.hidden = rows.length > 0;
    setText(
      empty,
      list.length === 0
        ? 'No messages yet. The first one shows here as soon as it is relayed.'
        : 'No transaction matches.',
    );
  };

  byId('outcome-filter').addEventListener('change', (event) => {
    outcome = (event.target as HTMLInputElement).value;
    draw();
  });
  search.addEventListener('input', draw);
  pause.addEventListener('click', () => {
    paused = paused === undefined ? [...latest] : undefined;
    setAttribute(pause, 'aria-pressed', paused === undefined ? 'false' : 'true');
    setText(pause, paused === undefined ? 'Pause' : 'Go on');
    draw();
  });

  return {
    update: (transactions) => {
      latest = transactions;
      if (paused === undefined) draw();
    },
  };
}
