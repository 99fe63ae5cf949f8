/**
 * One message at a time, by the account that has begun it. In: a message for an account. Out: what became
 * of it. Accounts share senders, so a retry may come to another account, or by another way, than the attempt
 * before: what may have been sent is looked after where it was begun and goes nowhere else. Owns the claim.
 */
import { type Clock, pause, systemClock } from '../../clock.ts';
import type { Log } from '../../log.ts';
import type { Heard } from '../../protocol/esmtp.ts';
import { addressMessage } from '../../protocol/graph-addressing.ts';
import { verdict } from '../../protocol/verdict.ts';
import { UpstreamError } from '../failure.ts';
import type { Attempts } from './attempts.ts';
import type { GraphDelivery } from './delivery.ts';
import {
  asideKey,
  CLAIM_MS,
  type Claim,
  type Ledger,
  type LedgerEntry,
  type LedgerRow,
  markOf,
  mayHaveGone,
  type Subject,
  textsOf,
} from './ledger.ts';
import { CANNOT_TELL, type GraphEnding, isPermanent, judged, later } from './outcome.ts';
import type { Outgoing } from './outgoing.ts';
import { noteSent, type SentEntry } from './sent.ts';
import type { TellUnclear } from './tell-unclear.ts';

/** No send begins later than this after the claim was asked for: another relay may take it over when it ends. */
const LAST_SEND_MS = (CLAIM_MS * 3) / 4;

/** Who said the same just before is told within this, ms. */
const BUSY_MS = 2_000;
/** Asked again after this, doubled each time, ms: who only notes something is done soon … */
const FIRST_STEP_MS = 10;
/** … up to this: who is being told takes longer. */
const BUSY_STEP_MS = 100;
const BUSY = later('4.4.2', 'this very message is being sent now');

/** What became of a message, and the account whose doing it was. */
export interface HandedOver {
  readonly ending: GraphEnding;
  readonly by: string;
}

export interface HandoverDeps {
  readonly ledger: Ledger;
  /** Shared by all messages. */
  readonly attempts: Attempts;
  readonly log: Log;
  readonly tellUnclear: TellUnclear;
  readonly clock?: Clock;
  /** Account that the message came to. */
  readonly account: string;
  /** Undefined for an account that does not deliver by Graph. */
  readonly deliveryOf: (accountId: string) => GraphDelivery | undefined;
}

export interface Handover {
  /** Delivers the message by Graph. Never rejects. */
  deliver(outgoing: Outgoing): Promise<HandedOver>;
  /**
   * What became of a message that goes no further by Graph; undefined: nothing of it is known. `mayGoOn`: those who do
   * not have it may get it by Graph of this account. Never rejects.
   */
  settle(outgoing: Outgoing, mayGoOn: boolean): Promise<HandedOver | undefined>;
}

/** `rest`: recipients that the attempt before, which is to be worked on first, did not have. */
interface Found {
  readonly outgoing: Outgoing;
  readonly claim: Claim;
  /** On the message to its one recipient alone, where `claim` is on the attempt before. */
  readonly ownClaim?: Claim;
  readonly rest: readonly string[];
}

/** `rest`: recipients that do not have it, where the others do. */
interface Worked<T> {
  readonly handed: T;
  readonly rest: readonly string[];
}

/** Recipients who do not wait for it: they were not among its own, or have heard. */
function lacking(subject: Subject | undefined, { recipients }: Outgoing): readonly string[] {
  const waiting = new Set(subject?.each);
  return recipients.filter((address) => !waiting.has(markOf(address)));
}

/** What the client hears of the last is what it hears of both. */
function together(first: GraphEnding | undefined, { ending, by }: HandedOver): HandedOver {
  const whenHeard = async (heard: Heard): Promise<void> => {
    await Promise.all([first?.whenHeard?.(heard), ending.whenHeard?.(heard)]);
  };
  return { ending: { ...ending, whenHeard }, by };
}

export function createHandover(deps: HandoverDeps): Handover {
  const { ledger, attempts, log, tellUnclear, clock = systemClock, account, deliveryOf } = deps;
  const own = (ending: GraphEnding): HandedOver => ({ ending, by: account });

  async function find(asked: Outgoing): Promise<Found | 'busy'> {
    const found = await claimOf(asked);
    if (found === 'busy') return 'busy';
    let isFree = false;
    try {
      isFree = !(await isOneBeingTold(asked, found));
    } finally {
      if (!isFree) await giveBack(found);
    }
    return isFree ? found : 'busy';
  }

  async function giveBack({ claim, ownClaim }: Found): Promise<void> {
    await claim.release();
    await ownClaim?.release();
  }

  /** Whether a client that retries it to one recipient alone is about to be told: what looks the same to him may be another. */
  async function isOneBeingTold(asked: Outgoing, { outgoing, claim, rest }: Found): Promise<boolean> {
    if (asked.isNamed || !mayHaveGone(claim.known)) return false;
    for (const address of asked.recipients) {
      const key = asked.keyFor([address]);
      if (key === asked.key || key === outgoing.key || rest.includes(address)) continue;
      const his = await ledger.claim(key);
      if (his === 'busy') return true;
      await his.release();
    }
    return false;
  }

  /** The right to work on it: on the attempt before where that one had any of its recipients. */
  async function claimOf(outgoing: Outgoing): Promise<Found | 'busy'> {
    const claim = await ledger.claim(outgoing.key);
    if (claim === 'busy') return 'busy';
    if (mayHaveGone(claim.known)) {
      const { subject } = claim.known ?? {};
      const isAll = outgoing.isNamed || subject?.each === undefined;
      return foundWith(outgoing, claim, isAll ? [] : lacking(subject, outgoing));
    }
    try {
      for (const { key } of await relativesOf(outgoing)) {
        const other = await ledger.claim(key);
        if (other === 'busy') {
          await claim.release();
          return 'busy';
        }
        const { subject } = other.known ?? {};
        const rest = lacking(subject, outgoing);
        // Its recipients may have heard of it since.
        if (mayHaveGone(other.known) && rest.length < outgoing.recipients.length) {
          const isAlone = outgoing.recipients.length === 1;
          if (!isAlone) await claim.release();
          const found = foundWith({ ...outgoing, key, partOf: subject, isAlone }, other, rest);
          return isAlone ? { ...found, ownClaim: claim } : found;
        }
        await other.release();
      }
    } catch (error) {
      await claim.release();
      throw error;
    }
    return { outgoing, claim, rest: [] };
  }

  /** What its client hears depends on the rest, too. */
  const foundWith = (outgoing: Outgoing, claim: Claim, rest: readonly string[]): Found => ({
    outgoing: rest.length === 0 ? outgoing : { ...outgoing, mayNotHear: () => true },
    claim,
    rest,
  });

  /** Earlier attempts that had one of its recipients, and others. */
  async function relativesOf({ key, family, recipients }: Outgoing): Promise<readonly LedgerRow[]> {
    const marks = new Set(recipients.map(markOf));
    const rows = await ledger.relatives(family);
    return rows.filter(
      (row) => row.key !== key && row.entry.subject?.each?.some((mark) => marks.has(mark)) === true,
    );
  }

  const waits = (ending: GraphEnding) => ({ handed: own(ending), rest: [] });

  async function claimed<T extends HandedOver | undefined>(
    asked: Outgoing,
    work: (outgoing: Outgoing, claim: Claim, deadline: number) => Promise<T>,
  ): Promise<Worked<T | HandedOver>> {
    const until = clock.monotonic() + BUSY_MS;
    let longWait: (() => void) | undefined;
    try {
      for (let stepMs = FIRST_STEP_MS; ; stepMs = Math.min(stepMs * 2, BUSY_STEP_MS)) {
        const leave = attempts.enter(asked);
        // On its way, and whether its client will have heard comes after that.
        if (leave === undefined) return waits(BUSY);
        const done = await worked(asked, work).finally(leave);
        if (done !== undefined) return done;
        if (asked.isClientGone() || clock.monotonic() >= until) return waits(BUSY);
        if (ledger.isOfMany && stepMs === BUSY_STEP_MS) {
          // Each that waits has one of the few places of its mailbox.
          longWait ??= attempts.wait(account);
          if (longWait === undefined) return waits(BUSY);
        }
        await pause(clock, stepMs);
      }
    } finally {
      longWait?.();
    }
  }

  /** Undefined: somebody works on it. */
  async function worked<T extends HandedOver | undefined>(
    asked: Outgoing,
    work: (outgoing: Outgoing, claim: Claim, deadline: number) => Promise<T>,
  ): Promise<Worked<T | HandedOver> | undefined> {
    const deadline = clock.monotonic() + LAST_SEND_MS;
    let found: Found | 'busy';
    try {
      found = await find(asked);
    } catch (error) {
      log.error(
        { event: 'graph_ledger_failed', account, reason: (error as Error).message },
        'it cannot be known whether this message was sent before: it waits',
      );
      return waits({ kind: 'refused', verdict: verdict('message_temporary', CANNOT_TELL) });
    }
    if (found === 'busy') return undefined;
    const { outgoing, claim, ownClaim, rest } = found;
    let isKept = false;
    try {
      const handed = await work(outgoing, claim, deadline);
      const ending = handed?.ending;
      isKept = ending?.keepsClaim === true;
      return {
        handed: handed && { ...handed, ending: untilNoted(handed.ending, asked, ownClaim) },
        rest: ending?.kind === 'taken' ? rest : [],
      };
    } catch (error) {
      log.error({ err: error, account }, 'delivery by Graph failed unexpectedly');
      return waits(judged(new UpstreamError({ kind: 'local', cause: 'internal' }, error)));
    } finally {
      // The others of the attempt before need not wait until this client has heard.
      if (!isKept) await giveBack(found);
      else if (ownClaim !== undefined) await claim.release();
    }
  }

  /** Redis may be away just then. */
  function untilNoted(ending: GraphEnding, asked: Outgoing, ownClaim: Claim | undefined): GraphEnding {
    const { whenHeard } = ending;
    if (whenHeard === undefined) return ending;
    const noted = (heard: Heard) =>
      attempts.until(asked, () => whenHeard(heard)).finally(() => ownClaim?.release());
    return { ...ending, whenHeard: noted };
  }

  async function sentBefore(outgoing: Outgoing, claim: Claim, known: SentEntry): Promise<HandedOver> {
    const { key, messageId } = outgoing;
    log.info(
      { event: 'graph_sent_before', account, key, message_id: messageId, at: known.at },
      'this very message was sent before: not sent again',
    );
    // Its client may not hear of it this time either, or hear, and then the next that looks the same may be another.
    return own(await noteSent(ledger, outgoing, claim, known));
  }

  /** Where a message was begun that may have been sent. */
  const beginnerOf = (known: LedgerEntry): string =>
    known.state === 'draft' || known.state === 'sending' ? (known.subject?.account ?? account) : account;

  async function goOn(
    outgoing: Outgoing,
    claim: Claim,
    deadline: number,
    known: LedgerEntry | undefined,
  ): Promise<HandedOver> {
    const by = known === undefined ? account : beginnerOf(known);
    const before = known?.subject?.account ?? account;
    const delivery = deliveryOf(by);
    const isOwn = before === account && delivery?.adopts !== false;
    if (known !== undefined && !isOwn && !mayHaveGone(known)) {
      await setAside(outgoing.key, before, known);
      return goOn(outgoing, { ...claim, known: undefined }, deadline, undefined);
    }
    if (delivery !== undefined) return { ending: await delivery.work(outgoing, claim, deadline), by };
    if (known === undefined) return own(judged(new UpstreamError({ kind: 'local', cause: 'internal' })));
    const why = `account ${by}, which began it, does not deliver by Graph now`;
    return { ending: await tellUnclear(outgoing, claim, known, why, 'person'), by };
  }

  /** Begun by another account, or when this one might more, and not sent: a draft that was left is deleted in time. */
  async function setAside(key: string, before: string, known: LedgerEntry): Promise<void> {
    const aside = await ledger.claim(asideKey(key, before));
    if (aside === 'busy') return;
    try {
      const subject = { account: before, ...textsOf(known.subject ?? {}, ['messageId', 'to', 'sender']) };
      await aside.note({ ...known, subject });
    } finally {
      await aside.release();
    }
  }

  /** Others have it already, whom its header may name. By no other account than the one its client may use. */
  async function deliverRest(
    rest: readonly string[],
    asked: Outgoing,
    mayGoOn: boolean,
  ): Promise<HandedOver> {
    const addressed = addressMessage(asked.message, rest, 'rewrite');
    const { key, messageId } = asked;
    const fields = { event: 'graph_sent_to_some', account, key, message_id: messageId, rest: rest.length };
    let refused: GraphEnding | undefined;
    if (mayGoOn && addressed.kind === 'ready') {
      log.info(fields, 'some recipients of this message have it: it goes to the others');
      const { message } = addressed;
      const handed = await deliver({ ...asked, message, recipients: rest, key: asked.keyFor(rest) });
      // It would bounce for those who have it, too.
      if (!isPermanent(handed.ending)) return handed;
      refused = handed.ending;
    }
    log.warn(fields, 'some recipients of this message have it: the others wait until they come alone');
    const waits = later('4.4.2', 'an earlier attempt of this message has reached some of its recipients');
    return together(refused, own(waits));
  }

  async function deliver(asked: Outgoing): Promise<HandedOver> {
    const { handed, rest } = await claimed(asked, (outgoing, claim, deadline) =>
      claim.known?.state === 'sent'
        ? sentBefore(outgoing, claim, claim.known)
        : goOn(outgoing, claim, deadline, claim.known),
    );
    return rest.length === 0 ? handed : together(handed.ending, await deliverRest(rest, asked, true));
  }

  return {
    deliver,
    async settle(asked, mayGoOn) {
      const { handed, rest } = await claimed(asked, async (outgoing, claim, deadline) => {
        switch (claim.known?.state) {
          case undefined:
          // A draft is no mail; the one that was left over is deleted in time.
          case 'creating':
            return undefined;
          case 'sent':
            return sentBefore(outgoing, claim, claim.known);
          case 'draft':
          case 'sending':
            return mayHaveGone(claim.known) ? goOn(outgoing, claim, deadline, claim.known) : undefined;
          default:
            return claim.known satisfies never;
        }
      });
      return rest.length === 0 ? handed : together(handed?.ending, await deliverRest(rest, asked, mayGoOn));
    },
  };
}
