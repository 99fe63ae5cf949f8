/**
 * How much of a turn of the event loop goes into what clients send. In: work, and what it cost. Out: the same
 * work, now or in a later turn: whatever clients pipeline, and however many do, everybody else has his turn
 * after some milliseconds. Costs are estimates: a loop that is not loaded never comes near them.
 */

/** A command line; the longest take some 50 us. */
export const LINE_COST = 1;
/** Octets of a body that had to be looked at one by one, for each cost of 1. */
export const COSTLY_OCTETS = 256;

/** Of one turn; the last piece of work may go beyond it. */
const SHARE = 200;
/** Up to here it is not even measured where a turn ends. */
const UNMEASURED = 16;

export interface TurnShare {
  /** This turn has had its share. */
  readonly isSpent: boolean;
  spend(cost: number): void;
  /** Calls `work` at once, or where the share is spent in a later turn, in the order of coming. */
  whenLeft(work: () => void): void;
}

export function createTurnShare(): TurnShare {
  const waiting: (() => void)[] = [];
  let spent = 0;
  let isTurnEnding = false;

  function endTurn(): void {
    isTurnEnding = false;
    spent = 0;
    while (waiting.length > 0 && spent < SHARE) waiting.shift()?.();
    if (waiting.length > 0) planEnd();
  }

  function planEnd(): void {
    if (isTurnEnding) return;
    isTurnEnding = true;
    setImmediate(endTurn);
  }

  return {
    get isSpent() {
      return spent >= SHARE;
    },
    spend(cost) {
      spent += cost;
      if (spent >= UNMEASURED) planEnd();
    },
    whenLeft(work) {
      if (spent < SHARE && waiting.length === 0) work();
      else waiting.push(work);
    },
  };
}
