/**
 * Delivers a message by Graph at most once. In: an addressed message. Out: taken, or the verdict. With
 * `read_write` a draft is created, sent, and looked at whenever the answer to the send was unclear; with
 * `send` one call does both and an unclear answer stays unclear. What is known is noted in the ledger
 * before it could be needed, so that neither the client's retry nor our restart sends again.
 */
import { type Clock, pause, systemClock } from '../../clock.ts';
import { type GraphRefusal, judgeGraph } from '../../protocol/graph-answer.ts';
import type { GraphClient } from './client.ts';
import {
  CLAIM_MS,
  type Claim,
  hashOf,
  type Ledger,
  type LedgerEntry,
  markOf,
  nameOf,
  type Subject,
} from './ledger.ts';
import { createMailboxSearch, type Seen } from './mailbox-search.ts';
import {
  certainRefusal,
  clientGone,
  type GraphEnding,
  isDenied,
  isPermanent,
  isThrottled,
  isUnclear,
  judged,
  later,
  reasonOf,
  SETTLE_UNANSWERED_MS,
  setOf,
  settleOf,
  unreachable,
} from './outcome.ts';
import type { Outgoing } from './outgoing.ts';
import { noteSent } from './sent.ts';
import type { TellUnclear } from './tell-unclear.ts';

/** In all, until an unclear send is clear; then the message waits for the client's retry. */
const LOOK_MS = 20_000;
/** So long after it was noted a draft is what it looks like: who noted it sends it no more, and what was asked of Graph is done. */
const SETTLED_MS = CLAIM_MS;
/** Sends of one draft while the client waits. */
const MAX_SENDS = 3;
/** In all, for creating a draft that is throttled. */
const CREATE_MS = 30_000;
/** Each may have left a draft. */
const MAX_CREATES = 5;
/** Waited at least after the first that was throttled, each time longer, whatever Graph says: "0" too. */
const THROTTLED_MS = 1_000;

export interface GraphDelivery {
  /** Goes on with a draft that was left. */
  readonly adopts: boolean;
  /** What is known with the claim is not `sent`. No send begins after `deadline` (monotonic). */
  work(outgoing: Outgoing, claim: Claim, deadline: number): Promise<GraphEnding>;
}

export interface GraphDeliveryDeps {
  readonly client: GraphClient;
  readonly ledger: Ledger;
  readonly tellUnclear: TellUnclear;
  readonly account: string;
  /** `send`: one call creates and sends, and an unclear answer stays unclear. */
  readonly permissions: 'read_write' | 'send';
  readonly clock?: Clock;
  /** Work that nobody waits for: deleting drafts that were left over. */
  readonly tidyUp: (work: Promise<unknown>) => void;
}

const NOT_NOTED = later('4.3.0', 'the relay cannot note what it sends; nothing was sent');
const EARLIER = 'an earlier attempt had no clear answer';

/** A draft to be sent. */
interface Draft {
  readonly draft: string;
  readonly messageId: string | undefined;
  /** Since then other drafts of the message may have been left over; ms since the epoch. */
  readonly leftoversSince: number | undefined;
  /** No send of it was carried out, for certain. */
  readonly isUnsent: boolean;
}

/** Other drafts that may have been left over beside the one that was sent. */
const leftoversOf = ({ draft, leftoversSince: since }: Extract<LedgerEntry, { state: 'draft' }>) =>
  since === undefined ? undefined : { since, than: draft };

/** Monotonic. */
interface Times {
  /** No send after this. */
  readonly deadline: number;
  /** No look after this, where looking has begun. */
  readonly until?: number;
}

export function createGraphDelivery(deps: GraphDeliveryDeps): GraphDelivery {
  const { client, ledger, tellUnclear, account, permissions, clock = systemClock } = deps;
  const mailbox = createMailboxSearch({ client, ledger, clock });

  const refused = (refusal: GraphRefusal, { sender }: Outgoing): GraphEnding => ({
    kind: 'refused',
    verdict: judgeGraph(refusal, { account, sender }),
    refusal,
  });

  function subjectOf(outgoing: Outgoing): Subject {
    const { messageId, recipients, family, senderMark: sender, partOf } = outgoing;
    if (partOf !== undefined) return partOf;
    const to = hashOf(setOf(recipients));
    const named = messageId === undefined ? {} : { messageId, name: nameOf(messageId, to) };
    return { account, ...named, to, family, each: recipients.map(markOf), sender };
  }

  async function sent(
    outgoing: Outgoing,
    claim: Claim,
    messageId: string | undefined,
    known?: Extract<LedgerEntry, { state: 'draft' }>,
  ): Promise<GraphEnding> {
    const leftovers = known && leftoversOf(known);
    if (leftovers !== undefined) deps.tidyUp(mailbox.tidy(outgoing, leftovers.than, leftovers.since));
    return noteSent(ledger, outgoing, claim, {
      state: 'sent',
      at: clock.now(),
      subject: subjectOf(outgoing),
      ...(leftovers === undefined ? {} : { leftovers }),
      ...(known === undefined ? {} : { copy: hashOf(known.draft) }),
      ...(messageId === undefined || messageId === outgoing.messageId ? {} : { messageId }),
    });
  }

  /** A draft, created now or left by an attempt before, which began at `begunAt` (wall); or why there is none. */
  async function obtainDraft(
    outgoing: Outgoing,
    claim: Claim,
    begunAt: number | undefined,
  ): Promise<Draft | GraphEnding> {
    const startedAt = begunAt ?? clock.now();
    let leftoversSince = begunAt;
    const left = begunAt === undefined ? undefined : await mailbox.findDraft(outgoing);
    if (left !== undefined)
      return { draft: left.id, messageId: left.internetMessageId, leftoversSince, isUnsent: false };
    const until = clock.monotonic() + CREATE_MS;
    /** Nothing was made by the last attempt. */
    const nothing = async (ending: GraphEnding): Promise<GraphEnding> => {
      if (leftoversSince === undefined) await claim.forget();
      return ending;
    };
    if (outgoing.isClientGone()) return clientGone();
    // While Graph is asked: nobody waits for it, and a process that ends meanwhile has noted what it began.
    const noting =
      claim.known?.state === 'creating'
        ? Promise.resolve(true)
        : claim.note({ state: 'creating', at: startedAt, subject: subjectOf(outgoing) }).then(
            () => true,
            () => false,
          );
    for (let creates = 1; ; creates++) {
      if (outgoing.isClientGone()) return nothing(clientGone());
      const created = await client.create(outgoing.message);
      // Else what is noted now could come after what is noted next.
      if (!(await noting)) {
        // It was never sent, and nobody knows of it.
        if (created.kind === 'ok') await client.remove(created.value.id);
        return NOT_NOTED;
      }
      switch (created.kind) {
        case 'ok':
          return {
            draft: created.value.id,
            messageId: created.value.internetMessageId,
            leftoversSince,
            isUnsent: true,
          };
        case 'unasked':
          return nothing(judged(created.error));
        case 'lost':
          if (!created.maybeSent) return nothing(unreachable(created));
          break;
        case 'refused': {
          const { refusal } = created;
          if (isThrottled(refusal)) {
            // Drafts are not mail: another one is no second delivery.
            leftoversSince = startedAt;
            const waitMs = Math.max(refusal.retryAfterMs ?? 0, THROTTLED_MS * creates);
            if (creates === MAX_CREATES || clock.monotonic() + waitMs >= until)
              return refused(refusal, outgoing);
            await pause(clock, waitMs);
            continue;
          }
          if (!isUnclear(refusal)) return nothing(refused(refusal, outgoing));
          break;
        }
        default:
          return created satisfies never;
      }
      // One that was made all the same is deleted once another was sent: nobody can tell it from that of another message.
      if (created.kind === 'refused') return refused(created.refusal, outgoing);
      return later('4.4.2', `Graph did not answer (${created.code}), nothing was sent`);
    }
  }

  async function twoCalls(outgoing: Outgoing, claim: Claim, deadline: number): Promise<GraphEnding> {
    const { known } = claim;
    if (known?.state !== 'draft') {
      return sendObtained(outgoing, claim, known?.state === 'creating' ? known.at : undefined, deadline);
    }
    const { draft, leftoversSince, unsent = false } = known;
    const until = clock.monotonic() + LOOK_MS;
    const seen = await resume(outgoing, known, until);
    if (seen.is === 'unclear')
      return unsent
        ? // Wherever it is it was not sent: another takes its place.
          sendObtained(outgoing, claim, leftoversSince ?? known.at, deadline)
        : tellUnclear(outgoing, claim, known, seen.why, 'retry');
    if (seen.is === 'draft')
      return sendNoted(
        outgoing,
        claim,
        { draft, messageId: undefined, leftoversSince, isUnsent: unsent },
        { deadline, until },
      );
    return sent(outgoing, claim, seen.messageId, known);
  }

  async function sendObtained(
    outgoing: Outgoing,
    claim: Claim,
    begunAt: number | undefined,
    deadline: number,
  ): Promise<GraphEnding> {
    const obtained = await obtainDraft(outgoing, claim, begunAt);
    return 'kind' in obtained ? obtained : sendNoted(outgoing, claim, obtained, { deadline });
  }

  /** Sends a draft once it is noted. */
  async function sendNoted(
    outgoing: Outgoing,
    claim: Claim,
    { draft, messageId, leftoversSince, isUnsent }: Draft,
    times: Times,
  ): Promise<GraphEnding> {
    const entry: LedgerEntry = {
      state: 'draft',
      at: clock.now(),
      subject: subjectOf(outgoing),
      draft,
      ...(leftoversSince === undefined ? {} : { leftoversSince }),
    };
    try {
      await claim.note(entry);
    } catch {
      // It may have been noted all the same: the retry must not look for a draft that is gone.
      await removeUnsent(claim, entry);
      return NOT_NOTED;
    }
    return sendDraft(outgoing, claim, entry, { messageId, isUnsent }, times);
  }

  /** Of a draft that was seen unsent. Where nobody hears that it was deleted the retry must not look for it. */
  async function removeUnsent(claim: Claim, entry: Extract<LedgerEntry, { state: 'draft' }>): Promise<void> {
    const { leftoversSince, subject } = entry;
    const at = leftoversSince ?? entry.at;
    try {
      await claim.note({ state: 'creating', at, ...(subject === undefined ? {} : { subject }) });
    } catch {
      return;
    }
    const isRemoved = (await client.remove(entry.draft)).kind === 'ok';
    if (isRemoved && leftoversSince === undefined) await claim.forget();
  }

  async function sendDraft(
    outgoing: Outgoing,
    claim: Claim,
    entry: Extract<LedgerEntry, { state: 'draft' }>,
    { messageId, isUnsent }: Pick<Draft, 'messageId' | 'isUnsent'>,
    { deadline, until: resumedUntil }: Times,
  ): Promise<GraphEnding> {
    const { draft } = entry;
    let until = resumedUntil;
    for (let sends = 1; ; sends++) {
      /** Nothing was sent now. Where nothing ever was another account may take the message. */
      const unsent = async (ending: GraphEnding): Promise<GraphEnding> => {
        if (isUnsent && sends === 1) await claim.note({ ...entry, unsent: true }).catch(() => undefined);
        return ending;
      };
      if (outgoing.isClientGone()) return unsent(clientGone());
      const left = deadline - clock.monotonic();
      if (left <= 0)
        return unsent(later('4.4.2', 'it took too long until the message could be sent; nothing was sent'));
      const answer = await client.send(draft, left);
      if (answer.kind === 'ok') return sent(outgoing, claim, messageId, entry);
      // Nothing went out now, and before this the draft was seen unsent: it waits for the retry.
      if (answer.kind === 'unasked') return unsent(judged(answer.error));
      if (answer.kind === 'lost' && !answer.maybeSent) return unsent(unreachable(answer));
      until ??= clock.monotonic() + LOOK_MS;
      const refusal = certainRefusal(answer);
      const seen = await mailbox.look(draft, until, refusal === undefined ? settleOf(answer) : 0);
      if (seen.is === 'sent') return sent(outgoing, claim, seen.messageId ?? messageId, entry);
      if (refusal !== undefined) {
        const ending = refused(refusal, outgoing);
        // Before this send the draft was seen unsent. It waits where it cannot be looked at; a bounce would be final.
        if (seen.is === 'unclear')
          return isPermanent(ending)
            ? tellUnclear(outgoing, claim, entry, `${reasonOf(answer)}; ${seen.why}`, 'retry')
            : isDenied(refusal)
              ? unsent(ending)
              : ending;
        await removeUnsent(claim, entry);
        // What was refused is the whole message, of which this is a part.
        return outgoing.partOf !== undefined && isPermanent(ending)
          ? later('4.4.2', `to all its recipients: ${reasonOf(answer)}; these alone have the next retry`)
          : ending;
      }
      if (seen.is === 'unclear')
        return tellUnclear(outgoing, claim, entry, `${reasonOf(answer)}; ${seen.why}`, 'retry');
      if (sends >= MAX_SENDS || clock.monotonic() >= until)
        return answer.kind === 'refused'
          ? refused(answer.refusal, outgoing)
          : later(
              '4.4.2',
              `Graph did not send the message (${reasonOf(answer)}), it is sent with the next retry`,
            );
    }
  }

  /** What became of a draft of an earlier attempt. */
  async function resume(
    outgoing: Outgoing,
    { draft, at, unsent }: Extract<LedgerEntry, { state: 'draft' }>,
    until: number,
  ): Promise<Seen> {
    // A send may still be under way, unless none was begun: then a client that waits for seconds would never be served.
    const isSettled = unsent === true || clock.now() - at > SETTLED_MS;
    const seen = await mailbox.look(draft, until, isSettled ? 0 : SETTLE_UNANSWERED_MS);
    if (seen.is !== 'unclear') return seen;
    const copy = await mailbox.findCopy(outgoing, at);
    return copy === undefined ? seen : { is: 'sent', messageId: copy.internetMessageId };
  }

  async function oneCall(outgoing: Outgoing, claim: Claim): Promise<GraphEnding> {
    const { known } = claim;
    if (known !== undefined) return tellUnclear(outgoing, claim, known, known.unclear ?? EARLIER, 'person');
    if (outgoing.isClientGone()) return clientGone();
    const entry: LedgerEntry = { state: 'sending', at: clock.now(), subject: subjectOf(outgoing) };
    try {
      await claim.note(entry);
    } catch {
      return NOT_NOTED;
    }
    const answer = await client.sendMail(outgoing.message);
    switch (answer.kind) {
      case 'ok':
        return sent(outgoing, claim, outgoing.messageId);
      case 'unasked':
        await claim.forget();
        return judged(answer.error);
      case 'lost':
        if (answer.maybeSent) return tellUnclear(outgoing, claim, entry, reasonOf(answer), 'person');
        await claim.forget();
        return unreachable(answer);
      case 'refused':
        if (isUnclear(answer.refusal)) return tellUnclear(outgoing, claim, entry, reasonOf(answer), 'person');
        await claim.forget();
        return refused(answer.refusal, outgoing);
      default:
        return answer satisfies never;
    }
  }

  /** The account may look now: a message of which an earlier call left no clear end may be in Sent Items. */
  async function lookForSent(outgoing: Outgoing, claim: Claim, known: LedgerEntry): Promise<GraphEnding> {
    const copy = await mailbox.findCopy(outgoing, known.at);
    if (copy !== undefined) return sent(outgoing, claim, copy.internetMessageId);
    return tellUnclear(outgoing, claim, known, known.unclear ?? EARLIER, 'person');
  }

  async function work(asked: Outgoing, claim: Claim, deadline: number): Promise<GraphEnding> {
    const { known } = claim;
    // One that had no Message-ID of its own got another one now than when it was begun.
    const messageId = asked.isNamed ? asked.messageId : (known?.subject?.messageId ?? asked.messageId);
    const outgoing = { ...asked, messageId };
    if (permissions === 'send') return oneCall(outgoing, claim);
    if (known?.state === 'sending') return lookForSent(outgoing, claim, known);
    return twoCalls(outgoing, claim, deadline);
  }

  return { adopts: permissions === 'read_write', work };
}
