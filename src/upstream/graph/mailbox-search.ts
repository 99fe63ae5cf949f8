/**
 * Looks in the mailbox for what became of a message. In: the id of a draft, or a message. Out: what was
 * seen, and deleted left-over drafts. Nothing is sent here. What the ledger knows as another
 * message's is neither adopted, nor deleted, nor taken for a sent copy: two messages may share a Message-ID.
 */
import { type Clock, pause, systemClock } from '../../clock.ts';
import type { UpstreamError } from '../failure.ts';
import type { GraphClient, GraphMessage } from './client.ts';
import { hashOf, type Ledger } from './ledger.ts';
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
  /** Looks until it is clear, `until` (monotonic) at the latest. A draft is unsent when it still is one `settleMs` after it was first seen so. */
  look(draft: string, until: number, settleMs: number): Promise<Seen>;
  /** A sent copy of the message whose sending began at `at` (wall); undefined: none was seen. */
  findCopy(outgoing: Outgoing, at: number): Promise<GraphMessage | undefined>;
  /** A draft left by an unclear create of this very message. */
  findDraft(outgoing: Outgoing, since: number): Promise<GraphMessage | undefined>;
  /** Deletes drafts that an unclear or throttled create left behind. The sent one may still look like a draft. */
  tidy(outgoing: Outgoing, sentDraft: string, since: number): Promise<void>;
}

const needsPerson = ({ verdict }: UpstreamError): boolean =>
  verdict.class === 'account' || verdict.class === 'app';

export function createMailboxSearch(deps: {
  readonly client: GraphClient;
  readonly ledger: Ledger;
  readonly clock?: Clock;
}): MailboxSearch {
  const { client, ledger, clock = systemClock } = deps;

  /** Messages with this Message-ID and exactly these recipients that are no other message's, no older than `since` (wall); undefined: it could not be asked. */
  async function find(outgoing: Outgoing, since: number): Promise<readonly GraphMessage[] | undefined> {
    if (outgoing.messageId === undefined) return [];
    const found = await client.search(outgoing.messageId);
    if (found.kind !== 'ok') return undefined;
    const wanted = outgoing.partOf?.to ?? hashOf(setOf(outgoing.recipients));
    const own: GraphMessage[] = [];
    for (const m of found.value) {
      if (m.recipients === undefined || hashOf(setOf(m.recipients)) !== wanted) continue;
      if ((m.createdAt ?? Number.POSITIVE_INFINITY) < since - CLOCK_SLACK_MS) continue;
      try {
        const owner = await ledger.ownerOf(m.id);
        if (owner === undefined || owner === outgoing.key) own.push(m);
      } catch {
        return undefined;
      }
    }
    return own;
  }

  return {
    async look(draft, until, settleMs) {
      let draftSince: number | undefined;
      let missingSince: number | undefined;
      let why = 'Graph does not find the draft';
      for (let waitMs = FIRST_LOOK_MS; ; waitMs = Math.min(waitMs * 2, LONGEST_LOOK_MS)) {
        const left = until - clock.monotonic();
        if (left <= 0) return { is: 'unclear', why };
        const seen = await client.look(draft, left);
        const now = clock.monotonic();
        if (seen.kind === 'ok' && seen.value !== 'none') {
          if (!seen.value.isDraft) return { is: 'sent', messageId: seen.value.internetMessageId };
          draftSince ??= now;
          if (now - draftSince >= settleMs) return { is: 'draft' };
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
    findCopy: async (outgoing, at) =>
      (await find(outgoing, at))?.find(
        (m) => !m.isDraft && (m.createdAt ?? Number.NEGATIVE_INFINITY) <= at + SENT_WITHIN_MS,
      ),
    findDraft: async (outgoing, since) => (await find(outgoing, since))?.find((m) => m.isDraft),
    async tidy(outgoing, sentDraft, since) {
      for (let tries = 1; tries <= MAX_TIDIES; tries++) {
        const found = await find(outgoing, since);
        let isTidy = found !== undefined;
        for (const { id, isDraft } of found ?? [])
          if (isDraft && id !== sentDraft && (await client.remove(id)).kind !== 'ok') isTidy = false;
        if (isTidy) return;
        await pause(clock, LONGEST_LOOK_MS);
      }
    },
  };
}
