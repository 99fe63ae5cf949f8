/**
 * Another way than Graph for an account whose senders' mail may have been begun by Graph: a message that
 * may have been sent does not go a second time. In: the way. Out: the same way, behind a look into the ledger.
 */
import { GRAPH_MAX_BYTES } from '../../accounts/graph-target.ts';
import type { Mail, Recipient } from '../../protocol/esmtp.ts';
import { MAX_HEADER_OCTETS } from '../../protocol/message-header.ts';
import type { Reply } from '../../protocol/reply.ts';
import type { Soon } from '../../soon.ts';
import type { Delivery, Ending, Trace, Way, WayFacts } from '../way.ts';
import { CANNOT_TELL } from './outcome.ts';

export interface GuardDeps {
  /** Whether the message may have been begun by Graph. Rejects when it cannot be known: then it waits. */
  readonly mayBeKnown: () => Soon<boolean>;
  /** What became of this message by Graph; undefined: it may go. Never rejects. */
  readonly settle: (
    mail: Mail,
    recipients: readonly Recipient[],
    message: Buffer,
    trace: Trace,
    isClosed: () => boolean,
  ) => Promise<Ending | undefined>;
}

/** To be compared a message has to be there whole; none went by Graph whose body is larger. The header of its retry may be another one. */
const MAX_COMPARED = GRAPH_MAX_BYTES + MAX_HEADER_OCTETS;

/** For one transaction. */
export function createGuardedWay(way: Way, deps: GuardDeps): Way {
  let mayBeKnown = false;

  function learn(may: boolean): undefined {
    mayBeKnown = may;
    if (may) guarded.facts = { ...way.facts, heldAtLeast: MAX_COMPARED };
  }

  function look(): Soon<Reply | undefined> {
    const may = deps.mayBeKnown();
    return may instanceof Promise ? may.then(learn, () => CANNOT_TELL) : learn(may);
  }

  const guarded: Omit<Way, 'facts'> & { facts: WayFacts } = {
    account: way.account,
    facts: way.facts,
    ready() {
      const refusal = way.ready();
      return refusal instanceof Promise ? refusal.then((r) => r ?? look()) : (refusal ?? look());
    },
    begin(trace, mayBegin): Delivery {
      const delivery = way.begin(trace, mayBegin);
      if (!mayBeKnown) return delivery;
      let isClosed = false;
      return {
        ask: (mail, told, asked) => delivery.ask(mail, told, asked),
        async send(mail, told, body, octets) {
          const ending = await deps.settle(mail, told, Buffer.concat(body), trace, () => isClosed);
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
  return guarded;
}
