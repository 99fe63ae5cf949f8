/**
 * Places at once that this relay holds. In: what Redis granted, messages that begin and end. Out: whether a place is
 * surely this relay's still. Owns the extending, and the lending of places whose clients dawdle. A relay that was
 * stopped for a while, its machine perhaps with it, takes no place that Redis may have given to others meanwhile.
 */
import { type Clock, every } from '../clock.ts';
import type { Held } from './redis-limits.ts';
import { LEASE_MS } from './share.ts';

const EXTEND_EVERY_MS = 4_000;
/** A client that dawdles between MAIL and the end of its message keeps no place at once longer than about this, ms. */
const PARK_AFTER_MS = 3_000;

export interface Leases {
  /** Redis was asked at `askedAt`, monotonic ms, and has granted it for `waitMs` later; undefined: it was not asked. */
  granted(mailboxId: string, id: string, askedAt: number | undefined, waitMs: number): void;
  /** Its message begins. False where the place may be others' by now; then it is lent. */
  claim(id: string): boolean;
  /** It is over. */
  end(id: string): void;
  close(): void;
}

interface Granted {
  readonly mailboxId: string;
  /** When its message may begin, monotonic ms. */
  readonly from: number;
  /** Redis gives it to nobody else before, monotonic ms and ms since the epoch: of a machine that was stopped one of them stood still. */
  until: readonly [monotonic: number, wall: number];
}

export function createLeases(deps: {
  readonly clock: Clock;
  /** All that is held now; undefined while Redis is away. `isWaiting`: its message has not begun. */
  readonly held: (isWaiting: (id: string) => boolean) => readonly Held[] | undefined;
  /** Rejects never; undefined: Redis did not answer. */
  readonly extend: (held: readonly Held[]) => Promise<readonly Held[] | undefined>;
  /** The place at once is for others, the message takes another when it comes. */
  readonly lend: (mailboxId: string, id: string) => void;
}): Leases {
  const { clock } = deps;
  /** Granted, and nothing has begun upstream yet. */
  const unclaimed = new Map<string, Granted>();

  const sureFrom = (askedAt: number): Granted['until'] => [
    askedAt + LEASE_MS,
    clock.now() - (clock.monotonic() - askedAt) + LEASE_MS,
  ];
  const isSure = ({ until: [monotonic, wall] }: Granted): boolean =>
    clock.monotonic() < monotonic && clock.now() < wall;

  function lend(id: string, { mailboxId }: Granted): void {
    unclaimed.delete(id);
    deps.lend(mailboxId, id);
  }

  async function extend(): Promise<void> {
    for (const [id, lease] of unclaimed) if (clock.monotonic() - lease.from >= PARK_AFTER_MS) lend(id, lease);
    const held = deps.held((id) => unclaimed.has(id));
    if (held === undefined) return;
    const askedAt = clock.monotonic();
    const until = sureFrom(askedAt);
    const ended = await deps.extend(held);
    if (ended === undefined) return;
    for (const { id } of held) {
      const lease = unclaimed.get(id);
      if (lease !== undefined) lease.until = until;
    }
    for (const { id } of ended) {
      const lease = unclaimed.get(id);
      if (lease !== undefined) lend(id, lease);
    }
  }

  const stop = every(clock, EXTEND_EVERY_MS, extend);

  return {
    granted(mailboxId, id, askedAt, waitMs) {
      const until: Granted['until'] =
        askedAt === undefined
          ? [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
          : sureFrom(askedAt + waitMs);
      unclaimed.set(id, { mailboxId, from: clock.monotonic() + waitMs, until });
    },
    claim(id) {
      const lease = unclaimed.get(id);
      if (lease === undefined) return false;
      if (!isSure(lease)) {
        lend(id, lease);
        return false;
      }
      unclaimed.delete(id);
      return true;
    },
    end: (id) => void unclaimed.delete(id),
    close: stop,
  };
}
