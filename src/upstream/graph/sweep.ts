/**
 * Deletes drafts that were left in mailboxes: of messages that the mail server has given up, 5 days after
 * they were noted. In: what is noted, and clients of the mailboxes. Out: nothing; a draft is deleted only
 * where it is seen as one and no other message's, and what is not clear is left alone.
 */
import { type Clock, systemClock } from '../../clock.ts';
import type { Log } from '../../log.ts';
import type { GraphClient } from './client.ts';
import { hashOf, KEEP_MS, type Ledger, type LedgerRow } from './ledger.ts';
import { setOf } from './outcome.ts';

const EVERY_MS = 60 * 60_000;
const FIRST_MS = 10 * 60_000;
const LOOK_MS = 20_000;

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
  let isClosed = false;
  let cancel = clock.after(FIRST_MS, tick);

  function tick(): void {
    void run().then(() => {
      if (!isClosed) cancel = clock.after(EVERY_MS, tick);
    });
  }

  async function run(): Promise<void> {
    let deleted = 0;
    try {
      const oldest = clock.now() - KEEP_MS;
      for (const row of await ledger.list()) {
        if (isClosed) return;
        if (row.entry.at < oldest) deleted += await sweepOne(row);
      }
    } catch (error) {
      log.warn(
        { event: 'graph_sweep_failed', reason: (error as Error).message },
        'left-over drafts could not be looked for',
      );
    }
    if (deleted > 0)
      log.info({ event: 'graph_swept', deleted }, 'drafts of messages given up 5 days ago were deleted');
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
          await claim.forget();
          return isUnsent ? 1 : 0;
        }
        case 'creating': {
          const { messageId, to } = known.subject ?? {};
          if (messageId === undefined) return 0;
          const found = await client.search(messageId);
          if (found.kind !== 'ok') return 0;
          let count = 0;
          for (const { id, isDraft, recipients } of found.value) {
            if (!isDraft || recipients === undefined || hashOf(setOf(recipients)) !== to) continue;
            const owner = await ledger.ownerOf(id);
            if (owner !== undefined && owner !== key) continue;
            if ((await client.remove(id)).kind !== 'ok') return count;
            count++;
          }
          await claim.forget();
          return count;
        }
        default:
          return 0;
      }
    } finally {
      await claim.release();
    }
  }

  return {
    run,
    close() {
      isClosed = true;
      cancel();
    },
  };
}
