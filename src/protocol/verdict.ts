/**
 * The verdict table: what an upstream event means, and what the client hears of it. In: one event.
 * Out: class, answer, and what breaker, token, account and pool should do. Pure, one row at a time.
 *
 * Two rules stand above the rows: trouble with tokens and accounts is 4xx (mail waits for the
 * operator), and a verdict on the message is the provider's own. 421 never passes on: it would
 * close the client's session (RFC 5321 §3.8), so it becomes 451.
 */
import { findReplyCause, findWayCause } from './causes/book.ts';
import { reply as makeReply, type Reply } from './reply.ts';

/** Where in the dialogue it happened. `body` is DATA's 354 or a BDAT chunk, `end` the final reply. */
export type Stage = 'connect' | 'greeting' | 'ehlo' | 'auth' | 'mail' | 'rcpt' | 'body' | 'end';

export type LossCause = 'dns' | 'tcp' | 'tls' | 'timeout' | 'eof' | 'reset' | 'garbage';

export type UpstreamEvent =
  /** The provider answered with a refusal (or, at `auth`, nothing better). `reused`: the connection had been idle in the pool. */
  | {
      readonly kind: 'reply';
      readonly stage: Stage;
      readonly reply: Reply;
      readonly reused: boolean;
      readonly account: string;
      readonly sender?: string;
    }
  /** The connection went away or broke the protocol. `finalByteSent`: the last octet of the body had been written. */
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
      readonly retryAt?: number | undefined;
    }
  | { readonly kind: 'local'; readonly cause: LocalCause; readonly waitSeconds?: number };

/** Why no token could be had. */
export type TokenTrouble =
  /** Endpoint unreachable, 5xx, garbage, its breaker open. */
  | 'provider_fault'
  /** 429, AADSTS50196, AADSTS90055. `retryAt` says until when. */
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

/** What stops for the account, and when it is tried again. Steps are minutes of the first, second, … failure in a row. */
export interface Pause {
  /** `logins`: no new connections, live ones go on. `sending`: MAIL is answered with the verdict's reply. */
  readonly scope: 'logins' | 'sending';
  readonly status: 'throttled' | 'needs_consent' | 'misconfigured';
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

/** The provider's words behind our own code: `upstream: 535 5.7.8 …`. */
const quoting = (code: number, enhanced: string, text: string, r: Reply): Reply =>
  makeReply(
    code,
    enhanced,
    `${text}; upstream said: ${r.code}${r.enhanced === undefined ? '' : ` ${r.enhanced}`} ${r.text}`,
  );

/** The provider's reply as the client hears it: as it is, 421 turned into 451. */
function passOn(r: Reply): Reply {
  return r.code === 421 ? { ...r, code: 451 } : r;
}

function judgeReply(e: Extract<UpstreamEvent, { kind: 'reply' }>): Verdict {
  const { reply: r, stage, account } = e;
  if (stage === 'connect' || stage === 'greeting' || stage === 'ehlo') {
    const { id: cause, isOurName } = findWayCause(stage === 'connect' ? 'greeting' : stage, r);
    if (isOurName)
      return verdict('account', quoting(451, '4.3.5', 'upstream refuses the name given with EHLO', r), {
        cause,
        pause: { scope: 'logins', status: 'misconfigured', stepsMinutes: REJECTED_STEPS },
      });
    return verdict('provider', quoting(451, '4.3.2', 'upstream does not take connections now', r), {
      cause,
      breaker: 'full',
    });
  }
  const { id: cause, class: cls } = findReplyCause(stage, r);
  switch (cls) {
    case 'logins_throttled':
      return verdict('throttled', quoting(451, '4.7.0', `logins of ${account} are throttled`, r), {
        cause,
        breaker: 'if_many',
        pause: { scope: 'logins', status: 'throttled', stepsMinutes: LOGIN_THROTTLE_STEPS },
      });
    case 'login_policy':
      return verdict('account', quoting(451, '4.7.0', `upstream does not let ${account} authenticate`, r), {
        cause,
        pause: { scope: 'logins', status: 'misconfigured', stepsMinutes: HOURLY },
      });
    case 'token_rejected':
      return verdict('account', quoting(451, '4.7.0', `upstream credentials rejected for ${account}`, r), {
        cause,
        breaker: 'if_many',
        renewToken: true,
        pause: { scope: 'logins', status: 'needs_consent', stepsMinutes: REJECTED_STEPS },
      });
    case 'login_not_understood':
      return verdict('local', quoting(451, '4.3.5', 'upstream did not understand our authentication', r), {
        cause,
        retry: 'fresh',
      });
    case 'login_fault':
      return verdict('provider', quoting(451, '4.3.0', 'upstream cannot authenticate now', r), {
        cause,
        breaker: 'full',
      });
    case 'login_refused':
      return verdict('account', quoting(451, '4.7.0', `upstream refused authentication of ${account}`, r), {
        cause,
        pause: { scope: 'logins', status: 'misconfigured', stepsMinutes: REJECTED_STEPS },
      });
    case 'session_over':
      return verdict('stale', quoting(451, '4.4.2', 'upstream connection expired', r), {
        cause,
        retry: 'fresh',
      });
    case 'not_authenticated':
      return verdict('local', quoting(451, '4.3.5', 'upstream forgot our authentication', r), {
        cause,
        retry: 'fresh',
      });
    case 'submission_rate':
      return verdict('throttled', makeReply(451, '4.4.2', r.text), {
        cause,
        pause: { scope: 'sending', status: 'throttled', stepsMinutes: [1] },
      });
    case 'too_many_at_once':
      return verdict('throttled', quoting(451, '4.3.2', `too many messages of ${account} at once`, r), {
        cause,
        retry: 'wait',
        slowDown: true,
      });
    case 'quota':
      return verdict(
        'throttled',
        quoting(452, '4.7.1', `sending limit of upstream account ${account} reached`, r),
        { cause, pause: { scope: 'sending', status: 'throttled', stepsMinutes: HOURLY } },
      );
    case 'restricted':
      return verdict('account', quoting(451, '4.7.1', `upstream account ${account} is restricted`, r), {
        cause,
        pause: { scope: 'sending', status: 'misconfigured', stepsMinutes: HOURLY },
      });
    case 'send_as_denied':
      return verdict(
        'message_permanent',
        makeReply(
          550,
          '5.7.60',
          `sender ${e.sender ?? ''} not permitted for account ${account}: ${r.text.split('[BeginDiagnosticData]', 1)[0]}`,
        ),
        { cause },
      );
    case 'too_many_recipients':
      // The client sends the rest in another transaction (RFC 5321 §4.5.3.1.10).
      return verdict('message_temporary', makeReply(452, '4.5.3', r.text), { cause });
    case 'out_of_step':
      return verdict('local', quoting(451, '4.5.0', 'upstream and relay are out of step', r), {
        cause,
        retry: 'fresh',
      });
    case 'service_trouble':
      return verdict('throttled', quoting(451, '4.3.2', 'upstream has a temporary problem', r), {
        cause,
        breaker: 'half',
        slowDown: true,
      });
    case 'too_large':
      return verdict('message_permanent', { ...r, enhanced: r.enhanced ?? '5.3.4' }, { cause });
    case 'service_refused':
      return { ...verdictOnMessage(r), cause, breaker: 'if_many' };
    case 'message':
      return { ...verdictOnMessage(r), cause };
    default:
      return cls satisfies never;
  }
}

/** The provider's own verdict, passed on. */
const verdictOnMessage = (r: Reply): Verdict =>
  verdict(r.code < 500 ? 'message_temporary' : 'message_permanent', passOn(r));

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

function judgeToken(e: Extract<UpstreamEvent, { kind: 'token' }>): Verdict {
  switch (e.code) {
    case 'provider_fault':
      return verdict(
        'provider',
        makeReply(451, '4.4.3', `token service unavailable for ${e.account}: ${e.detail}`),
      );
    case 'throttled':
      return verdict(
        'throttled',
        makeReply(451, '4.4.3', `token service throttles ${e.account}: ${e.detail}`),
      );
    case 'needs_consent':
      return verdict(
        'account',
        makeReply(451, '4.7.0', `account ${e.account} needs re-authorisation: ${e.detail}`),
      );
    case 'app_misconfigured':
      return verdict(
        'app',
        makeReply(451, '4.7.0', `OAuth client of ${e.account} is not accepted: ${e.detail}`),
      );
    case 'clock_skew':
      return verdict('local', makeReply(451, '4.3.0', `the relay's clock is wrong: ${e.detail}`));
    case 'bad_request':
      return verdict(
        'app',
        makeReply(451, '4.3.5', `token request of ${e.account} is misconfigured: ${e.detail}`),
      );
    case 'unknown_account':
      return verdict('local', makeReply(451, '4.3.2', `account ${e.account} is being removed`));
    default:
      return e.code satisfies never;
  }
}

function judgeLocal(e: Extract<UpstreamEvent, { kind: 'local' }>): Verdict {
  const wait = e.waitSeconds === undefined ? '' : `, try again in ${e.waitSeconds} s`;
  switch (e.cause) {
    case 'breaker_open':
      return verdict('local', makeReply(451, '4.3.2', `upstream is failing, paused for a moment${wait}`));
    case 'acquire_timeout':
      return verdict('local', makeReply(451, '4.3.2', 'all upstream connections of this account are busy'));
    case 'rate_limited':
      return verdict('throttled', makeReply(451, '4.7.1', `rate limit of this account reached${wait}`));
    case 'daily_limit':
      return verdict('throttled', makeReply(451, '4.7.1', `daily limit of this account reached${wait}`));
    case 'draining':
      return verdict('local', makeReply(451, '4.3.2', 'this account is paused by the operator'));
    case 'logins_paused':
      return verdict('throttled', makeReply(451, '4.7.0', `logins of this account are paused${wait}`));
    case 'client_gone':
      return verdict('local', makeReply(451, '4.4.2', 'the client left before the message was sent'));
    case 'misconfigured':
      return verdict('local', makeReply(451, '4.3.5', 'this account is misconfigured in the relay'));
    case 'internal':
      return verdict('local', makeReply(451, '4.3.0', 'internal error of the relay'));
    default:
      return e.cause satisfies never;
  }
}

/** What `event` means and what follows from it. */
export function judge(event: UpstreamEvent): Verdict {
  switch (event.kind) {
    case 'reply':
      return judgeReply(event);
    case 'lost':
      return judgeLoss(event);
    case 'token':
      return judgeToken(event);
    case 'local':
      return judgeLocal(event);
    default:
      return event satisfies never;
  }
}
