/**
 * Another way than Graph for an account whose senders' mail may have been begun by Graph: a message that
 * may have been sent does not go a second time. In: the way. Out: the same way, behind a look into the ledger.
 */
import { GRAPH_MAX_BYTES } from '../../accounts/graph-target.ts';
import type { Clock } from '../../clock.ts';
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

/** A retry comes no sooner than this after an attempt that is not clear, ms. */
const FRESH_MS = 1_000;
/** Senders of whom is remembered that something was open. */
const MAX_REMEMBERED = 10_000;

/** Whether something of a sender (by its mark) is open by Graph, for accounts that most probably never were concerned. */
export interface OpenQuestion {
  /** While it cannot be known it is what it was last; mail of a sender never asked for and never begun here is not stopped by that. */
  isOpen(mark: () => string): Soon<boolean>;
  /** A message of the sender is begun by Graph here. Called when that is over: `isClear` where its client has heard that it was sent. */
  begin(sender: string): (isClear: boolean) => void;
}

export function createOpenQuestion(
  hasOpen: (sender?: string) => Promise<boolean>,
  clock: Clock,
): OpenQuestion {
  let lastOfAll: { readonly answer: Promise<boolean>; isOpen?: boolean; readonly at: number } | undefined;
  const wereOpen = new Set<string>();
  /** Messages by sender. */
  const underWay = new Map<string, number>();

  /** Asked once in a while, so that nobody is asked for each message where nothing goes by Graph. */
  function ofAnybody(): Soon<boolean> {
    const now = clock.monotonic();
    if (lastOfAll === undefined || now - lastOfAll.at >= FRESH_MS) {
      const asked: typeof lastOfAll = { at: now, answer: hasOpen() };
      asked.answer.then(
        (isOpen) => {
          asked.isOpen = isOpen;
        },
        () => {},
      );
      lastOfAll = asked;
    }
    return lastOfAll.isOpen ?? lastOfAll.answer;
  }

  function remember(sender: string): void {
    wereOpen.delete(sender);
    wereOpen.add(sender);
    for (const oldest of wereOpen) if (wereOpen.size > MAX_REMEMBERED) wereOpen.delete(oldest);
  }

  async function isOpenOf(sender: string): Promise<boolean> {
    const wasOpen = wereOpen.has(sender) || underWay.has(sender);
    try {
      const isOpen = (wasOpen || (await ofAnybody())) && (await hasOpen(sender));
      if (isOpen) remember(sender);
      else wereOpen.delete(sender);
      return isOpen;
    } catch {
      return wasOpen;
    }
  }

  return {
    isOpen(mark) {
      if (wereOpen.size + underWay.size > 0) return isOpenOf(mark());
      // Where nothing goes by Graph no marks are made.
      const isAny = ofAnybody();
      if (isAny === false) return false;
      return isAny === true
        ? isOpenOf(mark())
        : isAny.catch(() => false).then((is) => is && isOpenOf(mark()));
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
