/**
 * The book of causes: every trouble the relay knows, in one list. In: what was said or reported, and where.
 * Out: its row, or the row's words for an account. Relay, `check`, `account add`, status, dashboard, alerts
 * and docs/troubleshooting.md read it. Pure.
 */
import { formatReply, type Reply } from '../reply.ts';
import { parseReply } from '../reply-parser.ts';
import { MAX_JUDGED, ownWords } from '../text.ts';
import { type Cause, type CauseFacts, type CauseStage, type Explanation, explainCause } from './cause.ts';
import { GRAPH_CAUSES, GRAPH_OWN_CAUSES, type GraphCause, type GraphHeard } from './graph-causes.ts';
import { LOGIN_CAUSES } from './login-causes.ts';
import type { Heard, ReplyCause } from './reply-cause.ts';
import { SENDING_CAUSES } from './sending-causes.ts';
import { SIGN_IN_CAUSES } from './sign-in-causes.ts';
import type { TokenCause } from './token-cause.ts';
import { TOKEN_CAUSES } from './token-causes.ts';
import { WAY_CAUSES, type WayCause } from './way-causes.ts';

export type { Cause, CauseFacts, CauseStage, Explanation } from './cause.ts';

/** In the order in which a message meets them. */
export const CAUSES: readonly Cause[] = [
  ...SIGN_IN_CAUSES,
  ...TOKEN_CAUSES,
  ...WAY_CAUSES,
  ...LOGIN_CAUSES,
  ...SENDING_CAUSES,
  ...GRAPH_CAUSES,
  ...GRAPH_OWN_CAUSES,
];

const BY_ID: ReadonlyMap<string, Cause> = new Map(CAUSES.map((cause) => [cause.id, cause]));

/** Facts of no account in particular, for documentation and where none is at hand. */
export const ANY_ACCOUNT: CauseFacts = {
  provider: '',
  host: 'HOST',
  port: 587,
  user: 'MAILBOX',
  account: 'MAILBOX',
  sender: 'SENDER',
  grant: 'refresh_token',
};

export interface Trouble extends CauseFacts {
  readonly stage: CauseStage;
  /** What was said or reported: a reply line, an OAuth error, a system error code. */
  readonly said: string;
}

/** Explains a failed step. There is always an answer; an unknown one asks to read the reply. */
export function explain(trouble: Trouble): Explanation {
  const { stage, said } = trouble;
  return explainCause(findCause(stage, said.slice(0, MAX_JUDGED)), trouble);
}

/** The cause with this id; undefined where the book has none. */
export function explainById(id: string | undefined, facts: CauseFacts): Explanation | undefined {
  const cause = id === undefined ? undefined : BY_ID.get(id);
  return cause && explainCause(cause, facts);
}

export const cureOf = (id: string | undefined, facts: CauseFacts): string | undefined =>
  explainById(id, facts)?.cure;

function findCause(stage: CauseStage, said: string): Cause {
  switch (stage) {
    case 'sign-in':
      return findSignInCause(errorIn(said), said);
    case 'token':
      return findTokenCauseInText(said);
    case 'dns':
    case 'tcp':
    case 'tls':
    case 'greeting':
    case 'ehlo':
      return findWayCause(stage, said);
    case 'graph':
      return findGraphCauseInText(said);
    default:
      return findReplyCause(stage, parseReply(said) ?? { code: 0, text: said });
  }
}

/** Code 0: no reply but what happened in place of one. */
export function findReplyCause(stage: 'auth' | 'mail' | 'rcpt' | 'body' | 'end', reply: Reply): ReplyCause {
  const heard: Heard = {
    stage,
    code: reply.code,
    enhanced: reply.enhanced ?? '',
    words: ownWords(reply.text),
  };
  return lastResort(
    (stage === 'auth' ? LOGIN_CAUSES : SENDING_CAUSES).find((c) => c.stages.includes(stage) && c.is(heard)),
  );
}

/** `said`: a system error code, or a reply of the server. */
export function findWayCause(stage: CauseStage, said: string | Reply): WayCause {
  const text = typeof said === 'string' ? said : formatReply(said);
  return lastResort(WAY_CAUSES.find((c) => c.stages.includes(stage) && c.said.test(text)));
}

export const findGraphCause = (heard: GraphHeard): GraphCause =>
  lastResort(GRAPH_CAUSES.find((c) => c.is(heard)));

/** `send 403 ErrorAccessDenied …`, or a system error code. */
function findGraphCauseInText(said: string): Cause {
  const [, call = 'create', status, code = '', message = ''] =
    /^(?:(create|send|look|search|delete|send_mail) )?(\d{3})(?: (\w+))?(?: (.*))?$/s.exec(said) ?? [];
  if (status === undefined)
    return findWayCause(
      !said.startsWith('proxy ') && /CERT|SELF_SIGNED|UNABLE_TO|ALTNAME/.test(said) ? 'tls' : 'tcp',
      said,
    );
  return findGraphCause({ call: call as GraphHeard['call'], status: Number(status), code, message });
}

/** What a token endpoint said; all parts as far as there were any. */
export interface TokenWords {
  readonly status: number | undefined;
  /** AADSTS numbers. */
  readonly codes: readonly number[];
  readonly error: string | undefined;
  readonly description: string;
}

export function findTokenCause({ status = 0, codes, error, description }: TokenWords): TokenCause {
  const numbered = codes.map((code) => BY_AADSTS.get(code)).find((cause) => cause !== undefined);
  // A fault of the endpoint never speaks about the credential, whatever its body says.
  if (status >= 500 || status === 408) return tokenRow('token-service-fault');
  if (status === 429) return numbered?.class === 'throttled' ? numbered : tokenRow('token-service-throttles');
  if (numbered !== undefined) return numbered;
  if (error !== undefined) {
    const judged = description.slice(0, MAX_JUDGED);
    return (
      TOKEN_CAUSES.find((c) => c.words?.test(judged) && (c.errors?.includes(error) ?? true)) ??
      TOKEN_CAUSES.find((c) => c.words === undefined && c.errors?.includes(error)) ??
      tokenRow('token-refused')
    );
  }
  if ((status >= 300 && status < 400) || [404, 405, 410].includes(status)) return tokenRow('token-url-wrong');
  return tokenRow('token-service-garbled');
}

/** No answer came; `code` is the system's or the HTTP client's. */
export const findTokenNetworkCause = (code: string): TokenCause =>
  tokenRow(
    /^PROXY_/.test(code)
      ? 'token-proxy'
      : /CERT|ALTNAME|SELF_SIGNED|UNABLE_TO|ISSUER|certificate|self.signed/i.test(code)
        ? 'token-service-certificate'
        : /^(?:ABORT_ERR|UND_ERR_(?:HEADERS|BODY)_TIMEOUT)$|no complete answer/.test(code)
          ? 'token-service-slow'
          : 'token-service-unreachable',
  );

/** Words of ours, the system's and the HTTP client's for an answer that never came. */
const NO_ANSWER =
  /\bE[A-Z]{4,20}\b|CERT|certificate|name not found|cannot be reached|no (?:complete )?answer|no connection|connection (?:refused|closed)|timed? ?out/i;

const PROXY_TOLD = /(?:^|token endpoint \S+: )proxy \w+:\/\//;

/** The cause of a failure of which only its line is left: out of a shared store, or in a log. */
export function findTokenCauseInText(text: string): TokenCause {
  const said = text.slice(0, MAX_JUDGED);
  if (PROXY_TOLD.test(said)) return tokenRow('token-proxy');
  const status = /\bHTTP (\d{3})\b/.exec(said)?.[1];
  const codes = aadstsIn(said);
  const error = errorIn(said);
  if (status === undefined && codes.length === 0 && error === undefined) {
    return NO_ANSWER.test(said) ? findTokenNetworkCause(said) : tokenRow('token-refused');
  }
  return findTokenCause({ status: Number(status ?? 0), codes, error, description: said });
}

/** A refusal at the sign-in, by its `error` and the provider's sentence. */
export function findSignInCause(error: string | undefined, description: string): Cause {
  const judged = description.slice(0, MAX_JUDGED);
  const codes = aadstsIn(judged);
  if (codes.includes(50011)) return lastResort(BY_ID.get('sign-in-redirect'));
  return (
    codes.map((code) => BY_AADSTS.get(code)).find((cause) => cause !== undefined) ??
    SIGN_IN_CAUSES.find((cause) => error !== undefined && cause.errors.includes(error)) ??
    findTokenCause({ status: undefined, codes: [], error: error ?? '', description: judged })
  );
}

const BY_AADSTS: ReadonlyMap<number, TokenCause> = new Map(
  TOKEN_CAUSES.flatMap((cause) => (cause.aadsts ?? []).map((code) => [code, cause])),
);

const ERRORS: ReadonlySet<string> = new Set(
  [...TOKEN_CAUSES, ...SIGN_IN_CAUSES].flatMap((cause) => cause.errors ?? []),
);

/** Microsoft's numbers in a sentence. */
export const aadstsIn = (words: string): readonly number[] =>
  [...words.slice(0, MAX_JUDGED).matchAll(/AADSTS(\d{5,9})/g)].map((m) => Number(m[1]));

/** The first known `error` value in a line. */
const errorIn = (said: string): string | undefined =>
  said.match(/[a-z_]+/g)?.find((word) => ERRORS.has(word));

const tokenRow = (id: string): TokenCause => lastResort(TOKEN_CAUSES.find((cause) => cause.id === id));

/** A table always has a row that fits; that is what its test is for. */
function lastResort<T>(row: T | undefined): T {
  if (row === undefined) throw new Error('the book of causes lacks a last row');
  return row;
}
