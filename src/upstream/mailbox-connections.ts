/**
 * How many connections a mailbox has, whatever its accounts are called: the provider counts them together. In: the
 * pools of its accounts, those that only drain among them. Out: whether one more fits. Who waits for a place gets one
 * of those that only say goodbye, then an idle one of another pool; a pool that is never idle gives one up after a while.
 */
import type { Clock } from '../clock.ts';
import { orMake } from '../or-make.ts';

/** Who has waited so long for a place gets the next that comes free, one in so long, ms: two busy accounts would only log in. */
const YIELD_AFTER_MS = 2_000;

/** A pool as the others of its mailbox see it. */
export interface Sharer {
  /** Connecting + busy + idle + saying goodbye. */
  readonly open: number;
  /** Since when somebody waits for whom there is no room, monotonic ms. */
  readonly waitsSince: number | undefined;
  /** Cuts a connection that only says goodbye. False where there is none. */
  cutLeaving(): boolean;
  /** Closes an idle connection soon, and serves then. False where there is none. */
  giveUpIdle(): boolean;
  /** There may be room. */
  serve(): void;
}

export interface MailboxConnections {
  join(sharer: Sharer): void;
  leave(sharer: Sharer): void;
  /** Whether `sharer`, which allows the mailbox `most`, may open one more. */
  makeRoom(sharer: Sharer, most: number): boolean;
  /** Connections of all the others. */
  besides(sharer: Sharer): number;
  /** Another pool closes an idle connection, where one has any. */
  askForIdle(sharer: Sharer): void;
  /** Whether what becomes idle is closed, because another pool has waited too long; its place is kept for that one. */
  isDueElsewhere(sharer: Sharer): boolean;
  /** Something may have come free: who waits elsewhere is served. */
  pass(sharer: Sharer): void;
}

export function createMailboxConnections(
  clock: Clock,
  onEmpty: () => void = () => undefined,
): MailboxConnections {
  const sharers = new Set<Sharer>();
  let isPassing = false;
  /** Whose the next place is. */
  let due: Sharer | undefined;
  let dueAt = Number.NEGATIVE_INFINITY;

  const othersOf = (sharer: Sharer): readonly Sharer[] =>
    sharers.size === 1 ? [] : [...sharers].filter((other) => other !== sharer);
  const besides = (sharer: Sharer): number => othersOf(sharer).reduce((sum, other) => sum + other.open, 0);
  const waitingBeside = (sharer: Sharer): readonly Sharer[] =>
    othersOf(sharer)
      .filter(({ waitsSince }) => waitsSince !== undefined)
      .sort((a, b) => (a.waitsSince ?? 0) - (b.waitsSince ?? 0));

  return {
    join: (sharer) => void sharers.add(sharer),
    leave(sharer) {
      sharers.delete(sharer);
      if (sharers.size === 0) onEmpty();
    },
    besides,
    makeRoom(sharer, most) {
      if (due === sharer || due?.waitsSince === undefined) due = undefined;
      const kept = due === undefined ? 0 : 1;
      const hasRoom = (): boolean => sharer.open + besides(sharer) + kept < most;
      for (const each of [sharer, ...othersOf(sharer)]) while (!hasRoom() && each.cutLeaving());
      return hasRoom();
    },
    askForIdle(sharer) {
      othersOf(sharer).some((other) => other.giveUpIdle());
    },
    isDueElsewhere(sharer) {
      const now = clock.monotonic();
      const [first] = waitingBeside(sharer);
      if (first?.waitsSince === undefined || now - first.waitsSince < YIELD_AFTER_MS) return false;
      if (now - dueAt < YIELD_AFTER_MS) return false;
      due = first;
      dueAt = now;
      return true;
    },
    pass(sharer) {
      // Whoever is served now serves nobody else: what comes free comes later.
      if (isPassing) return;
      isPassing = true;
      for (const other of waitingBeside(sharer)) other.serve();
      isPassing = false;
    },
  };
}

/** Those of all mailboxes that have a pool, by name. */
export function createAllMailboxConnections(clock: Clock): (mailbox: string) => MailboxConnections {
  const mailboxes = new Map<string, MailboxConnections>();
  return (mailbox) =>
    orMake(mailboxes, mailbox, () => createMailboxConnections(clock, () => mailboxes.delete(mailbox)));
}
