/**
 * Messages of which nobody knows whether Graph sent them, for the person who decides. In: what is noted of
 * them, and a decision. Out: a list; what the next retry of the mail server hears.
 */
import { type Clock, systemClock } from '../../clock.ts';
import { CLAIM_MS, hashOf, type Ledger, type LedgerEntry } from './ledger.ts';

export interface UnclearMessage {
  /** Names it in a decision. */
  readonly key: string;
  /** Account id. */
  readonly account: string | undefined;
  /** With angle brackets; undefined where it has none. */
  readonly messageId: string | undefined;
  /** First attempt or last note, ms since the epoch. */
  readonly since: number;
  readonly why: string;
  /** `person`: nothing else will clear it. `retry`: the mail server's next retry looks again. */
  readonly clears: 'person' | 'retry';
}

/** `delivered`: its next retry hears 250 and nothing is sent. `again`: its next retry is sent. */
export type UnclearDecision = 'delivered' | 'again';

export interface UnclearMessages {
  /** Oldest first. Rejects where it cannot be known (Redis is away). */
  list(): Promise<readonly UnclearMessage[]>;
  /** `none`: no such unclear message. `busy`: it is worked on now. Rejects where it cannot be noted. */
  decide(key: string, decision: UnclearDecision): Promise<'done' | 'none' | 'busy'>;
}

export function createUnclearMessages(
  ledger: Pick<Ledger, 'list' | 'claim'>,
  clock: Clock = systemClock,
  /** Whether the retry of a message of the account can find out what became of it. */
  canLook: (accountId: string) => boolean = () => true,
): UnclearMessages {
  /** One call that is still under way is not unclear yet. */
  const isUnclear = ({ state, at, unclear }: LedgerEntry): boolean =>
    state !== 'sent' && (unclear !== undefined || (state === 'sending' && at < clock.now() - CLAIM_MS));

  function clearsBy(entry: LedgerEntry): UnclearMessage['clears'] {
    if (entry.state === 'sending' || entry.called === true) return 'person';
    const { account } = entry.subject ?? {};
    return account === undefined || canLook(account) ? 'retry' : 'person';
  }

  return {
    async list() {
      return (await ledger.list())
        .filter(({ entry }) => isUnclear(entry))
        .map(({ key, entry }) => ({
          key,
          account: entry.subject?.account,
          messageId: entry.subject?.messageId,
          since: entry.at,
          why: entry.unclear ?? 'the relay ended before Graph answered',
          clears: clearsBy(entry),
        }));
    },
    async decide(key, decision) {
      const claim = await ledger.claim(key);
      if (claim === 'busy') return 'busy';
      try {
        const { known } = claim;
        if (known === undefined || !isUnclear(known)) return 'none';
        const { subject } = known;
        const noted = { at: clock.now(), ...(subject === undefined ? {} : { subject }) };
        if (decision === 'delivered') await claim.note({ state: 'sent', ...noted, ...besideOf(known) });
        // A draft that was made may still be there: the retry adopts it, or it is deleted in time.
        else if (known.state === 'draft') await claim.note({ state: 'creating', ...noted, at: known.at });
        else await claim.forget();
        return 'done';
      } finally {
        await claim.release();
      }
    },
  };
}

/** What may be in the mailbox of one that was sent: its copy, and drafts. By whichever way it went: the noted one may be left, too. */
function besideOf(known: LedgerEntry): Pick<Extract<LedgerEntry, { state: 'sent' }>, 'copy' | 'leftovers'> {
  if (known.state !== 'draft') return {};
  const { draft, leftoversSince: since = known.at, subject } = known;
  return { copy: hashOf(draft), ...(subject === undefined ? {} : { leftovers: { since } }) };
}
