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
  /** It was its turn while nobody waited to hear it. */
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

/** Until woken, or `ms` have passed. */
export async function doze(clock: Clock, book: AccountBook, ms: number): Promise<void> {
  const { over, wake } = nap(clock, ms);
  book.wake = () => {
    book.wake = undefined;
    wake();
  };
  await over;
  book.wake = undefined;
}

/** A place came free, and it is this relay's turn. */
export function call(book: AccountBook): void {
  book.isCalled = book.wake === undefined;
  book.wake?.();
}

/** Runs `ask` when it is this one's turn, undefined where the deadline came first. `onIdle`: nobody waits any more. */
export async function inTurn<T>(
  clock: Clock,
  book: AccountBook,
  deadline: number,
  ask: () => Promise<T>,
  onIdle: () => void,
): Promise<T | undefined> {
  if (book.asking && !(await turn(clock, book, deadline))) return undefined;
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

/** True when it is this one's turn to ask, false at the deadline. */
function turn(clock: Clock, book: AccountBook, deadline: number): Promise<boolean> {
  return new Promise((resolve) => {
    const go = (): void => {
      cancel();
      resolve(true);
    };
    const cancel = clock.after(Math.max(0, deadline - clock.monotonic()), () => {
      book.turns.splice(book.turns.indexOf(go), 1);
      resolve(false);
    });
    book.turns.push(go);
  });
}
