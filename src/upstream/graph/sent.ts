/**
 * What is kept of a message that was sent. In: a message and whether its client has heard the 250. Out: a note.
 * Until that is known a retry may come, to some of its recipients too.
 */
import {
  type Claim,
  type Hearing,
  hashOf,
  isOpen,
  type Ledger,
  type LedgerEntry,
  markOf,
  type Subject,
  textsOf,
} from './ledger.ts';
import { type GraphEnding, takenAs } from './outcome.ts';
import type { Outgoing } from './outgoing.ts';

export type SentEntry = Extract<LedgerEntry, { state: 'sent' }>;

const hearingOf = ({ family, recipients }: Outgoing): Hearing => ({ family, marks: recipients.map(markOf) });

/** What is needed to find it, and no more. */
const whereabouts = (subject: Subject): Subject => ({
  account: subject.account,
  ...textsOf(subject, ['messageId', 'to', 'name']),
});

/**
 * `entry` with its whole subject. A recipient's mark stands in it while a retry to him may come: that of one who has heard,
 * or counts as having heard, is taken out, whoever else was mailed with him.
 */
export async function noteSent(
  ledger: Pick<Ledger, 'claim'>,
  outgoing: Outgoing,
  claim: Claim,
  entry: SentEntry,
): Promise<GraphEnding> {
  const { isNamed } = outgoing;
  // The next one that looks the same may be another: a device says the same thing every hour.
  const isClosed = !isNamed && !outgoing.mayNotHear() && (await putHeard(claim, entry, outgoing));
  // A retry comes of what nobody heard. The draft itself says the same, so a failure to note it costs nothing but a look.
  if (!isClosed) await put(claim, entry);
  const keepsClaim = !isNamed && !isClosed;
  return {
    ...takenAs(outgoing, entry.messageId),
    keepsClaim,
    async whenHeard(heard) {
      const isHeard = isNamed ? heard === 'yes' : heard !== 'no';
      const isOurs = keepsClaim && outgoing.isAlone !== true;
      if (isOurs && (await (isHeard ? putHeard(claim, entry, outgoing) : put(claim, entry)))) {
        await claim.release();
        return;
      }
      if (isClosed && isHeard) return;
      const noted = () => amend(ledger, outgoing, entry, claim, isHeard);
      if (isClosed) await whileNoOther(ledger, outgoing, noted);
      else if (keepsClaim || isHeard) await noted();
    },
  };
}

/** Another to the same recipients may be on its way, by their own key where this one has that of the attempt before. */
async function whileNoOther(
  ledger: Pick<Ledger, 'claim'>,
  { key, keyFor, recipients }: Outgoing,
  work: () => Promise<void>,
): Promise<void> {
  const own = keyFor(recipients);
  if (own === key) return work();
  const claim = await ledger.claim(own);
  if (claim === 'busy') throw new Error('another to the same recipients is on its way');
  return work().finally(() => claim.release());
}

/** False: it may not have been noted. */
const put = (claim: Claim, entry: SentEntry, hearing?: Hearing): Promise<boolean> =>
  claim.note(entry, hearing).then(
    () => true,
    () => false,
  );

/** As `put`: its recipients have heard of it. */
function putHeard(claim: Claim, entry: SentEntry, outgoing: Outgoing): Promise<boolean> {
  const hearing = hearingOf(outgoing);
  const own = new Set(hearing.marks);
  const each = (entry.subject?.each ?? []).filter((mark) => !own.has(mark));
  if (entry.subject !== undefined && each.length > 0)
    return put(claim, { ...entry, subject: { ...entry.subject, each } }, hearing);
  return outgoing.isNamed ? put(claim, closed(entry)) : claim.close(hearing);
}

/**
 * What is known now is what was noted, what others of its recipients have left of it, or of another that looks the same.
 * Rejects where it is to be tried again.
 */
async function amend(
  ledger: Pick<Ledger, 'claim'>,
  outgoing: Outgoing,
  entry: SentEntry,
  before: Claim,
  isHeard: boolean,
): Promise<void> {
  const claim = await ledger.claim(outgoing.key);
  if (claim === 'busy') throw new Error('somebody works on this very message');
  const { known } = claim;
  const same = sameOf(known, entry);
  let isNoted = true;
  try {
    if (isHeard) {
      if (same !== undefined && isOpen(same)) isNoted = await putHeard(claim, same, outgoing);
    } else if (same !== undefined || known === undefined) {
      // Of whoever has had another since what is heard of that counts.
      const marks = await before.notHeardSince(hearingOf(outgoing));
      if (marks.length > 0) isNoted = await put(claim, withPart(same, entry, marks));
    }
  } finally {
    await claim.release();
  }
  if (!isNoted) throw new Error('it could not be noted whether its client has heard');
}

/** What is known where that is of the same send; that it was sent could not be noted, perhaps. */
function sameOf(known: LedgerEntry | undefined, entry: SentEntry): SentEntry | undefined {
  if (known?.state === 'sent') return known.at === entry.at ? known : undefined;
  if (known?.state === 'draft') return hashOf(known.draft) === entry.copy ? entry : undefined;
  // One call has no draft to be told by: what was begun since, or has no clear end, is another.
  const isSame = known?.state === 'sending' && known.at <= entry.at && known.unclear === undefined;
  return isSame ? entry : undefined;
}

/** These have not heard of it after all. */
function withPart(same: SentEntry | undefined, entry: SentEntry, marks: readonly string[]): SentEntry {
  const { subject } = entry;
  if (subject?.each === undefined) return entry;
  const own = new Set(marks);
  const unheard = [...subject.each.filter((mark) => own.has(mark)), ...(same?.subject?.each ?? [])];
  return { ...entry, subject: { ...subject, each: [...new Set(unheard)] } };
}

/** No retry comes: only what is left to be tidied up counts, and that others may have its name. */
export function closed({ subject, ...rest }: SentEntry): SentEntry {
  if (subject === undefined) return rest;
  if (rest.leftovers !== undefined) return { ...rest, subject: whereabouts(subject) };
  const { account, name } = subject;
  return name === undefined ? rest : { ...rest, subject: { account, name } };
}
