/**
 * What an answer of Microsoft Graph means and what the client hears of it. In: status, headers, body of
 * an answer that was not the wanted one. Out: a refusal, and the verdict on it by one table. Pure.
 * Whether the message was sent all the same is not decided here: after a send the draft is looked at.
 */
import { reply as makeReply } from './reply.ts';
import { cleanText } from './text.ts';
import { parseJsonObject } from './token-failure.ts';
import type { Pause, Verdict, VerdictClass } from './verdict.ts';

/** `send_mail` is the one call that creates and sends. */
export type GraphCall = 'create' | 'send' | 'look' | 'search' | 'delete' | 'send_mail';

export interface GraphRefusal {
  readonly call: GraphCall;
  readonly status: number;
  /** `error.code`, or empty. */
  readonly code: string;
  readonly message: string;
  /** From `Retry-After`, ms. */
  readonly retryAfterMs: number | undefined;
  /** The provider's own id of the request, for its support. */
  readonly requestId: string | undefined;
}

/** Longest `Retry-After` that is believed, ms. */
const MAX_RETRY_AFTER_MS = 60 * 60_000;

/** `nowMs` (wall) is for a `Retry-After` that is a date (RFC 9110 §10.2.3). */
export function parseGraphRefusal(
  call: GraphCall,
  answer: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: string;
  },
  nowMs: number,
): GraphRefusal {
  const { error } = parseJsonObject(answer.body) ?? {};
  const { code, message } = (typeof error === 'object' && error !== null ? error : {}) as Record<
    string,
    unknown
  >;
  const id = answer.headers['request-id'];
  return {
    call,
    status: answer.status,
    code: typeof code === 'string' ? cleanText(code, 100) : '',
    message: cleanText(typeof message === 'string' ? message : answer.body.trim(), 300),
    retryAfterMs: parseRetryAfter(answer.headers['retry-after'], nowMs),
    requestId: id === undefined ? undefined : cleanText(id, 64),
  };
}

export function parseRetryAfter(value: string | undefined, nowMs: number): number | undefined {
  if (value === undefined) return undefined;
  const ms = /^\d{1,9}$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - nowMs;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS);
}

/** In one line, for logs and replies. */
export const describeRefusal = (r: GraphRefusal): string =>
  [String(r.status), r.code, r.message].filter((part) => part !== '').join(' ');

export interface GraphContext {
  readonly account: string;
  readonly sender: string;
  readonly permissions: 'read_write' | 'send';
}

/** One meaning. `pause` and `cure` make a state of the account; without them it is the message's affair. */
interface Row {
  readonly when: (r: GraphRefusal) => boolean;
  readonly class: VerdictClass;
  readonly code: number;
  readonly enhanced: string;
  readonly words: (c: GraphContext) => string;
  readonly pause?: Omit<Pause, 'cure'>;
  readonly cure?: (r: GraphRefusal, c: GraphContext) => string;
  readonly breaker?: Verdict['breaker'];
  readonly slowDown?: boolean;
}

const STEPS = [1, 5, 15, 60];
const misconfigured: Omit<Pause, 'cure'> = { scope: 'sending', status: 'misconfigured', stepsMinutes: STEPS };
const throttled = (stepsMinutes: readonly number[]): Omit<Pause, 'cure'> => ({
  scope: 'sending',
  status: 'throttled',
  stepsMinutes,
});
const codeIs =
  (pattern: RegExp) =>
  (r: GraphRefusal): boolean =>
    pattern.test(r.code);

/** The permission a call needs. */
export const permissionFor = (call: GraphCall): string =>
  call === 'send' || call === 'send_mail' ? 'Mail.Send' : 'Mail.ReadWrite';

/** First row that fits. */
const ROWS: readonly Row[] = [
  {
    when: (r) => r.status >= 200 && r.status < 300,
    class: 'local',
    code: 451,
    enhanced: '4.3.5',
    words: () => 'Graph answered with a success that is none',
  },
  {
    when: codeIs(/^ErrorSend(As|OnBehalf)Denied$/i),
    class: 'message_permanent',
    code: 550,
    enhanced: '5.7.60',
    words: (c) => `sender ${c.sender} not permitted for account ${c.account}`,
  },
  {
    when: (r) =>
      r.status === 413 ||
      /^ErrorMessageSizeExceeded$/i.test(r.code) ||
      /maximum request length/i.test(r.message),
    class: 'message_permanent',
    code: 552,
    enhanced: '5.3.4',
    words: () => 'message is larger than Graph takes',
  },
  {
    when: codeIs(/^ErrorInvalidRecipients$/i),
    class: 'message_permanent',
    code: 550,
    enhanced: '5.1.3',
    words: () => 'Graph does not take a recipient',
  },
  {
    when: codeIs(
      /MailboxNotEnabledForRESTAPI|^(MailboxNotFound|ErrorNonExistentMailbox|ErrorInvalidUser|ResourceNotFound|Request_ResourceNotFound)$/i,
    ),
    class: 'account',
    code: 451,
    enhanced: '4.7.0',
    words: (c) => `Graph has no mailbox for account ${c.account}`,
    pause: misconfigured,
    cure: () =>
      'Give the mailbox an Exchange Online licence; one that is still on premises cannot be reached by Graph. Where the sign-in name differs from the address, set "user" to the sign-in name.',
  },
  {
    when: (r) =>
      /Quota(Exceeded|Reached)|^ErrorMailboxFull/i.test(r.code) && !/Submission|Message/i.test(r.code),
    class: 'account',
    code: 451,
    enhanced: '4.2.2',
    words: (c) => `mailbox of ${c.account} is full`,
    pause: { scope: 'sending', status: 'misconfigured', stepsMinutes: [60] },
    cure: () => 'The mailbox is full: its owner must free space.',
  },
  {
    when: codeIs(/^ErrorExceededMessageLimit$|SubmissionQuota|^ErrorMessageSubmissionBlocked$/i),
    class: 'throttled',
    code: 452,
    enhanced: '4.7.1',
    words: (c) => `sending limit of upstream account ${c.account} reached`,
    pause: throttled([60]),
    cure: () => 'The provider counts messages or recipients per day; sending resumes by itself.',
  },
  {
    when: (r) =>
      r.status === 429 || /^(ApplicationThrottled|TooManyRequests|ErrorTooManyObjectsOpened)$/i.test(r.code),
    class: 'throttled',
    code: 451,
    enhanced: '4.7.1',
    words: (c) => `Graph throttles account ${c.account}`,
    slowDown: true,
  },
  {
    when: (r) => r.status === 401,
    class: 'account',
    code: 451,
    enhanced: '4.7.0',
    words: (c) => `Graph does not take the token of ${c.account}`,
    pause: { scope: 'sending', status: 'needs_consent', stepsMinutes: STEPS },
    cure: () =>
      'Check that the application is registered with Microsoft Graph permissions and sign in again with `xoauth2-relay account add --transport graph`.',
  },
  {
    when: (r) => r.status === 403,
    class: 'account',
    code: 451,
    enhanced: '4.7.0',
    words: (c) =>
      `Graph does not let ${c.account} ${c.permissions === 'send' ? 'send' : 'create, look at or send mail'}`,
    pause: misconfigured,
    cure: (r) =>
      `Grant the application ${permissionFor(r.call)} of Microsoft Graph for this mailbox (an administrator must consent); with RBAC for Applications the mailbox must be in the scope of the role "Application ${permissionFor(r.call)}", for another person's mailbox a user needs ${permissionFor(r.call)}.Shared.`,
  },
  {
    when: (r) => r.status === 400,
    class: 'message_permanent',
    code: 554,
    enhanced: '5.6.0',
    words: () => 'Graph does not take the message',
  },
  {
    when: (r) => r.status >= 500 || r.status === 408 || r.status === 409 || r.status === 423,
    class: 'provider',
    code: 451,
    enhanced: '4.3.2',
    words: () => 'Graph has a temporary problem',
    breaker: 'half',
  },
  {
    when: (r) => r.status === 404,
    class: 'message_temporary',
    code: 451,
    enhanced: '4.4.2',
    words: () => 'Graph does not find the draft',
  },
];
const ELSE: Row = {
  when: () => true,
  class: 'local',
  code: 451,
  enhanced: '4.3.5',
  words: () => 'Graph did not understand the request',
};

/** The verdict on a refusal of which it is certain that nothing was sent. */
export function judgeGraph(refusal: GraphRefusal, context: GraphContext): Verdict {
  const row = ROWS.find(({ when }) => when(refusal)) ?? ELSE;
  const cure = row.cure?.(refusal, context);
  return {
    class: row.class,
    answer: makeReply(
      row.code,
      row.enhanced,
      `${row.words(context)}; Graph said: ${describeRefusal(refusal)}`,
    ),
    breaker: row.breaker ?? 'none',
    renewToken: false,
    retry: 'none',
    slowDown: row.slowDown ?? false,
    ...(row.pause === undefined ? {} : { pause: { ...row.pause, ...(cure === undefined ? {} : { cure }) } }),
  };
}
