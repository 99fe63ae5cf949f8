/**
 * Looks in the mailbox for what became of a message. In: the id of a draft, or a message. Out: what was
 * seen, and deleted left-over drafts. Nothing is sent here. What the ledger knows as another
 * message's is neither deleted nor taken for a sent copy, and only what it knows as this one's is adopted: two messages
 * may share a Message-ID (devices give all they say the same). Where they are known to, nobody's copy proves nothing.
 */
import { type Clock, pause, systemClock } from '../../clock.ts';
import type { UpstreamError } from '../failure.ts';
import type { GraphClient, GraphMessage } from './client.ts';
import { hashOf, KEEP_MS, type Ledger, nameOf } from './ledger.ts';
import { certainRefusal, reasonOf, setOf } from './outcome.ts';
import type { Outgoing } from './outgoing.ts';

/** A draft that Graph does not find: "may not succeed immediately" after a send. */
const MISSING_MS = 10_000;
const FIRST_LOOK_MS = 250;
const LONGEST_LOOK_MS = 4_000;
/** Attempts to delete drafts that were left over. */
const MAX_TIDIES = 3;
/** A draft found by its Message-ID was created no earlier than this before our attempt: clocks differ. */
const CLOCK_SLACK_MS = 5 * 60_000;
/** And a sent one no later than this after it: later ones are other messages with this Message-ID. */
const SENT_WITHIN_MS = 15 * 60_000;

export type Seen =
  | { readonly is: 'sent'; readonly messageId: string | undefined }
  | { readonly is: 'draft' }
  | { readonly is: 'unclear'; readonly why: string };

export interface MailboxSearch {
  /** Looks until it is clear, `until` (monotonic) at the latest. A draft is unsent when it still is one for a look asked `settleMs` after the first that saw it so. */
  look(draft: string, until: number, settleMs: number): Promise<Seen>;
  /** A sent copy of the message whose sending began at `at` (wall); undefined: none was seen, or it may be another's. */
  findCopy(outgoing: Outgoing, at: number): Promise<GraphMessage | undefined>;
  /** A draft that was noted for the message, and still is one; undefined: none was seen. */
  findDraft(outgoing: Outgoing): Promise<GraphMessage | undefined>;
  /** Deletes drafts that an unclear or throttled create left behind. The sent one may still look like a draft. */
  tidy(outgoing: Outgoing, sentDraft: string, since: number): Promise<void>;
}

interface Found {
  readonly own: readonly GraphMessage[];
  /** Of which nothing is noted. */
  readonly nobodys: readonly GraphMessage[];
  readonly others: readonly GraphMessage[];
  /** Where there are any what is nobody's may be theirs. */
  readonly namesakes: Namesakes;
}

const toOf = ({ partOf, recipients }: Outgoing): string => partOf?.to ?? hashOf(setOf(recipients));

/** Other messages with the same Message-ID and recipients. `being made`: a draft that is nobody's may be one that is about to be sent. */
export type Namesakes = 'none' | 'known' | 'being made';

/** Those of the message of `key`. Rejects when it cannot be known. */
export async function namesakesOf(
  ledger: Pick<Ledger, 'isShared' | 'list'>,
  { messageId, to, key, now }: { messageId: string; to: string; key: string; now: number },
): Promise<Namesakes> {
  if (!(await ledger.isShared(nameOf(messageId, to), key))) return 'none';
  const isBeingMade = (await ledger.list()).some(
    ({ key: other, entry: { state, at, subject } }) =>
      other !== key &&
      state === 'creating' &&
      at > now - KEEP_MS &&
      subject?.family !== undefined &&
      subject.messageId === messageId &&
      subject.to === to,
  );
  return isBeingMade ? 'being made' : 'known';
}

const needsPerson = ({ verdict }: UpstreamError): boolean =>
  verdict.class === 'account' || verdict.class === 'app';

export function createMailboxSearch(deps: {
  readonly client: GraphClient;
  readonly ledger: Ledger;
  readonly clock?: Clock;
}): MailboxSearch {
  const { client, ledger, clock = systemClock } = deps;

  /** All with its Message-ID and exactly its recipients; undefined: it could not be asked. */
  async function find(outgoing: Outgoing, among: 'all' | 'drafts'): Promise<Found | undefined> {
    const { messageId, key } = outgoing;
    const [own, nobodys, others]: [GraphMessage[], GraphMessage[], GraphMessage[]] = [[], [], []];
    if (messageId === undefined) return { own, nobodys, others, namesakes: 'none' };
    const found = await client.search(messageId, among);
    if (found.kind !== 'ok') return undefined;
    const to = toOf(outgoing);
    try {
      // Asked only now: whatever was seen was noted before.
      const namesakes = await namesakesOf(ledger, { messageId, to, key, now: clock.now() });
      for (const m of found.value) {
        if (m.recipients === undefined || hashOf(setOf(m.recipients)) !== to) continue;
        const owner = await ledger.ownerOf(m.id);
        (owner === undefined ? nobodys : owner === key ? own : others).push(m);
      }
      return { own, nobodys, others, namesakes };
    } catch {
      return undefined;
    }
  }

  const isCopy = ({ isDraft }: GraphMessage): boolean => !isDraft;
  const isSince = ({ createdAt = Number.POSITIVE_INFINITY }: GraphMessage, at: number): boolean =>
    createdAt >= at - CLOCK_SLACK_MS;

  return {
    async look(draft, until, settleMs) {
      let draftSince: number | undefined;
      let missingSince: number | undefined;
      let why = 'Graph does not find the draft';
      for (let waitMs = FIRST_LOOK_MS; ; waitMs = Math.min(waitMs * 2, LONGEST_LOOK_MS)) {
        const left = until - clock.monotonic();
        if (left <= 0) return { is: 'unclear', why };
        // What is answered late may have been seen as early as this.
        const askedAt = clock.monotonic();
        const seen = await client.look(draft, left);
        const now = clock.monotonic();
        if (seen.kind === 'ok' && seen.value !== 'none') {
          if (!seen.value.isDraft) return { is: 'sent', messageId: seen.value.internetMessageId };
          draftSince ??= askedAt;
          if (askedAt - draftSince >= settleMs) return { is: 'draft' };
          missingSince = undefined;
        } else if (seen.kind === 'ok') {
          draftSince = undefined;
          missingSince ??= now;
          if (now - missingSince >= MISSING_MS) return { is: 'unclear', why };
        } else {
          why = reasonOf(seen);
          // Asking again does not help: the right to look is gone, or a person has to sign in.
          if (certainRefusal(seen) !== undefined) return { is: 'unclear', why };
          if (seen.kind === 'unasked' && needsPerson(seen.error)) return { is: 'unclear', why };
          // Nobody may ask for longer than we wait.
          if (seen.kind === 'unasked' && (seen.waitMs ?? 0) > until - now) return { is: 'unclear', why };
        }
        await pause(clock, Math.min(waitMs, Math.max(0, until - clock.monotonic())));
      }
    },
    async findCopy(outgoing, at) {
      const found = await find(outgoing, 'all');
      const own = found?.own.find(isCopy);
      if (found === undefined || own !== undefined || found.namesakes !== 'none') return own;
      // Another one shows what the ledger may have forgotten: that others have its name.
      const [copy, ...more] = [...found.nobodys, ...found.others].filter(isCopy);
      if (copy === undefined || more.length > 0 || found.others.includes(copy)) return undefined;
      return isSince(copy, at) && (copy.createdAt ?? at) <= at + SENT_WITHIN_MS ? copy : undefined;
    },
    findDraft: async (outgoing) => (await find(outgoing, 'drafts'))?.own.find((m) => m.isDraft),
    async tidy(outgoing, sentDraft, since) {
      for (let tries = 1; tries <= MAX_TIDIES; tries++) {
        const found = await find(outgoing, 'drafts');
        let isTidy = found !== undefined && found.namesakes !== 'being made';
        for (const m of found === undefined ? [] : [...found.own, ...(isTidy ? found.nobodys : [])])
          if (
            m.isDraft &&
            m.id !== sentDraft &&
            isSince(m, since) &&
            (await client.remove(m.id)).kind !== 'ok'
          )
            isTidy = false;
        if (isTidy) return;
        await pause(clock, LONGEST_LOOK_MS);
      }
    },
  };
}
