/**
 * What an answer of Microsoft Graph means and what the client hears of it. In: status, headers, body of
 * an answer that was not the wanted one. Out: a refusal, and the verdict on it by the book of causes. Pure.
 * Whether the message was sent all the same is not decided here: after a send the draft is looked at.
 */
import { findGraphCause } from './causes/book.ts';
import type { GraphCall, GraphClass, GraphHeard } from './causes/graph-causes.ts';
import { isRecord, parseJsonObject } from './json-object.ts';
import type { Mask } from './masking.ts';
import { parseRetryAfter } from './retry-after.ts';
import { cleanText, MAX_JUDGED } from './text.ts';
import {
  HOURLY,
  paused,
  QUOTA_REACHED,
  REJECTED_STEPS,
  type Row,
  row,
  type Verdict,
  verdictOf,
} from './verdict.ts';

export interface GraphRefusal extends GraphHeard {
  /** From `Retry-After`, ms. */
  readonly retryAfterMs: number | undefined;
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
  const { code, message } = isRecord(error) ? error : {};
  // A success that is none may hold the message itself, which is for no log.
  const words = answer.status < 300 ? '' : answer.body.trim();
  return {
    call,
    status: answer.status,
    code: typeof code === 'string' ? cleanText(mask(code.slice(0, MAX_JUDGED)), 100) : '',
    message: cleanText(mask((typeof message === 'string' ? message : words).slice(0, MAX_JUDGED)), 300),
    retryAfterMs: parseRetryAfter(answer.headers['retry-after'], nowMs),
  };
}

/** In one line, for logs and replies. */
export const describeRefusal = (r: GraphRefusal): string =>
  [String(r.status), r.code, r.message].filter((part) => part !== '').join(' ');

export interface GraphContext {
  readonly account: string;
  readonly sender: string;
}

const DENIED = paused('sending', 'misconfigured', REJECTED_STEPS);
const GRAPH: Readonly<Record<GraphClass, Row>> = {
  false_success: row('local', '451 4.3.5 Graph answered with a success that is none'),
  send_as_denied: row('message_permanent', '550 5.7.60 sender {sender} not permitted for account {account}'),
  too_large: row('message_permanent', '552 5.3.4 message is larger than Graph takes'),
  bad_recipient: row('message_permanent', '550 5.1.3 Graph does not take a recipient'),
  account: row('account', '451 4.7.0 Graph does not let account {account} send', DENIED),
  mailbox_full: row(
    'account',
    '451 4.2.2 mailbox of {account} is full',
    paused('sending', 'misconfigured', HOURLY),
  ),
  quota: QUOTA_REACHED,
  throttled: row('throttled', '451 4.7.1 Graph throttles account {account}', { slowDown: true }),
  token_refused: row(
    'account',
    '451 4.7.0 Graph does not take the token of {account}',
    paused('sending', 'needs_consent', REJECTED_STEPS),
  ),
  bad_message: row('message_permanent', '554 5.6.0 Graph does not take the message'),
  service_trouble: row('provider', '451 4.3.2 Graph has a temporary problem', { breaker: 'half' }),
  draft_missing: row('message_temporary', '451 4.4.2 Graph does not find the draft'),
  not_understood: row('local', '451 4.3.5 Graph did not understand the request'),
};

/** The verdict on a refusal of which it is certain that nothing was sent. */
export function judgeGraph(refusal: GraphRefusal, { account, sender }: GraphContext): Verdict {
  const { id: cause, class: meaning } = findGraphCause(refusal);
  const said = `; Graph said: ${describeRefusal(refusal)}`;
  return { ...verdictOf(GRAPH[meaning], { account, sender }, said), cause };
}
