/** The page: connects, and hands what has changed to the parts that show it. */
import {
  needsPerson,
  OUTCOMES,
  type Outcome,
  SHOWN_ORDER,
  type ShownStatus,
  shownStatus,
} from '../../protocol/vocabulary.ts';
import { createAccountsView } from './accounts.ts';
import { act, describeReload, reload, toast } from './actions.ts';
import { createCharts } from './charts.ts';
import { openDetail } from './detail.ts';
import { causeLink, openNewAccount, openSignIn } from './dialogs.ts';
import { button, byId, dotted, h, setAttribute, setChildren, setText, sub } from './dom.ts';
import {
  formatAgo,
  formatCount,
  formatLife,
  formatMs,
  formatRate,
  formatShare,
  OUTCOME_WORDS,
  SHOWN_WORDS,
  STATUS_WORDS,
} from './format.ts';
import { watchRelays } from './relays.ts';
import { connect, type PageState, type Part, type ShownAccount } from './stream.ts';
import { createTransactionsView } from './transactions.ts';

/** Accounts named in the banner; the filter shows the rest. */
const ATTENTION_SHOWN = 4;
const RATE_WINDOW_S = 5;
const LATENCY_WINDOW_S = 60;
const THEMES = ['auto', 'light', 'dark'] as const;

const accountsView = createAccountsView((id) => void openDetail(id, stream.state));
const transactionsView = createTransactionsView();
const charts = createCharts();
let range = 900;

const stream = connect({
  changed: (parts) => show(stream.state, parts),
  statusChanged: (row) =>
    setText(byId('announce'), `${row.email} is now ${STATUS_WORDS[row.status].toLowerCase()}`),
  reloaded: (result) => toast(describeReload(result), result.ok ? 'ok' : 'bad'),
});

function show(state: PageState, changed: ReadonlySet<Part>): void {
  if (changed.has('connection')) showConnection(state);
  if (changed.has('accounts')) {
    accountsView.update(state.accounts);
    showAttention(state);
    showAccountFigures(state);
  }
  if (changed.has('accounts') || changed.has('connection')) showHealth(state);
  if (changed.has('transactions')) transactionsView.update(state.transactions);
  if (changed.has('series')) {
    showTraffic(state);
    drawCharts(state);
  }
  if (changed.has('breakers')) showBreakers(state);
}

const serverNowS = (state: PageState): number => Math.floor((Date.now() + state.skewMs) / 1000);

function drawCharts(state: PageState): void {
  charts.draw(state.series, range, serverNowS(state));
}

function showConnection(state: PageState): void {
  setText(byId('version'), state.version === '' ? '' : `v${state.version}`);
  setAttribute(byId('live'), 'data-state', state.connected ? 'live' : 'lost');
  setText(byId('live-text'), state.connected ? 'live' : 'reconnecting');
}

function showHealth(state: PageState): void {
  const rows = [...state.accounts.values()];
  const ill = rows.filter((a) => needsPerson(a.status)).length;
  const drained = rows.filter((a) => a.drained).length;
  const slow = rows.filter((a) => a.status === 'unreachable' || a.status === 'throttled').length;
  const [kind, words] = !state.connected
    ? ['lost', 'No connection to the relay']
    : rows.length === 0
      ? ['warn', 'No accounts']
      : !state.ready
        ? ['bad', 'Not ready: no account can relay']
        : ill > 0
          ? ['bad', `${formatCount(ill)} ${ill === 1 ? 'account needs' : 'accounts need'} attention`]
          : slow > 0
            ? ['warn', `${formatCount(slow)} ${slow === 1 ? 'account' : 'accounts'} held up`]
            : drained > 0
              ? ['warn', `${formatCount(drained)} ${drained === 1 ? 'account' : 'accounts'} drained`]
              : ['good', 'All accounts ready'];
  setAttribute(byId('health'), 'data-state', kind);
  setText(byId('health-text'), words ?? '');
  document.title = ill > 0 ? `(${ill}) xoauth2-relay` : 'xoauth2-relay';
}

function showAttention(state: PageState): void {
  const all = [...state.accounts.values()];
  // Trouble first; what an operator took out of service is not to be forgotten there.
  const ill = [
    ...all.filter((a) => needsPerson(a.status)),
    ...all.filter((a) => a.drained && !needsPerson(a.status)),
  ];
  const item = (account: ShownAccount): HTMLElement => {
    const status = shownStatus(account);
    const isDrained = status === 'drained';
    const open = button(account.email, () => openDetail(account.id, state), { class: 'link' });
    const label = isDrained ? 'Resume' : 'Sign in';
    const cure = button(label, () => (isDrained ? act('resume', account) : openSignIn(account)), {
      class: 'small',
      'aria-label': `${label} ${isDrained ? '' : 'to '}${account.email}, in the list of attention`,
    });
    return h(
      'li',
      { 'data-status': status },
      h(
        'p',
        { class: 'attention-head' },
        open,
        h('span', { class: 'status' }, SHOWN_WORDS[status].toLowerCase()),
        isDrained || account.status === 'needs_consent' ? cure : null,
      ),
      h(
        'p',
        { class: 'attention-why' },
        isDrained
          ? 'Taken out of service: its mail waits at the mail server until it is resumed.'
          : (account.reason ?? account.last_error ?? ''),
      ),
      account.cure === null || isDrained
        ? null
        : h('p', { class: 'cure' }, account.cure, ' ', causeLink(account.cause)),
    );
  };
  const items = ill.slice(0, ATTENTION_SHOWN).map(item);
  if (ill.length > ATTENTION_SHOWN) {
    const showAll = (): void => {
      accountsView.filter(ill[0] && shownStatus(ill[0]));
      byId('accounts-heading').scrollIntoView();
      byId('accounts-heading').focus();
    };
    const words = `and ${formatCount(ill.length - ATTENTION_SHOWN)} more`;
    items.push(h('li', {}, button(words, showAll, { class: 'link' })));
  }
  const list = byId('attention-list');
  // Rebuilt only when it reads differently: a button in it may have the focus.
  const print = JSON.stringify(ill.map((a) => [a.email, shownStatus(a), a.reason, a.cure]));
  if (list.dataset.print !== print) {
    list.dataset.print = print;
    setChildren(list, items);
  }
  setAttribute(byId('attention'), 'data-kind', all.some((a) => needsPerson(a.status)) ? 'bad' : 'drained');
  byId('attention').hidden = ill.length === 0;
}

function showAccountFigures(state: PageState): void {
  const counts = new Map<ShownStatus, number>();
  for (const account of state.accounts.values()) {
    const status = shownStatus(account);
    counts.set(status, (counts.get(status) ?? 0) + 1);
  }
  setText(byId('tile-ready'), formatCount(counts.get('ready') ?? 0));
  setText(byId('tile-total'), `of ${formatCount(state.accounts.size)} ready`);
  const others = SHOWN_ORDER.filter((s) => s !== 'ready' && counts.has(s));
  setText(
    byId('tile-status'),
    others.length === 0
      ? state.accounts.size === 0
        ? 'add the first one'
        : 'nothing to do'
      : others.map((s) => `${formatCount(counts.get(s) ?? 0)} ${SHOWN_WORDS[s].toLowerCase()}`).join(', '),
  );
}

function showTraffic(state: PageState): void {
  const now = serverNowS(state);
  const outcomes = OUTCOMES.filter((outcome) => outcome !== 'aborted');
  const sum = (points: PageState['series'], of: readonly Outcome[]): number =>
    points.reduce((total, p) => total + of.reduce((n, o) => n + p[o], 0), 0);
  const recent = state.series.filter((p) => p.at_s >= now - RATE_WINDOW_S);
  setText(byId('tile-rate'), formatRate(sum(recent, outcomes) / RATE_WINDOW_S));
  const parts = outcomes
    .map((o) => [o, sum(state.series, [o])] as const)
    .filter(([o, n]) => n > 0 || o === 'relayed')
    .map(([o, n]) => `${formatCount(n)} ${OUTCOME_WORDS[o].toLowerCase()}`);
  setText(
    byId('tile-outcomes'),
    sum(state.series, outcomes) === 0 ? 'none in the last 15 min' : `${parts.join(', ')} in 15 min`,
  );

  const minute = state.series.filter((p) => p.at_s >= now - LATENCY_WINDOW_S && p.p50_ms !== null);
  const weight = sum(minute, OUTCOMES);
  if (weight === 0) {
    setText(byId('tile-p50'), '–');
    setText(byId('tile-latency'), 'no messages');
  } else {
    const median = minute.reduce((m, p) => m + (p.p50_ms ?? 0) * sum([p], OUTCOMES), 0) / weight;
    setText(byId('tile-p50'), formatMs(median));
    const worst = (key: 'p95_ms' | 'p99_ms'): string => formatMs(Math.max(...minute.map((p) => p[key] ?? 0)));
    setText(byId('tile-latency'), `p95 ${worst('p95_ms')}, p99 ${worst('p99_ms')}`);
  }

  const { tokens } = state;
  if (tokens === undefined) return;
  setText(byId('tile-hits'), formatShare(tokens.cache_hits, tokens.cache_hits + tokens.cache_misses));
  setText(
    byId('tile-refresh'),
    `${formatCount(tokens.refresh_success)} refreshed, ${formatCount(tokens.refresh_failures)} failed`,
  );
}

const BREAKER_WORDS = { closed: 'closed', open: 'open', half_open: 'half open' } as const;

function showBreakers(state: PageState): void {
  byId('breakers-empty').hidden = state.breakers.length > 0;
  const now = Date.now() + state.skewMs;
  const sorted = state.breakers.toSorted(
    (a, b) => Number(a.state === 'closed') - Number(b.state === 'closed'),
  );
  byId('breakers').replaceChildren(
    ...sorted.map((b) => {
      const notes = [b.kind === 'token_endpoint' ? 'token endpoint' : 'submission server'];
      if (b.state !== 'closed' && b.opened_at !== null)
        notes.push(`opened ${formatAgo((now - Date.parse(b.opened_at)) / 1000)}`);
      if (b.retry_at !== null && Date.parse(b.retry_at) > now)
        notes.push(`tries again in ${formatLife((Date.parse(b.retry_at) - now) / 1000)}`);
      if (b.failures > 0)
        notes.push(`${formatCount(b.failures)} ${b.failures === 1 ? 'failure' : 'failures'}`);
      return h(
        'li',
        { 'data-state': b.state },
        h('span', { class: 'breaker-name' }, b.name),
        dotted(BREAKER_WORDS[b.state]),
        sub(notes.join(', ')),
      );
    }),
  );
}

function applyTheme(theme: (typeof THEMES)[number]): void {
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = byId('theme');
  setText(button, `Theme: ${theme === 'auto' ? 'as the system' : theme}`);
  charts.repaint();
  drawCharts(stream.state);
}

const savedTheme = (): (typeof THEMES)[number] =>
  THEMES.find((t) => t === localStorage.getItem('theme')) ?? 'auto';

byId('theme').addEventListener('click', () => {
  const next = THEMES[(THEMES.indexOf(savedTheme()) + 1) % THEMES.length] ?? 'auto';
  localStorage.setItem('theme', next);
  applyTheme(next);
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => applyTheme(savedTheme()));
byId('add-account').addEventListener('click', () => {
  const used = [...stream.state.accounts.values()].map(({ provider }) => provider);
  openNewAccount([...new Set([...used, 'gmail', 'outlook', 'outlook-personal'])]);
});
byId('range').addEventListener('change', (event) => {
  range = Number((event.target as HTMLInputElement).value);
  drawCharts(stream.state);
});
byId<HTMLButtonElement>('reload').addEventListener(
  'click',
  (event) => void reload(event.currentTarget as HTMLButtonElement),
);
document.addEventListener('keydown', (event) => {
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    accountsView.focusSearch();
  }
});
for (const id of ['detail', 'confirm', 'sign-in-dialog']) {
  const dialog = byId<HTMLDialogElement>(id);
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
}
setInterval(() => {
  accountsView.tick();
  if (stream.state.breakers.some((b) => b.state !== 'closed')) showBreakers(stream.state);
}, 1000);
applyTheme(savedTheme());

watchRelays();
