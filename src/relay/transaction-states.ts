/**
 * The transaction as a machine: which states there are and what each event does to each. In: a state and
 * an event. Out: the next state. Pure; transaction.ts acts on it. docs/transaction.md has the table.
 */
import type { Reply } from '../protocol/reply.ts';
import type { Verdict } from '../protocol/verdict.ts';
import type { BodyStream } from '../upstream/way.ts';

export type State =
  /** Between commands: recipients are promised, or asked for. */
  | { readonly at: 'envelope' }
  /** The same after the provider was asked for some: it is asked for all that follow. */
  | { readonly at: 'live' }
  /** The provider is being asked for recipients. */
  | { readonly at: 'asking' }
  /** Nothing can come of it any more; DATA hears the verdict, a further RCPT `toRecipients`. */
  | { readonly at: 'refused'; readonly verdict: Verdict; readonly toRecipients: Reply }
  /** The body comes in and is held whole: nothing of it was sent. */
  | { readonly at: 'holding'; readonly chunks: Buffer[] }
  /** It grew too large to hold: the stream upstream is being opened. */
  | { readonly at: 'opening'; readonly chunks: Buffer[] }
  | { readonly at: 'streaming'; readonly stream: BodyStream }
  /** Decided before the end of the body: the rest is read and thrown away. */
  | { readonly at: 'dropping'; readonly verdict: Verdict }
  /** The body is complete: the verdict is awaited. */
  | { readonly at: 'deciding' }
  /** The same, and the client has left: what was not sent completely is not sent. */
  | { readonly at: 'deserted' }
  | { readonly at: 'ended' };

export type Event =
  /** RCPT. `asks`: the provider is asked now. */
  | { readonly on: 'rcpt'; readonly asks: boolean }
  /** The answers to recipients came; `refusal` where nothing more can come of the transaction. */
  | { readonly on: 'heard'; readonly refusal?: { readonly verdict: Verdict; readonly toRecipients: Reply } }
  | { readonly on: 'data' }
  /** Octets of the body came. `overflows`: more than may be held. */
  | { readonly on: 'octets'; readonly overflows: boolean }
  | { readonly on: 'opened'; readonly stream: BodyStream }
  | { readonly on: 'not_opened'; readonly verdict: Verdict }
  /** The body is complete. */
  | { readonly on: 'end' }
  | { readonly on: 'decided' }
  /** RSET, or the client is gone. */
  | { readonly on: 'left' };

export const START: State = { at: 'envelope' };
const LIVE: State = { at: 'live' };
const ASKING: State = { at: 'asking' };
const DECIDING: State = { at: 'deciding' };
const DESERTED: State = { at: 'deserted' };
const ENDED: State = { at: 'ended' };

/** The next state; the same one where the event has no meaning in it. */
export function next(state: State, event: Event): State {
  switch (event.on) {
    case 'rcpt':
      return state.at === 'live' || (state.at === 'envelope' && event.asks) ? ASKING : state;
    case 'heard':
      if (state.at !== 'asking') return state;
      return event.refusal === undefined ? LIVE : { at: 'refused', ...event.refusal };
    case 'data':
      if (state.at === 'envelope' || state.at === 'live') return { at: 'holding', chunks: [] };
      return state.at === 'refused' ? ENDED : state;
    case 'octets':
      return state.at === 'holding' && event.overflows ? { at: 'opening', chunks: state.chunks } : state;
    case 'opened':
      return state.at === 'opening' ? { at: 'streaming', stream: event.stream } : state;
    case 'not_opened':
      return state.at === 'opening' ? { at: 'dropping', verdict: event.verdict } : state;
    case 'end':
      return afterEnd(state);
    case 'decided':
      return state.at === 'deciding' || state.at === 'deserted' ? ENDED : state;
    case 'left':
      return afterLeaving(state);
    default:
      return event satisfies never;
  }
}

function afterEnd(state: State): State {
  switch (state.at) {
    case 'holding':
    case 'streaming':
      return DECIDING;
    case 'dropping':
      return ENDED;
    case 'envelope':
    case 'live':
    case 'asking':
    case 'refused':
    case 'opening':
    case 'deciding':
    case 'deserted':
    case 'ended':
      return state;
    default:
      return state satisfies never;
  }
}

function afterLeaving(state: State): State {
  switch (state.at) {
    case 'deciding':
    case 'deserted':
      return DESERTED;
    case 'envelope':
    case 'live':
    case 'asking':
    case 'refused':
    case 'holding':
    case 'opening':
    case 'streaming':
    case 'dropping':
    case 'ended':
      return ENDED;
    default:
      return state satisfies never;
  }
}
