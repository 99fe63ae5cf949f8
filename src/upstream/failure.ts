/** The one error of src/upstream: an upstream event with its verdict. The message is safe for logs. */
import { formatReply } from '../protocol/reply.ts';
import { judge, type LossCause, type Stage, type UpstreamEvent, type Verdict } from '../protocol/verdict.ts';
import { TokenError } from '../tokens/access-token.ts';

export class UpstreamError extends Error {
  override readonly name = 'UpstreamError';
  readonly event: UpstreamEvent;
  readonly verdict: Verdict;
  /** `standing`: an earlier verdict that still stands, in place of the event's own. */
  constructor(event: UpstreamEvent, cause?: unknown, standing?: Verdict) {
    super(describe(event), cause === undefined ? undefined : { cause });
    this.event = event;
    this.verdict = standing ?? judge(event);
  }
}

/** The event in one line for people. */
function describe(event: UpstreamEvent): string {
  switch (event.kind) {
    case 'reply':
      return `upstream answered at ${event.stage}: ${formatReply(event.reply)}`;
    case 'lost':
      return `upstream connection lost at ${event.stage} (${event.cause}): ${event.detail}`;
    case 'token':
      return `no access token for ${event.account}: ${event.detail}`;
    case 'local':
      return event.cause.replaceAll('_', ' ');
    default:
      return event satisfies never;
  }
}

/** Which cause a socket or TLS error code stands for. */
export function lossCause(code: string | undefined): LossCause {
  switch (code) {
    case 'EDNS':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'dns';
    case 'ETIMEDOUT':
    case 'ESOCKETTIMEDOUT':
      return 'timeout';
    case 'ECONNRESET':
    case 'EPIPE':
      return 'reset';
    case 'EPROTOCOL':
      return 'garbage';
    case 'ETLS':
      return 'tls';
    default:
      return code !== undefined && /TLS|SSL|CERT|SIGNATURE|ISSUER|ALTNAME/.test(code) ? 'tls' : 'tcp';
  }
}

export function lost(
  stage: Stage,
  cause: LossCause,
  detail: string,
  at: { readonly reused: boolean; readonly finalByteSent: boolean },
  error?: unknown,
): UpstreamError {
  return new UpstreamError({ kind: 'lost', stage, cause, detail, ...at }, error);
}

/** Before anything was said on it. */
export const closedBehindLogin = (): UpstreamError =>
  lost('auth', 'eof', 'closed right behind the login', { reused: false, finalByteSent: false });

/** Why there is no access token, as an upstream event. Throws `error` where it is none of the token room's. */
export function tokenTrouble(error: unknown, account: string): UpstreamError {
  if (!(error instanceof TokenError)) throw error;
  return new UpstreamError({ kind: 'token', code: error.code, account, detail: error.message }, error);
}

/** To whoever waits for something of an account that is removed, renamed, or of another mailbox now; or the relay stops. */
export const notServed = (): UpstreamError => new UpstreamError({ kind: 'local', cause: 'not_served' });

/** Any error as an `UpstreamError`: what is none is an error of ours, and the mail waits. */
export const asUpstreamError = (error: unknown): UpstreamError =>
  error instanceof UpstreamError ? error : new UpstreamError({ kind: 'local', cause: 'internal' }, error);
