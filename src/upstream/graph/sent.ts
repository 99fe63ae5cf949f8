/**
 * What is kept of a message that was sent. In: a message and whether its client has heard the 250. Out: a note.
 * Until that is known a retry may come, to some of its recipients too.
 */
import { type Claim, isOpen, type Ledger, type LedgerEntry, type Subject, textsOf } from './ledger.ts';
import { type GraphEnding, takenAs } from './outcome.ts';
import type { Outgoing } from './outgoing.ts';

type SentEntry = Extract<LedgerEntry, { state: 'sent' }>;

/** What is needed to find it, and no more. */
const whereabouts = (subject: Subject): Subject => ({
  account: subject.account,
  ...textsOf(subject, ['messageId', 'to', 'name']),
});

/** `entry` with its whole subject. */
export async function noteSent(
  ledger: Pick<Ledger, 'claim'>,
  outgoing: Outgoing,
  claim: Claim,
  entry: SentEntry,
): Promise<GraphEnding> {
  const { key, isNamed } = outgoing;
  // A retry comes: of what nobody heard, or to the recipients that this one had not.
  const isAwaited = outgoing.mayNotHear() || outgoing.partOf !== undefined;
  // The next one that looks the same may be another: a device says the same thing every hour.
  if (!isNamed && !isAwaited) await claim.forget();
  // The draft itself says the same, so a failure to note it costs nothing but a look.
  else await claim.note(entry).catch(() => undefined);
  const ending = takenAs(outgoing, entry.messageId);
  // It may read on all the same.
  if (isAwaited && !isNamed && outgoing.partOf === undefined)
    return {
      ...ending,
      keepsClaim: true,
      async whenHeard(heard) {
        if (heard !== 'no') await claim.forget();
        await claim.release();
      },
    };
  if (isAwaited) return ending;
  return {
    ...ending,
    async whenHeard(heard) {
      if (isNamed ? heard !== 'yes' : heard !== 'no') return;
      const later = await ledger.claim(key);
      if (later === 'busy') return;
      try {
        if (!isNamed) {
          if (later.known === undefined) await later.note(entry);
        } else if (later.known?.state === 'sent' && later.known.at === entry.at && isOpen(later.known))
          await later.note(closed(later.known));
      } finally {
        await later.release();
      }
    },
  };
}

/** No retry comes: only what is left to be tidied up counts, and that others may have its name. */
export function closed({ subject, ...rest }: SentEntry): SentEntry {
  if (subject === undefined) return rest;
  if (rest.leftovers !== undefined) return { ...rest, subject: whereabouts(subject) };
  const { account, name } = subject;
  return name === undefined ? rest : { ...rest, subject: { account, name } };
}
