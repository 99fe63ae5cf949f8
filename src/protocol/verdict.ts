/**
 * The verdict table: what an upstream event means, and what the client hears of it. In: one event.
 * Out: class, answer, and what breaker, token, account and pool should do. Pure, one row at a time.
 *
 * Two rules stand above the rows: trouble with tokens and accounts is 4xx (mail waits for the
 * operator), and a verdict on the message is the provider's own. 421 never passes on: it would
 * close the client's session (RFC 5321 §3.8), so it becomes 451.
 */
import { findReplyCause, findWayCause } from './causes/book.ts';
import type { ReplyClass } from './causes/reply-cause.ts';
import { reply as makeReply, type Reply } from './reply.ts';
import type { AccountStatus } from './vocabulary.ts';

/** Where in the dialogue it happened. `body` is DATA's 354 or a BDAT chunk, `end` the final reply. */
export type Stage = 'connect' | 'greeting' | 'ehlo' | 'auth' | 'mail' | 'rcpt' | 'body' | 'end';

export type LossCause = 'dns' | 'tcp' | 'tls' | 'timeout' | 'eof' | 'reset' | 'garbage';

export type UpstreamEvent =
  /** The provider answered with a refusal (or, at `auth`, nothing better). */
  | {
      readonly kind: 'reply';
      readonly stage: Stage;
      readonly reply: Reply;
      readonly account: string;
      readonly sender?: string;
    }
  /** The connection went away or broke the protocol. `reused`: the connection had been idle in the pool; `finalByteSent`: the last octet of the body had been written. */
  | {
      readonly kind: 'lost';
      readonly stage: Stage;
      readonly cause: LossCause;
      readonly reused: boolean;
      readonly finalByteSent: boolean;
      readonly detail: string;
    }
  | {
      readonly kind: 'token';
      readonly code: TokenTrouble;
      readonly account: string;
      readonly detail: string;
    }
  | { readonly kind: 'local'; readonly cause: LocalCause; readonly waitSeconds?: number };

/** Why no token could be had. */
export type TokenTrouble =
  /** Endpoint unreachable, 5xx, garbage, its breaker open. */
  | 'provider_fault'
  /** 429, AADSTS50196, AADSTS90055. */
  | 'throttled'
  /** A person must sign in again. */
  | 'needs_consent'
  /** The OAuth client is broken, for all its accounts. */
  | 'app_misconfigured'
  /** Our clock is wrong. */
  | 'clock_skew'
  /** Scope or request wrong. */
  | 'bad_request'
  /** No such account (removed while asked for). */
  | 'unknown_account';

export type LocalCause =
  | 'breaker_open'
  | 'acquire_timeout'
  | 'rate_limited'
  | 'daily_limit'
  | 'draining'
  /** Removed, renamed, or of another mailbox now; or the relay stops. */
  | 'not_served'
  | 'logins_paused'
  | 'client_gone'
  /** The account's entry in the accounts file cannot be used. */
  | 'misconfigured'
  | 'internal';

export type VerdictClass =
  | 'provider'
  | 'throttled'
  | 'account'
  | 'app'
  | 'message_permanent'
  | 'message_temporary'
  /** A stale connection: replaced and replayed, the client sees nothing. */
  | 'stale'
  /** After the final byte: nobody knows whether the message was taken. */
  | 'unknown'
  | 'local';

/** How much an event counts against the endpoint's breaker; `if_many` only when several accounts show it. */
export type BreakerWeight = 'full' | 'half' | 'if_many' | 'none';

/** `logins`: no new connections, live ones go on. `sending`: MAIL is answered with the verdict's reply. */
export const PAUSE_SCOPES = ['logins', 'sending'] as const;
export const PAUSE_STATUSES = [
  'throttled',
  'needs_consent',
  'misconfigured',
] as const satisfies readonly AccountStatus[];

/** What stops for the account, and when it is tried again. Steps are minutes of the first, second, … failure in a row. */
export interface Pause {
  readonly scope: (typeof PAUSE_SCOPES)[number];
  readonly status: (typeof PAUSE_STATUSES)[number];
  readonly stepsMinutes: readonly number[];
  /** Where no cause of the verdict says it. */
  readonly cure?: string;
}

export interface Verdict {
  readonly class: VerdictClass;
  /** What the client hears. For `stale` only if the replay is not possible. */
  readonly answer: Reply;
  /** Row of the book of causes; undefined for what is our own doing. */
  readonly cause?: string;
  readonly breaker: BreakerWeight;
  /** Drop the access token, fetch a new one and authenticate once more on a fresh connection. */
  readonly renewToken: boolean;
  /** Try again inside the relay while the client waits, if the body is still held: `fresh` at once on another connection, `wait` after a jittered pause. */
  readonly retry: 'none' | 'fresh' | 'wait';
  /** Halve the account's concurrency for a while. */
  readonly slowDown: boolean;
  readonly pause?: Pause;
}

/** Minutes until it is tried again, by how often it was refused in a row. */
export const REJECTED_STEPS = [1, 5, 15, 60];
export const HOURLY = [60];
/** Fast logins are what a provider throttles: an early try prolongs it. */
const LOGIN_THROTTLE_STEPS = [5, 15, 60];

/** What else follows from a verdict; nothing unless it says so. */
export type Consequences = Partial<Omit<Verdict, 'answer' | 'class'>>;

export const verdict = (cls: VerdictClass, answer: Reply, row: Consequences = {}): Verdict => ({
  class: cls,
  answer,
  breaker: 'none',
  renewToken: false,
  retry: 'none',
  slowDown: false,
  ...row,
});

/** A row of a table: `451 4.7.0 logins of {account} are throttled`, and what else follows. */
export interface Row extends Consequences {
  readonly class: VerdictClass;
  readonly answer: string;
}
export const row = (cls: VerdictClass, answer: string, follows: Consequences = {}): Row => ({
  class: cls,
  answer,
  ...follows,
});
export const paused = (
  scope: Pause['scope'],
  status: Pause['status'],
  stepsMinutes: readonly number[],
): Consequences => ({ pause: { scope, status, stepsMinutes } });

/** The verdict of a row with its places filled; `further`: words behind ours. */
export function verdictOf(
  { class: cls, answer, ...follows }: Row,
  facts: Readonly<Record<string, string>>,
  further = '',
): Verdict {
  const [code = '', enhanced = '', ...words] = answer.split(' ');
  const text = words.join(' ').replace(/\{(\w+)\}/g, (_place, name: string) => facts[name] ?? '');
  return verdict(cls, makeReply(Number(code), enhanced, text + further), follows);
}

/** Whichever way the provider says it. */
export const QUOTA_REACHED = row(
  'throttled',
  '452 4.7.1 sending limit of upstream account {account} reached',
  paused('sending', 'throttled', HOURLY),
);

const NO_LOGINS = paused('logins', 'misconfigured', REJECTED_STEPS);
const FRESH: Consequences = { retry: 'fresh' };

/** Before AUTH. */
const OUR_NAME = row('account', '451 4.3.5 upstream refuses the name given with EHLO', NO_LOGINS);
const NOT_OPEN = row('provider', '451 4.3.2 upstream does not take connections now', { breaker: 'full' });

/** Classes whose answer quotes the provider behind words of ours; those that pass on its own stand in the `switch`. */
const REPLIES = {
  logins_throttled: row('throttled', '451 4.7.0 logins of {account} are throttled', {
    breaker: 'if_many',
    ...paused('logins', 'throttled', LOGIN_THROTTLE_STEPS),
  }),
  login_policy: row(
    'account',
    '451 4.7.0 upstream does not let {account} authenticate',
    paused('logins', 'misconfigured', HOURLY),
  ),
  token_rejected: row('account', '451 4.7.0 upstream credentials rejected for {account}', {
    breaker: 'if_many',
    renewToken: true,
    ...paused('logins', 'needs_consent', REJECTED_STEPS),
  }),
  login_not_understood: row('local', '451 4.3.5 upstream did not understand our authentication', FRESH),
  login_fault: row('provider', '451 4.3.0 upstream cannot authenticate now', { breaker: 'full' }),
  login_refused: row('account', '451 4.7.0 upstream refused authentication of {account}', NO_LOGINS),
  session_over: row('stale', '451 4.4.2 upstream connection expired', FRESH),
  not_authenticated: row('local', '451 4.3.5 upstream forgot our authentication', FRESH),
  too_many_at_once: row('throttled', '451 4.3.2 too many messages of {account} at once', {
    retry: 'wait',
    slowDown: true,
  }),
  quota: QUOTA_REACHED,
  restricted: row(
    'account',
    '451 4.7.1 upstream account {account} is restricted',
    paused('sending', 'misconfigured', HOURLY),
  ),
  out_of_step: row('local', '451 4.5.0 upstream and relay are out of step', FRESH),
  service_trouble: row('throttled', '451 4.3.2 upstream has a temporary problem', {
    breaker: 'half',
    slowDown: true,
  }),
} satisfies Partial<Record<ReplyClass, Row>>;

function judgeReply(e: Extract<UpstreamEvent, { kind: 'reply' }>): Verdict {
  const { reply: r, stage, account } = e;
  const quoting = (of: Row, cause: string): Verdict => {
    const said = `${r.code}${r.enhanced === undefined ? '' : ` ${r.enhanced}`} ${r.text}`;
    return { ...verdictOf(of, { account }, `; upstream said: ${said}`), cause };
  };
  if (stage === 'connect' || stage === 'greeting' || stage === 'ehlo') {
    const { id, isOurName } = findWayCause(stage === 'connect' ? 'greeting' : stage, r);
    return quoting(isOurName ? OUR_NAME : NOT_OPEN, id);
  }
  const { id: cause, class: cls } = findReplyCause(stage, r);
  switch (cls) {
    case 'submission_rate':
      return verdict('throttled', makeReply(451, '4.4.2', r.text), {
        cause,
        ...paused('sending', 'throttled', [1]),
      });
    case 'send_as_denied': {
      const said = r.text.split('[BeginDiagnosticData]', 1)[0];
      const text = `sender ${e.sender ?? ''} not permitted for account ${account}: ${said}`;
      return verdict('message_permanent', makeReply(550, '5.7.60', text), { cause });
    }
    case 'too_many_recipients':
      // The client sends the rest in another transaction (RFC 5321 §4.5.3.1.10).
      return verdict('message_temporary', makeReply(452, '4.5.3', r.text), { cause });
    case 'too_large':
      return verdict('message_permanent', { ...r, enhanced: r.enhanced ?? '5.3.4' }, { cause });
    case 'service_refused':
      return { ...verdictOnMessage(r), cause, breaker: 'if_many' };
    case 'message':
      return { ...verdictOnMessage(r), cause };
    default:
      return quoting(REPLIES[cls], cause);
  }
}

/** The provider's own verdict, passed on as it is, 421 turned into 451. */
const verdictOnMessage = (r: Reply): Verdict =>
  verdict(r.code < 500 ? 'message_temporary' : 'message_permanent', r.code === 421 ? { ...r, code: 451 } : r);

function judgeLoss(e: Extract<UpstreamEvent, { kind: 'lost' }>): Verdict {
  if (e.finalByteSent)
    return verdict(
      'unknown',
      makeReply(451, '4.4.2', 'delivery status unknown: upstream went away before it answered'),
      {
        breaker: e.cause === 'timeout' ? 'full' : 'none',
      },
    );
  if (e.stage === 'connect' || e.stage === 'greeting' || e.stage === 'ehlo' || e.stage === 'auth')
    return verdict('provider', makeReply(451, '4.4.1', `upstream unreachable (${e.detail})`), {
      breaker: 'full',
      cause: causeOfLoss(e.stage, e.cause, e.detail),
    });
  if (e.reused)
    return verdict('stale', makeReply(451, '4.4.2', 'upstream connection lost'), { retry: 'fresh' });
  return verdict('provider', makeReply(451, '4.4.2', `upstream connection lost (${e.detail})`), {
    cause: 'connection-ended',
    breaker: 'full',
  });
}

function causeOfLoss(
  stage: 'connect' | 'greeting' | 'ehlo' | 'auth',
  cause: LossCause,
  detail: string,
): string {
  if (stage === 'auth') return findReplyCause('auth', { code: 0, text: detail }).id;
  if (cause === 'dns' || cause === 'tls') return findWayCause(cause, detail).id;
  return findWayCause(stage === 'connect' ? 'tcp' : stage, detail).id;
}

const TOKENS: Readonly<Record<TokenTrouble, Row>> = {
  provider_fault: row('provider', '451 4.4.3 token service unavailable for {account}: {detail}'),
  throttled: row('throttled', '451 4.4.3 token service throttles {account}: {detail}'),
  needs_consent: row('account', '451 4.7.0 account {account} needs re-authorisation: {detail}'),
  app_misconfigured: row('app', '451 4.7.0 OAuth client of {account} is not accepted: {detail}'),
  clock_skew: row('local', "451 4.3.0 the relay's clock is wrong: {detail}"),
  bad_request: row('app', '451 4.3.5 token request of {account} is misconfigured: {detail}'),
  unknown_account: row('local', '451 4.3.2 account {account} is being removed'),
};

const LOCAL: Readonly<Record<LocalCause, Row>> = {
  breaker_open: row('local', '451 4.3.2 upstream is failing, paused for a moment{wait}'),
  acquire_timeout: row('local', '451 4.3.2 all upstream connections of this account are busy'),
  rate_limited: row('throttled', '451 4.7.1 rate limit of this account reached{wait}'),
  daily_limit: row('throttled', '451 4.7.1 daily limit of this account reached{wait}'),
  draining: row('local', '451 4.3.2 this account is paused by the operator'),
  not_served: row('local', '451 4.3.2 this account is removed or renamed, or the relay stops'),
  logins_paused: row('throttled', '451 4.7.0 logins of this account are paused{wait}'),
  client_gone: row('local', '451 4.4.2 the client left before the message was sent'),
  misconfigured: row('local', '451 4.3.5 this account is misconfigured in the relay'),
  internal: row('local', '451 4.3.0 internal error of the relay'),
};

/** What `event` means and what follows from it. */
export function judge(event: UpstreamEvent): Verdict {
  switch (event.kind) {
    case 'reply':
      return judgeReply(event);
    case 'lost':
      return judgeLoss(event);
    case 'token':
      return verdictOf(TOKENS[event.code], { account: event.account, detail: event.detail });
    case 'local': {
      const { waitSeconds } = event;
      return verdictOf(LOCAL[event.cause], {
        wait: waitSeconds === undefined ? '' : `, try again in ${waitSeconds} s`,
      });
    }
    default:
      return event satisfies never;
  }
}
