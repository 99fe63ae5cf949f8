/**
 * Deletes drafts that were left in mailboxes: of messages that the mail server has given up, 5 days after
 * they were noted; of one that was sent, those beside the one that was. In: what is noted, and clients of the
 * mailboxes. Out: nothing; a draft is deleted only where it is seen as one and no other message's, and what is not
 * clear is left alone.
 */
import { type Clock, every, systemClock } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { type GraphClient, MOST_FOUND } from './client.ts';
import {
  hashOf,
  isOpen,
  KEEP_MS,
  type Ledger,
  type LedgerRow,
  type Subject,
  withoutSteps,
} from './ledger.ts';
import { namesakesOf } from './mailbox-search.ts';
import { setOf } from './outcome.ts';
import { closed } from './sent.ts';

const EVERY_MS = 60 * 60_000;
const FIRST_MS = 10 * 60_000;
const LOOK_MS = 20_000;
/** A request that had no answer may be carried out so late, ms. */
const LATE_MS = 10 * 60_000;

export interface Sweep {
  /** One round now. Never rejects. */
  run(): Promise<void>;
  close(): void;
}

export function createSweep(deps: {
  readonly ledger: Ledger;
  /** Undefined for an account that is not served or may not look. */
  readonly clientOf: (accountId: string) => GraphClient | undefined;
  readonly log: Log;
  readonly clock?: Clock;
}): Sweep {
  const { ledger, clientOf, log, clock = systemClock } = deps;
  const today = withoutSteps(clock);
  let isClosed = false;
  const endRounds = every(clock, EVERY_MS, run, FIRST_MS);

  async function run(): Promise<void> {
    let deleted = 0;
    try {
      const [late, old] = [clock.now() - LATE_MS, today() - KEEP_MS];
      for (const row of await ledger.list()) {
        if (isClosed) return;
        if (row.entry.at < (row.entry.state === 'sent' ? late : old)) deleted += await sweepOne(row);
      }
    } catch (error) {
      log.warn(
        { event: 'graph_sweep_failed', reason: (error as Error).message },
        'left-over drafts could not be looked for',
      );
    }
    if (deleted > 0) log.info({ event: 'graph_swept', deleted }, 'drafts left over were deleted');
  }

  /** How many were deleted. */
  async function sweepOne({ key, entry }: LedgerRow): Promise<number> {
    const client = entry.subject && clientOf(entry.subject.account);
    if (client === undefined) return 0;
    const claim = await ledger.claim(key);
    if (claim === 'busy') return 0;
    try {
      const { known } = claim;
      // A retry came meanwhile.
      if (known === undefined || known.at !== entry.at) return 0;
      switch (known.state) {
        case 'draft': {
          const seen = await client.look(known.draft, LOOK_MS);
          if (seen.kind !== 'ok') return 0;
          const isUnsent = seen.value !== 'none' && seen.value.isDraft;
          if (isUnsent && (await client.remove(known.draft)).kind !== 'ok') return 0;
          const beside =
            known.leftoversSince === undefined
              ? { isDone: true, count: 0 }
              : await removeDrafts(client, key, known.subject, known.draft);
          if (beside.isDone) await claim.forget();
          return beside.count + (isUnsent ? 1 : 0);
        }
        case 'creating': {
          const { isDone, count } = await removeDrafts(client, key, known.subject);
          if (isDone) await claim.forget();
          return count;
        }
        case 'sent': {
          const { leftovers, subject, ...rest } = known;
          const { isDone, count } = await removeDrafts(client, key, subject, leftovers?.than);
          // A retry to some of the recipients may still come.
          const tidied = subject === undefined ? rest : { ...rest, subject };
          if (isDone) await claim.note(isOpen(tidied) ? tidied : closed(tidied));
          return count;
        }
        default:
          return 0;
      }
    } finally {
      await claim.release();
    }
  }

  /** Unsent drafts of a message that are no other's, but for one. */
  async function removeDrafts(
    client: GraphClient,
    key: string,
    subject: Subject | undefined,
    but?: string,
  ): Promise<{ readonly isDone: boolean; readonly count: number }> {
    let count = 0;
    const { messageId, to } = subject ?? {};
    if (messageId === undefined || to === undefined) return { isDone: false, count };
    const found = await client.search(messageId, 'drafts');
    if (found.kind !== 'ok') return { isDone: false, count };
    // Asked only now: whatever was seen was noted before.
    if ((await namesakesOf(ledger, { messageId, to, key, now: clock.now() })) === 'being made')
      return { isDone: false, count };
    for (const { id, isDraft, recipients } of found.value) {
      if (!isDraft || id === but || recipients === undefined || hashOf(setOf(recipients)) !== to) continue;
      const owner = await ledger.ownerOf(id);
      if (owner !== undefined && owner !== key) continue;
      if ((await client.remove(id)).kind !== 'ok') return { isDone: false, count };
      count++;
    }
    // There may be more.
    return { isDone: count === 0 || found.value.length < MOST_FOUND, count };
  }

  return {
    run,
    close() {
      isClosed = true;
      endRounds();
    },
  };
}
