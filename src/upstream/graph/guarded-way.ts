/**
 * Another way than Graph for an account whose senders' mail may have been begun by Graph: a message that
 * may have been sent does not go a second time. In: the way. Out: the same way, behind a look into the ledger.
 */
import { GRAPH_MAX_BYTES } from '../../accounts/graph-target.ts';
import type { Clock } from '../../clock.ts';
import type { Mail, Recipient } from '../../protocol/esmtp.ts';
import { MAX_HEADER_OCTETS } from '../../protocol/message-header.ts';
import type { Delivery, Ending, Trace, Way, WayFacts } from '../way.ts';
import { CANNOT_TELL } from './outcome.ts';

export interface GuardDeps {
  /** Whether the message may have been begun by Graph. Rejects when it cannot be known: then it waits. */
  readonly mayBeKnown: () => Promise<boolean>;
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
  const guarded: Omit<Way, 'facts'> & { facts: WayFacts } = {
    account: way.account,
    facts: way.facts,
    async ready() {
      const refusal = await way.ready();
      if (refusal !== undefined) return refusal;
      try {
        mayBeKnown = await deps.mayBeKnown();
        if (mayBeKnown) guarded.facts = { ...way.facts, heldAtLeast: MAX_COMPARED };
        return undefined;
      } catch {
        return CANNOT_TELL;
      }
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

/** A retry comes no sooner than this after an attempt that is not clear, ms. */
const FRESH_MS = 1_000;
/** Senders of whom is remembered that something was open. */
const MAX_REMEMBERED = 10_000;

/** Whether something of a sender (by its mark) is open by Graph, for accounts that most probably never were concerned. */
export interface OpenQuestion {
  /** While it cannot be known it is what it was last; mail of a sender never asked for and never begun here is not stopped by that. */
  isOpen(mark: () => string): Promise<boolean>;
  /** A message of the sender is begun by Graph here. Called when that is over: `isClear` where its client has heard that it was sent. */
  begin(sender: string): (isClear: boolean) => void;
}

export function createOpenQuestion(
  hasOpen: (sender?: string) => Promise<boolean>,
  clock: Clock,
): OpenQuestion {
  let lastOfAll: { readonly answer: Promise<boolean>; readonly at: number } | undefined;
  const wereOpen = new Set<string>();
  /** Messages by sender. */
  const underWay = new Map<string, number>();

  /** Asked once in a while, so that nobody is asked for each message where nothing goes by Graph. */
  function ofAnybody(): Promise<boolean> {
    const now = clock.monotonic();
    if (lastOfAll === undefined || now - lastOfAll.at >= FRESH_MS) lastOfAll = { at: now, answer: hasOpen() };
    return lastOfAll.answer;
  }

  function remember(sender: string): void {
    wereOpen.delete(sender);
    wereOpen.add(sender);
    for (const oldest of wereOpen) if (wereOpen.size > MAX_REMEMBERED) wereOpen.delete(oldest);
  }

  return {
    async isOpen(mark) {
      // Where nothing goes by Graph no marks are made.
      if (wereOpen.size + underWay.size === 0 && !(await ofAnybody().catch(() => false))) return false;
      const sender = mark();
      const wasOpen = wereOpen.has(sender) || underWay.has(sender);
      try {
        const isOpen = (wasOpen || (await ofAnybody())) && (await hasOpen(sender));
        if (isOpen) remember(sender);
        else wereOpen.delete(sender);
        return isOpen;
      } catch {
        return wasOpen;
      }
    },
    begin(sender) {
      underWay.set(sender, (underWay.get(sender) ?? 0) + 1);
      return (isClear) => {
        const left = (underWay.get(sender) ?? 1) - 1;
        if (left > 0) underWay.set(sender, left);
        else underWay.delete(sender);
        if (!isClear) remember(sender);
      };
    },
  };
}
