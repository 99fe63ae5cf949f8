/**
 * The accounts table: as many DOM rows as fit the window, however many accounts. In: the state's
 * accounts, a search, a status filter, an order. Out: rows, kept and updated in place.
 */
import { orMake } from '../../or-make.ts';
import { needsPerson, SHOWN_ORDER, type ShownStatus, shownStatus } from '../../protocol/vocabulary.ts';
import { act } from './actions.ts';
import { causeLink, drain as drainAfterAsking, openSignIn } from './dialogs.ts';
import { button, byId, cell, h, setAttribute, setChildren, setText, wordsOf } from './dom.ts';
import { formatAgo, formatCount, formatLife, SHOWN_WORDS, STATUS_WORDS } from './format.ts';
import type { ShownAccount } from './stream.ts';

export interface AccountsView {
  /** Accounts have come, gone or changed. */
  update(accounts: ReadonlyMap<string, ShownAccount>): void;
  /** A second has passed. */
  tick(): void;
  focusSearch(): void;
  /** Shows only accounts of this status, or the drained ones. */
  filter(status: ShownStatus | undefined): void;
}

type SortKey = 'email' | 'status' | 'token' | 'pool' | 'relayed' | 'trouble';

interface RowView {
  readonly element: HTMLTableRowElement;
  show(account: ShownAccount, index: number): void;
  showTime(now: number): void;
}

/** Rows drawn above and below what is seen, so that Tab and a fast wheel find them there. */
const OVERSCAN = 6;
/** A token with less than this left is shown as running out, s. */
const LOW_TOKEN_S = 300;

const SORT: Readonly<Record<SortKey, (a: ShownAccount, b: ShownAccount) => number>> = {
  email: (a, b) => (a.email < b.email ? -1 : a.email > b.email ? 1 : 0),
  status: (a, b) => SHOWN_ORDER.indexOf(shownStatus(a)) - SHOWN_ORDER.indexOf(shownStatus(b)),
  token: (a, b) => (a.tokenUntil ?? 0) - (b.tokenUntil ?? 0),
  pool: (a, b) => b.pool.busy - a.pool.busy || b.pool.size - a.pool.size,
  relayed: (a, b) => b.messages.relayed - a.messages.relayed,
  trouble: (a, b) => b.messages.deferred + b.messages.rejected - (a.messages.deferred + a.messages.rejected),
};

/** Under the status: what comes next. Nothing comes by itself where a person is needed. */
function whyOf({ status, drained, until, way }: ShownAccount, now: number): string {
  if (needsPerson(status))
    return drained
      ? 'drained, too'
      : status === 'needs_consent'
        ? 'until signed in'
        : 'until it is corrected';
  if (drained)
    return status === 'ready'
      ? 'until you resume it'
      : `until resumed; ${STATUS_WORDS[status].toLowerCase()}`;
  const waits = until === null ? 0 : (Date.parse(until) - now) / 1000;
  if (waits <= 0) return '';
  if (status === 'ready' && way === 'graph') return 'by Graph';
  return status === 'throttled' ? `for ${formatLife(waits)}` : `next try in ${formatLife(waits)}`;
}

function createRow(open: (id: string) => void): RowView {
  let shown: ShownAccount | undefined;
  const name = button('', () => shown !== undefined && open(shown.id), { class: 'link' });
  const provider = h('span', { class: 'tag' });
  const word = h('span');
  const status = h('span', { class: 'status' }, h('span', { class: 'dot', 'aria-hidden': 'true' }), word);
  const why = h('span', { class: 'sub' });
  const bar = h('span', { class: 'fill' });
  const life = h('span', { class: 'life' });
  const track = h('span', { class: 'track', 'aria-hidden': 'true' }, bar);
  const dots = h('span', { class: 'dots', 'aria-hidden': 'true' });
  const pool = h('span', { class: 'sub' });
  const relayed = h('span');
  const deferred = h('span');
  const rejected = h('span');
  const error = h('span', { class: 'error-text' });
  const cure = h('span', { class: 'sub' });
  const more = h('span', { class: 'sub' });
  const busy = async (own: HTMLButtonElement, action: 'refresh' | 'resume'): Promise<void> => {
    if (shown === undefined || own.getAttribute('aria-busy') === 'true') return;
    own.setAttribute('aria-busy', 'true');
    await act(action, shown);
    own.removeAttribute('aria-busy');
  };
  const small = (act: (own: HTMLButtonElement) => unknown): HTMLButtonElement =>
    button('', act, { class: 'small' });
  const refresh = small((own) =>
    shown?.status === 'needs_consent' ? openSignIn(shown) : busy(own, 'refresh'),
  );
  const drain = small((own) => {
    if (shown?.drained === true) return busy(own, 'resume');
    return shown && drainAfterAsking(shown);
  });

  const element = h(
    'tr',
    { role: 'row' },
    cell('account', name, provider),
    cell('status', status, why),
    cell('token', life, track),
    cell('pool', dots, pool),
    cell('relayed', relayed),
    cell('trouble', deferred, ' · ', rejected),
    cell('error', error, h('span', { class: 'cure-line' }, cure, more)),
    cell('actions', refresh, drain),
  );

  const showTime = (now: number): void => {
    if (shown === undefined) return;
    const { tokenFrom: from, tokenUntil: until } = shown;
    if (until === undefined) {
      setText(life, 'no token');
      setAttribute(track, 'data-level', 'none');
      bar.style.setProperty('inline-size', '0');
    } else {
      const left = (until - now) / 1000;
      const whole = (until - (from ?? now)) / 1000;
      setText(life, left <= 0 ? 'expired' : `${formatLife(left)} left`);
      setAttribute(track, 'data-level', left < LOW_TOKEN_S ? 'low' : 'fine');
      bar.style.setProperty(
        'inline-size',
        `${Math.max(0, Math.min(100, (left / Math.max(whole, 1)) * 100)).toFixed(1)}%`,
      );
    }
    setText(why, whyOf(shown, now));
    const failed = shown.last_error_at === null ? undefined : (now - Date.parse(shown.last_error_at)) / 1000;
    const next = shown.cure ?? '';
    setText(cure, next !== '' ? next : failed === undefined ? '' : formatAgo(failed));
  };

  return {
    element,
    showTime,
    show: (account, index) => {
      setAttribute(element, 'aria-rowindex', String(index + 2));
      if (shown === account) return;
      shown = account;
      setText(name, account.email);
      // A long address ends in an ellipsis.
      setAttribute(name, 'title', account.email);
      setText(provider, account.provider);
      const status = shownStatus(account);
      setAttribute(element, 'data-status', status);
      setAttribute(element, 'data-drained', account.drained ? 'true' : undefined);
      setText(word, SHOWN_WORDS[status]);
      const { size, idle, busy: inUse, max } = account.pool;
      const states = [
        ...Array<string>(inUse).fill('busy'),
        ...Array<string>(Math.max(0, size - idle - inUse)).fill('opening'),
        ...Array<string>(idle).fill('idle'),
        ...Array<string>(Math.max(0, max - size)).fill('free'),
      ].slice(0, 12);
      setChildren(
        dots,
        states.map((state) => h('i', { 'data-state': state })),
      );
      setText(pool, `${inUse} busy, ${idle} idle of ${max}`);
      setText(relayed, formatCount(account.messages.relayed));
      setText(deferred, formatCount(account.messages.deferred));
      setText(rejected, formatCount(account.messages.rejected));
      const wrong = account.status === 'ready' ? account.last_error : (account.reason ?? account.last_error);
      setText(error, wrong ?? '–');
      setAttribute(error, 'title', wrong ?? undefined);
      setAttribute(error, 'data-none', wrong === null ? 'true' : undefined);
      setAttribute(error, 'data-past', account.status === 'ready' ? 'true' : undefined);
      if (more.dataset.cause !== (account.cause ?? '')) {
        more.dataset.cause = account.cause ?? '';
        const link = causeLink(account.cause);
        more.replaceChildren(...(link === null ? [] : [link]));
      }
      const isSignIn = account.status === 'needs_consent';
      setText(refresh, isSignIn ? 'Sign in' : 'Refresh');
      refresh.classList.toggle('primary', isSignIn);
      setText(drain, account.drained ? 'Resume' : 'Drain');
      setAttribute(
        refresh,
        'aria-label',
        isSignIn ? `Sign in to ${account.email}` : `Refresh the token of ${account.email}`,
      );
      setAttribute(drain, 'aria-label', `${account.drained ? 'Resume' : 'Drain'} ${account.email}`);
      showTime(Date.now());
    },
  };
}

/** Wires the table, its search, filter and headers; `open` shows an account's details. */
export function createAccountsView(open: (id: string) => void): AccountsView {
  const table = byId<HTMLTableElement>('accounts');
  const scroll = byId('accounts-scroll');
  const body = table.tBodies[0] ?? table.createTBody();
  const search = byId<HTMLInputElement>('search');
  const filterHost = byId('status-filter');
  const emptyNote = byId('accounts-empty');
  const spacer = (): HTMLTableRowElement =>
    h('tr', { class: 'spacer', role: 'presentation', 'aria-hidden': 'true' }, h('td', { colspan: 8 }));
  const above = spacer();
  const below = spacer();
  const rows = new Map<string, RowView>();
  let all: readonly ShownAccount[] = [];
  let list: readonly ShownAccount[] = [];
  let sort: { key: SortKey; down: boolean } = { key: 'status', down: false };
  let wanted: ShownStatus | undefined;

  const rowHeight = (): number =>
    Number.parseFloat(getComputedStyle(table).getPropertyValue('--row-height')) || 56;

  const draw = (): void => {
    const height = rowHeight();
    const head = table.tHead?.offsetHeight ?? 0;
    const first = Math.max(0, Math.floor((scroll.scrollTop - head) / height) - OVERSCAN);
    const last = Math.min(
      list.length,
      Math.ceil((scroll.scrollTop + scroll.clientHeight) / height) + OVERSCAN,
    );
    const visible = list.slice(first, last);
    const ids = new Set(visible.map((a) => a.id));
    for (const id of rows.keys()) if (!ids.has(id)) rows.delete(id);
    const elements = visible.map((account, i) => {
      const row = orMake(rows, account.id, () => createRow(open));
      row.show(account, first + i);
      return row.element;
    });
    above.style.setProperty('block-size', `${first * height}px`);
    below.style.setProperty('block-size', `${Math.max(0, list.length - last) * height}px`);
    above.hidden = first === 0;
    below.hidden = last === list.length;
    setChildren(body, [above, ...elements, below]);
    setAttribute(table, 'aria-rowcount', String(list.length + 1));
  };

  const chips = new Map<ShownStatus | undefined, { chip: HTMLButtonElement; count: HTMLElement }>();
  for (const status of [undefined, ...SHOWN_ORDER]) {
    const count = h('b');
    const chip = button(status === undefined ? 'All' : SHOWN_WORDS[status], () => choose(status), {
      class: 'chip',
      'aria-pressed': status === undefined ? 'true' : 'false',
    });
    setAttribute(chip, 'data-status', status);
    chip.append(count);
    chips.set(status, { chip, count });
    filterHost.append(chip);
  }

  const arrange = (): void => {
    const words = wordsOf(search);
    const found = all.filter(
      (a) =>
        (wanted === undefined || shownStatus(a) === wanted) && words.every((w) => a.haystack.includes(w)),
    );
    const compare = SORT[sort.key];
    found.sort((a, b) => (sort.down ? -compare(a, b) : compare(a, b)) || SORT.email(a, b));
    list = found;
    emptyNote.hidden = found.length > 0;
    setText(
      emptyNote,
      all.length === 0
        ? 'No accounts are served yet. Add one here, or to the accounts file and reload.'
        : 'No account matches.',
    );
    draw();
  };

  const choose = (status: ShownStatus | undefined): void => {
    wanted = status;
    for (const [key, { chip }] of chips)
      setAttribute(chip, 'aria-pressed', key === status ? 'true' : 'false');
    scroll.scrollTop = 0;
    arrange();
  };

  for (const header of table.querySelectorAll<HTMLElement>('th[data-sort]')) {
    const key = header.dataset.sort as SortKey;
    header.querySelector('button')?.addEventListener('click', () => {
      sort = { key, down: sort.key === key && !sort.down };
      for (const other of table.querySelectorAll<HTMLElement>('th[data-sort]')) {
        setAttribute(
          other,
          'aria-sort',
          other === header ? (sort.down ? 'descending' : 'ascending') : undefined,
        );
      }
      arrange();
    });
  }
  table.querySelector('th[data-sort="status"]')?.setAttribute('aria-sort', 'ascending');
  search.addEventListener('input', () => {
    scroll.scrollTop = 0;
    arrange();
  });
  scroll.addEventListener('scroll', draw, { passive: true });
  new ResizeObserver(draw).observe(scroll);

  return {
    update: (accounts) => {
      all = [...accounts.values()];
      const counts = new Map<ShownStatus | undefined, number>([[undefined, all.length]]);
      for (const a of all) counts.set(shownStatus(a), (counts.get(shownStatus(a)) ?? 0) + 1);
      for (const [status, { chip, count }] of chips) {
        const n = counts.get(status) ?? 0;
        setText(count, formatCount(n));
        chip.hidden = n === 0 && status !== undefined && status !== wanted;
      }
      arrange();
    },
    tick: () => {
      const now = Date.now();
      for (const row of rows.values()) row.showTime(now);
    },
    focusSearch: () => search.focus(),
    filter: choose,
  };
}
