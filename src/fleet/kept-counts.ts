/**
 * What this relay counted, kept in its state directory for the time in which Redis may be away when it starts again.
 * In: what is counted, what an earlier process left. Out: JSON, and what is told to Redis in the name of the earlier
 * processes: it counts what it does not know of them. Owns what they left, for a day.
 */
import { type Clock, systemClock } from '../clock.ts';
import { isRecord } from '../protocol/json-object.ts';
import { BUCKET_MS, BUCKETS, type CountsTold, isCount, isDay } from '../relay/mailbox-counts.ts';

const DAY_MS = BUCKETS * BUCKET_MS;

/** A process and what it counted by mailbox; JSON. */
interface Kept {
  readonly teller: string;
  readonly accounts: Readonly<Record<string, CountsTold>>;
}

export interface KeptCounts {
  /** `accounts`: what this process did. */
  snapshot(accounts: Readonly<Record<string, CountsTold>>): unknown;
  /** What earlier processes did, by mailbox. Throws where `kept` is nothing it gave. */
  restore(kept: unknown): readonly (readonly [mailboxId: string, told: CountsTold])[];
  /** All of it, to be told. */
  all(): readonly (readonly [teller: string, mailboxId: string, told: CountsTold])[];
}

export function createKeptCounts({
  teller,
  clock = systemClock,
}: {
  readonly teller: string;
  readonly clock?: Clock;
}): KeptCounts {
  let earlier: readonly Kept[] = [];

  /** Without what is older than a day. */
  function tidy(all: readonly Kept[]): readonly Kept[] {
    const since = clock.now() - DAY_MS;
    return all
      .map(({ teller, accounts }) => ({
        teller,
        accounts: Object.fromEntries(Object.entries(accounts).filter(([, told]) => told.at > since)),
      }))
      .filter(({ accounts }) => Object.keys(accounts).length > 0);
  }

  return {
    snapshot(accounts) {
      earlier = tidy(earlier);
      return [...tidy([{ teller, accounts }]), ...earlier];
    },
    restore(kept) {
      if (!Array.isArray(kept) || !kept.every(isKept)) throw new Error('no counts');
      // Nothing of them is under way any more.
      earlier = tidy(kept).map(({ teller, accounts }) => ({
        teller,
        accounts: Object.fromEntries(
          Object.entries(accounts).map(([id, told]) => [id, { ...told, held: [] }]),
        ),
      }));
      return earlier.flatMap(({ accounts }) => Object.entries(accounts));
    },
    all: () =>
      earlier.flatMap(({ teller, accounts }) =>
        Object.entries(accounts).map(([id, told]) => [teller, id, told] as const),
      ),
  };
}

function isKept(value: unknown): value is Kept {
  return (
    isRecord(value) &&
    typeof value.teller === 'string' &&
    isRecord(value.accounts) &&
    Object.values(value.accounts).every(isTold)
  );
}

function isTold(value: unknown): value is CountsTold {
  if (!isRecord(value)) return false;
  const { at, sent, total, day } = value;
  return (
    isCount(at) &&
    Array.isArray(sent) &&
    sent.every((each) => Array.isArray(each) && typeof each[0] === 'string' && typeof each[1] === 'number') &&
    isRecord(total) &&
    isCount(total.m) &&
    isCount(total.r) &&
    isDay(day)
  );
}
