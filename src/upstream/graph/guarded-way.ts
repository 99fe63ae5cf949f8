/**
 * Another way than Graph for an account whose senders' mail may have been begun by Graph: a message that
 * may have been sent does not go a second time. In: the way. Out: the same way, behind a look into the ledger.
 */
import { GRAPH_MAX_BYTES } from '../../accounts/graph-target.ts';
import type { Clock } from '../../clock.ts';
import type { Mail, Recipient } from '../../protocol/esmtp.ts';
import { type Reply, reply } from '../../protocol/reply.ts';
import type { Delivery, Ending, Trace, Way } from '../way.ts';

export interface GuardDeps {
  /** Whether anything went by Graph of late. Rejects when it cannot be known. */
  readonly hasAny: () => Promise<boolean>;
  /** What became of this message by Graph; undefined: it may go. Never rejects. */
  readonly settle: (
    mail: Mail,
    recipients: readonly Recipient[],
    message: Buffer,
    trace: Trace,
    isClosed: () => boolean,
  ) => Promise<Ending | undefined>;
}

const UNKNOWN: Reply = reply(451, '4.3.0', 'the relay cannot tell whether this message was sent before');

/** For one transaction. */
export function createGuardedWay(way: Way, { hasAny, settle }: GuardDeps): Way {
  let mayBeKnown = false;
  return {
    account: way.account,
    get facts() {
      // To be compared a message has to be there whole; a larger one never went by Graph.
      return mayBeKnown ? { ...way.facts, heldAtLeast: GRAPH_MAX_BYTES } : way.facts;
    },
    async ready() {
      const refusal = await way.ready();
      if (refusal !== undefined) return refusal;
      try {
        mayBeKnown = await hasAny();
        return undefined;
      } catch {
        return UNKNOWN;
      }
    },
    begin(trace, mayBegin): Delivery {
      const delivery = way.begin(trace, mayBegin);
      if (!mayBeKnown) return delivery;
      let isClosed = false;
      return {
        ask: (mail, told, asked) => delivery.ask(mail, told, asked),
        async send(mail, told, body, octets) {
          const ending = await settle(mail, told, Buffer.concat(body), trace, () => isClosed);
          return ending ?? delivery.send(mail, told, body, octets);
        },
        open: (mail, told) => delivery.open(mail, told),
        close() {
          isClosed = true;
          delivery.close();
        },
        giveUp() {
          isClosed = true;
          delivery.giveUp();
        },
      };
    },
  };
}

/** While it cannot be asked for nothing has changed; rejects where it has never been known. */
export function orLastAnswer<T>(ask: () => Promise<T>): () => Promise<T> {
  let last: { readonly answer: T } | undefined;
  return async () => {
    try {
      last = { answer: await ask() };
    } catch (error) {
      if (last === undefined) throw error;
    }
    return last.answer;
  };
}

/** A retry comes no sooner than this after an attempt that is not clear, ms. */
const FRESH_MS = 1_000;

/** What cannot be known is not: for mail that most probably never went by Graph. Asked once in a while. */
export function orNot(ask: () => Promise<boolean>, clock: Clock): () => Promise<boolean> {
  let last: { readonly answer: Promise<boolean>; readonly at: number } | undefined;
  return () => {
    const now = clock.monotonic();
    if (last === undefined || now - last.at >= FRESH_MS)
      last = {
        at: now,
        answer: ask().catch(() => false),
      };
    return last.answer;
  };
}
