/**
 * Who waits for a place in the limits of one mailbox, within this relay: one asks, the others wait their turn. In:
 * messages that want a place, calls that one came free. Out: whose turn it is. Owns the waiting.
 */
import { type Clock, nap } from '../clock.ts';
import { MailboxCounts } from '../relay/mailbox-counts.ts';

export interface AccountBook {
  readonly id: string;
  readonly counts: MailboxCounts;
  /** Somebody is asking; the others wait their turn. */
  asking: boolean;
  readonly turns: (() => void)[];
  /** Wakes the one who waits for a place. */
  wake: (() => void) | undefined;
  /** It stands in the queue in Redis. */
  stands: boolean;
  /** It is its turn, and it has not asked since. */
  isCalled: boolean;
  nextLogin: number;
  /** Something was counted that Redis was not told. */
  isUntold: boolean;
}

export const createAccountBook = (id: string): AccountBook => ({
  id,
  counts: new MailboxCounts(),
  asking: false,
  turns: [],
  wake: undefined,
  stands: false,
  isCalled: false,
  nextLogin: 0,
  isUntold: false,
});

/** Until woken or `withdrawn`, or `ms` have passed. */
export async function doze(
  clock: Clock,
  book: AccountBook,
  ms: number,
  withdrawn: AbortSignal | undefined,
): Promise<void> {
  const { over, wake } = nap(clock, ms, withdrawn);
  book.wake = () => {
    book.wake = undefined;
    wake();
  };
  await over;
  book.wake = undefined;
}

/** A place came free, and it is this relay's turn. */
export function call(book: AccountBook): void {
  book.isCalled = true;
  book.wake?.();
}

/** Runs `ask` when it is this one's turn, undefined where the deadline came first or it is `withdrawn`. `onIdle`: nobody waits any more. */
export async function inTurn<T>(
  clock: Clock,
  book: AccountBook,
  deadline: number,
  withdrawn: AbortSignal | undefined,
  ask: () => Promise<T>,
  onIdle: () => void,
): Promise<T | undefined> {
  if (book.asking && !(await turn(clock, book, deadline, withdrawn))) return undefined;
  book.asking = true;
  try {
    return await ask();
  } finally {
    const next = book.turns.shift();
    if (next !== undefined) next();
    else {
      book.asking = false;
      onIdle();
    }
  }
}

/** True when it is this one's turn to ask, false at the deadline or when it is withdrawn. */
async function turn(
  clock: Clock,
  { turns }: AccountBook,
  deadline: number,
  withdrawn: AbortSignal | undefined,
): Promise<boolean> {
  const { over, wake } = nap(clock, Math.max(0, deadline - clock.monotonic()), withdrawn);
  turns.push(wake);
  await over;
  const at = turns.indexOf(wake);
  // Whose turn it is stands there no more.
  if (at < 0) return true;
  turns.splice(at, 1);
  return false;
}
