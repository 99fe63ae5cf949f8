/** What a person is told who is called. In: the accounts or messages of one alert. Out: its words. Pure. */
import { ANY_ACCOUNT, cureOf } from '../protocol/causes/book.ts';
import type { UnclearNews } from '../protocol/unclear-news.ts';
import type { AccountStatus } from '../protocol/vocabulary.ts';
import type { AccountRow } from './shapes.ts';

/** Of an account. */
export type CalledFor = 'attention' | 'recovered';

/** What a webhook or command is given. `text` is also what chat webhooks show. */
export interface Alert {
  /** `unclear`: messages that wait for a person; their account may be well. */
  readonly event: CalledFor | 'unclear';
  readonly at: string;
  readonly status: AccountStatus;
  readonly provider: string;
  readonly accounts: readonly { readonly id: string; readonly email: string }[];
  readonly reason: string;
  readonly cure: string;
  readonly text: string;
  /** With `unclear`: the messages; `key` names one in a decision. */
  readonly messages?: readonly { readonly key: string; readonly message_id: string | null }[];
}

/** A message that waits for a person. */
export interface Unclear {
  readonly news: UnclearNews;
  readonly row: AccountRow | undefined;
}

const MAX_NAMED = 10;

const HEADLINE: Partial<Record<AccountStatus, string>> = {
  needs_consent: 'needs a person to sign in again',
  misconfigured: 'is misconfigured',
};

/** Up to so many addresses; the rest are counted. */
function nameAll(accounts: readonly { readonly email: string }[]): string {
  const named = accounts.slice(0, MAX_NAMED).map(({ email }) => email);
  const rest = accounts.length - named.length;
  return `${named.join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`;
}

/** The alert for accounts of one cause. */
export function composeAlert(event: CalledFor, rows: readonly AccountRow[], at: Date): Alert {
  const [first] = rows;
  const provider = first?.provider ?? '';
  const status = first?.status ?? 'ready';
  const who = nameAll(rows);
  const reason = first?.reason ?? '';
  const cure = event === 'recovered' ? '' : cureOfAll(rows);
  const many = rows.length > 1;
  const text =
    event === 'recovered'
      ? `xoauth2-relay: ${who} (${provider}) ${many ? 'are' : 'is'} ready again.`
      : [
          `xoauth2-relay: ${many ? `${rows.length} accounts need` : who} ${many ? 'attention' : (HEADLINE[status] ?? status)} (${provider}, ${status}${many ? `: ${who}` : ''}).`,
          sentence(reason),
          cure === '' ? '' : sentence(`Cure: ${cure}`),
          'Their mail is answered 4xx and waits in the queue of the MTA.',
        ]
          .filter((part) => part !== '')
          .join(' ');
  return {
    event,
    at: at.toISOString(),
    status,
    provider,
    accounts: rows.map((r) => ({ id: r.id, email: r.email })),
    reason,
    cure,
    text,
  };
}

/** The alert for messages of which nobody knows whether they were sent. */
export function composeUnclear(all: readonly Unclear[], at: Date): Alert {
  const [first] = all;
  const accounts = new Map<string, { readonly id: string; readonly email: string }>();
  for (const { news, row } of all)
    if (news.account !== undefined)
      accounts.set(news.account, { id: news.account, email: row?.email ?? news.account });
  const concerned = [...accounts.values()];
  const many = all.length > 1;
  const { reason = '', cure = '' } = first?.news ?? {};
  return {
    event: 'unclear',
    at: at.toISOString(),
    status: first?.row?.status ?? 'ready',
    provider: first?.row?.provider ?? '',
    accounts: concerned,
    reason,
    cure,
    text: [
      `xoauth2-relay: nobody knows whether Microsoft Graph sent ${many ? `${all.length} messages` : 'a message'}${concerned.length === 0 ? '' : ` (${nameAll(concerned)})`}.`,
      sentence(reason),
      sentence(`Cure: ${cure}`),
      `${many ? 'They wait' : 'It waits'} in the queue of the MTA until a person decides.`,
    ].join(' '),
    messages: all.map(({ news }) => ({ key: news.key, message_id: news.messageId ?? null })),
  };
}

/** The command for one account; for several the command with a place for each. */
function cureOfAll(rows: readonly AccountRow[]): string {
  const [first] = rows;
  const shared = rows.length > 1 ? cureOf(first?.cause ?? undefined, ANY_ACCOUNT) : undefined;
  return shared ?? first?.cure ?? '';
}

const sentence = (text: string): string => (text === '' || /[.!?]$/.test(text) ? text : `${text}.`);
