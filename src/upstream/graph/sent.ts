/**
 * What is kept of a message that was sent. In: a message and whether its client has heard the 250. Out: a note.
 * Until that is known a retry may come, to some of its recipients too.
 */
import {
  type Claim,
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
  const { key, isNamed, partOf } = outgoing;
  const mayNotHear = outgoing.mayNotHear();
  // The next one that looks the same may be another: a device says the same thing every hour.
  const isForgotten = !isNamed && !mayNotHear && partOf === undefined;
  if (isForgotten) await claim.forget();
  // A retry comes: of what nobody heard, or to the recipients that this one had not. The draft itself says the same, so a
  // failure to note it costs nothing but a look.
  else await claim.note(entry).catch(() => undefined);
  const ending = takenAs(outgoing, entry.messageId);
  // It may read on all the same.
  if (mayNotHear && !isNamed && partOf === undefined)
    return {
      ...ending,
      keepsClaim: true,
      async whenHeard(heard) {
        if (heard !== 'no') await claim.forget();
        await claim.release();
      },
    };
  if (mayNotHear) return ending;
  return {
    ...ending,
    async whenHeard(heard) {
      const isHeard = isNamed ? heard === 'yes' : heard !== 'no';
      // It is as it was noted.
      if (isForgotten ? isHeard : !isHeard) return;
      const later = await ledger.claim(key);
      if (later === 'busy') return;
      const { known } = later;
      try {
        if (isForgotten) {
          if (known === undefined) await later.note(entry);
        } else if (known?.state === 'sent' && known.at === entry.at && isOpen(known)) {
          const left = partOf === undefined ? undefined : withoutPart(known, outgoing);
          if (left !== undefined || isNamed) await later.note(left ?? closed(known));
          else await later.forget();
        }
      } finally {
        await later.release();
      }
    },
  };
}

/** Its recipients have heard of it; undefined: nobody is left who has not. */
function withoutPart(entry: SentEntry, { recipients }: Outgoing): SentEntry | undefined {
  const heard = new Set(recipients.map(markOf));
  const each = (entry.subject?.each ?? []).filter((mark) => !heard.has(mark));
  return entry.subject === undefined || each.length === 0
    ? undefined
    : { ...entry, subject: { ...entry.subject, each } };
}

/** No retry comes: only what is left to be tidied up counts, and that others may have its name. */
export function closed({ subject, ...rest }: SentEntry): SentEntry {
  if (subject === undefined) return rest;
  if (rest.leftovers !== undefined) return { ...rest, subject: whereabouts(subject) };
  const { account, name } = subject;
  return name === undefined ? rest : { ...rest, subject: { account, name } };
}
