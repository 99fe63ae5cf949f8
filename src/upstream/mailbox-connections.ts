/**
 * How many connections a mailbox has, whatever its accounts are called: the provider counts them together. In: the
 * pools of its accounts, those that only drain among them. Out: whether one more fits. Who waits for a place gets one
 * of those that only say goodbye, then an idle one of another pool; a pool that is never idle gives one up after a while.
 */
import type { Clock } from '../clock.ts';
import { orMake } from '../or-make.ts';

/** Who has waited so long, and the time between two logins, gets the next place that comes free, one in so long, ms: two busy accounts would only log in. */
const YIELD_AFTER_MS = 2_000;

/** A pool as the others of its mailbox see it. */
export interface Sharer {
  /** Connecting + busy + idle + saying goodbye. */
  readonly open: number;
  /** Connections it may have. */
  most(): number;
  /** Between two logins. */
  loginIntervalMs(): number;
  /** Whether what it allows counts for the mailbox: its account is served. */
  isServed(): boolean;
  /** Since when somebody waits for whom there is no room, monotonic ms. */
  readonly waitsSince: number | undefined;
  /** Cuts a connection that only says goodbye. False where there is none. */
  cutLeaving(): boolean;
  /** Closes a connection that has been idle for long soon, and serves then. False where there is none; serves when there may be one. */
  giveUpIdle(): boolean;
  /** There may be room. */
  serve(): void;
}

export interface MailboxConnections {
  join(sharer: Sharer): void;
  leave(sharer: Sharer): void;
  /** Whether `sharer` may open one more. */
  makeRoom(sharer: Sharer): boolean;
  /** How many it may have beside those of the others; may be below 0. */
  roomFor(sharer: Sharer): number;
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
  /** What the others leave of the most that any account served now allows. */
  function leftFor(sharer: Sharer): number {
    let most = sharer.most();
    let others = 0;
    for (const other of sharers) {
      if (other === sharer) continue;
      others += other.open;
      if (other.isServed()) most = Math.max(most, other.most());
    }
    return most - others;
  }
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
    roomFor: (sharer) => Math.min(sharer.most(), leftFor(sharer)),
    makeRoom(sharer) {
      if (due === sharer || due?.waitsSince === undefined) due = undefined;
      while (sharer.open >= sharer.most() && sharer.cutLeaving());
      if (sharer.open >= sharer.most()) return false;
      let missing = sharer.open + (due === undefined ? 1 : 2) - leftFor(sharer);
      for (const each of [sharer, ...sharers]) while (missing > 0 && each.cutLeaving()) missing--;
      return missing <= 0;
    },
    askForIdle(sharer) {
      othersOf(sharer).some((other) => other.giveUpIdle());
    },
    isDueElsewhere(sharer) {
      const now = clock.monotonic();
      const [first] = waitingBeside(sharer);
      if (first?.waitsSince === undefined) return false;
      if (now - Math.max(first.waitsSince, dueAt) < YIELD_AFTER_MS + first.loginIntervalMs()) return false;
      due = first;
      dueAt = now;
      return true;
    },
    pass(sharer) {
      // Whoever is served now serves nobody else: what comes free comes later.
      if (isPassing) return;
      isPassing = true;
      const waiting = waitingBeside(sharer);
      for (const other of due === undefined || due === sharer ? waiting : [due, ...waiting]) {
        other.serve();
        // Nor is there a place for those who came after it.
        if (other.waitsSince !== undefined) break;
      }
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
