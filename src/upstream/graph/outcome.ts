/** What came of a call to Graph or of a whole delivery, and what it means for the message. */
import type { Heard } from '../../protocol/esmtp.ts';
import { describeRefusal, type GraphRefusal } from '../../protocol/graph-answer.ts';
import { type Reply, reply } from '../../protocol/reply.ts';
import { foldAddress } from '../../protocol/text.ts';
import { type Verdict, verdict } from '../../protocol/verdict.ts';
import { UpstreamError } from '../failure.ts';
import type { GraphOutcome } from './client.ts';
import type { Outgoing } from './outgoing.ts';

/** A draft is unsent when it still is one this long after Graph said that it could not send it … */
const SETTLE_MS = 3_000;
/** … and this long where it may still be working on it: no answer, or a gateway that had none. */
export const SETTLE_UNANSWERED_MS = 10_000;

interface Told {
  /** To be told, where it is there, whether the client has heard a 250. Rejects when it could not be noted: then it may be told again. */
  readonly whenHeard?: (heard: Heard) => Promise<void>;
  /** Until it has been told, whatever looks the same waits: it may be its retry, or another. */
  readonly keepsClaim?: boolean;
}

export type GraphEnding = Told &
  (
    | { readonly kind: 'taken'; readonly reply: Reply }
    /** `verdict.class` is `unknown` where nobody knows whether it was sent. */
    | { readonly kind: 'refused'; readonly verdict: Verdict; readonly refusal?: GraphRefusal }
  );

/** `messageId`: the one Graph gave it, where that is known. */
export const takenAs = (
  outgoing: Outgoing,
  messageId: string | undefined,
): Extract<GraphEnding, { kind: 'taken' }> => ({
  kind: 'taken',
  reply: reply(250, '2.0.0', `OK ${messageId ?? outgoing.messageId ?? '<no-message-id>'} [graph]`),
});

type Lost = Extract<GraphOutcome<unknown>, { kind: 'lost' }>;

export const judged = (error: UpstreamError): GraphEnding => ({ kind: 'refused', verdict: error.verdict });

export const later = (code: string, text: string): GraphEnding => ({
  kind: 'refused',
  verdict: verdict('message_temporary', reply(451, code, text)),
});
export const clientGone = (): GraphEnding =>
  judged(new UpstreamError({ kind: 'local', cause: 'client_gone' }));
/** The ledger cannot be read. */
export const CANNOT_TELL = reply(451, '4.3.0', 'the relay cannot tell whether this message was sent before');
/** There was no connection for the request. */
export const unreachable = ({ code, detail = code }: Lost): GraphEnding =>
  judged(
    new UpstreamError({
      kind: 'lost',
      stage: 'connect',
      cause: 'tcp',
      detail,
      reused: false,
      finalByteSent: false,
    }),
  );

export const isThrottled = (r: GraphRefusal): boolean =>
  r.status === 429 || r.code === 'ApplicationThrottled';

/** After these the request may have been carried out all the same: a gateway that redirects may have passed it on. */
export const isUnclear = (r: GraphRefusal): boolean =>
  isThrottled(r) || r.status >= 500 || r.status < 400 || [408, 409, 423].includes(r.status);

/** The refusal where nothing was done, and the same request would hear the same. A 404 may be too early. */
export const certainRefusal = (outcome: GraphOutcome<unknown>): GraphRefusal | undefined =>
  outcome.kind === 'refused' && !isUnclear(outcome.refusal) && outcome.refusal.status !== 404
    ? outcome.refusal
    : undefined;

/** Who asks was turned away, whatever he asked for. */
export const isDenied = ({ status }: GraphRefusal): boolean => status === 401 || status === 403;

/** The client would bounce the message. */
export const isPermanent = (ending: GraphEnding): boolean =>
  ending.kind === 'refused' && ending.verdict.answer.code >= 500;

export const settleOf = (outcome: GraphOutcome<unknown>): number =>
  outcome.kind === 'refused' && outcome.refusal.status !== 504 && outcome.refusal.status >= 400
    ? SETTLE_MS
    : SETTLE_UNANSWERED_MS;

export function reasonOf(outcome: Exclude<GraphOutcome<unknown>, { kind: 'ok' }>): string {
  switch (outcome.kind) {
    case 'refused':
      return `Graph said ${describeRefusal(outcome.refusal)}`;
    case 'lost':
      return outcome.code === 'TIMEOUT'
        ? 'Graph did not answer in time'
        : `connection to Graph lost (${outcome.detail ?? outcome.code})`;
    case 'unasked':
      return outcome.error.message;
    default:
      return outcome satisfies never;
  }
}

export const setOf = (addresses: readonly string[]): string =>
  [...new Set(addresses.map(foldAddress))].sort().join('\n');
