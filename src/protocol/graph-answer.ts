/**
 * What an answer of Microsoft Graph means and what the client hears of it. In: status, headers, body of
 * an answer that was not the wanted one. Out: a refusal, and the verdict on it by the book of causes. Pure.
 * Whether the message was sent all the same is not decided here: after a send the draft is looked at.
 */
import { findGraphCause } from './causes/book.ts';
import type { GraphCall, GraphHeard } from './causes/graph-causes.ts';
import { parseJsonObject } from './json-object.ts';
import type { Mask } from './masking.ts';
import { reply as makeReply } from './reply.ts';
import { parseRetryAfter } from './retry-after.ts';
import { cleanText, MAX_JUDGED } from './text.ts';
import {
  type Consequences,
  HOURLY,
  type Pause,
  REJECTED_STEPS,
  type Verdict,
  type VerdictClass,
  verdict,
} from './verdict.ts';

export interface GraphRefusal extends GraphHeard {
  /** From `Retry-After`, ms. */
  readonly retryAfterMs: number | undefined;
  /** The provider's own id of the request, for its support. */
  readonly requestId: string | undefined;
}

/** `nowMs` (wall) is for a `Retry-After` that is a date (RFC 9110 §10.2.3). `mask` takes out what must not be told. */
export function parseGraphRefusal(
  call: GraphCall,
  answer: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: string;
  },
  nowMs: number,
  mask: Mask = (text) => text,
): GraphRefusal {
  const { error } = parseJsonObject(answer.body) ?? {};
  const { code, message } = (typeof error === 'object' && error !== null ? error : {}) as Record<
    string,
    unknown
  >;
  const id = answer.headers['request-id'];
  // A success that is none may hold the message itself, which is for no log.
  const words = answer.status < 300 ? '' : answer.body.trim();
  return {
    call,
    status: answer.status,
    code: typeof code === 'string' ? cleanText(mask(code.slice(0, MAX_JUDGED)), 100) : '',
    message: cleanText(mask((typeof message === 'string' ? message : words).slice(0, MAX_JUDGED)), 300),
    retryAfterMs: parseRetryAfter(answer.headers['retry-after'], nowMs),
    requestId: id === undefined ? undefined : cleanText(mask(id), 64),
  };
}

/** In one line, for logs and replies. */
export const describeRefusal = (r: GraphRefusal): string =>
  [String(r.status), r.code, r.message].filter((part) => part !== '').join(' ');

export interface GraphContext {
  readonly account: string;
  readonly sender: string;
}

/** The verdict on a refusal of which it is certain that nothing was sent. */
export function judgeGraph(refusal: GraphRefusal, { account, sender }: GraphContext): Verdict {
  const { id: cause, class: meaning } = findGraphCause(refusal);
  const quoting = (
    cls: VerdictClass,
    code: number,
    enhanced: string,
    words: string,
    row: Consequences = {},
  ): Verdict =>
    verdict(cls, makeReply(code, enhanced, `${words}; Graph said: ${describeRefusal(refusal)}`), {
      cause,
      ...row,
    });
  const paused = (status: Pause['status'], stepsMinutes: readonly number[]): Consequences => ({
    pause: { scope: 'sending', status, stepsMinutes },
  });
  switch (meaning) {
    case 'false_success':
      return quoting('local', 451, '4.3.5', 'Graph answered with a success that is none');
    case 'send_as_denied':
      return quoting(
        'message_permanent',
        550,
        '5.7.60',
        `sender ${sender} not permitted for account ${account}`,
      );
    case 'too_large':
      return quoting('message_permanent', 552, '5.3.4', 'message is larger than Graph takes');
    case 'bad_recipient':
      return quoting('message_permanent', 550, '5.1.3', 'Graph does not take a recipient');
    case 'account':
      return quoting(
        'account',
        451,
        '4.7.0',
        `Graph does not let account ${account} send`,
        paused('misconfigured', REJECTED_STEPS),
      );
    case 'mailbox_full':
      return quoting(
        'account',
        451,
        '4.2.2',
        `mailbox of ${account} is full`,
        paused('misconfigured', HOURLY),
      );
    case 'quota':
      return quoting(
        'throttled',
        452,
        '4.7.1',
        `sending limit of upstream account ${account} reached`,
        paused('throttled', HOURLY),
      );
    case 'throttled':
      return quoting('throttled', 451, '4.7.1', `Graph throttles account ${account}`, { slowDown: true });
    case 'token_refused':
      return quoting(
        'account',
        451,
        '4.7.0',
        `Graph does not take the token of ${account}`,
        paused('needs_consent', REJECTED_STEPS),
      );
    case 'bad_message':
      return quoting('message_permanent', 554, '5.6.0', 'Graph does not take the message');
    case 'service_trouble':
      return quoting('provider', 451, '4.3.2', 'Graph has a temporary problem', { breaker: 'half' });
    case 'draft_missing':
      return quoting('message_temporary', 451, '4.4.2', 'Graph does not find the draft');
    case 'not_understood':
      return quoting('local', 451, '4.3.5', 'Graph did not understand the request');
    default:
      return meaning satisfies never;
  }
}
