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

export class TurnShare {
  readonly #waiting: (() => void)[] = [];
  #spent = 0;
  #isTurnEnding = false;

  /** This turn has had its share. */
  get isSpent(): boolean {
    return this.#spent >= SHARE;
  }

  /** Work may be done at once: nothing waits, and the share is not spent. */
  get isFree(): boolean {
    return this.#spent < SHARE && this.#waiting.length === 0;
  }

  spend(cost: number): void {
    this.#spent += cost;
    if (this.#spent >= UNMEASURED) this.#planEnd();
  }

  /** Calls `work` at once, or where the share is spent in a later turn, in the order of coming. */
  whenLeft(work: () => void): void {
    if (this.isFree) work();
    else this.#waiting.push(work);
  }

  #planEnd(): void {
    if (this.#isTurnEnding) return;
    this.#isTurnEnding = true;
    setImmediate(() => this.#endTurn());
  }

  #endTurn(): void {
    this.#isTurnEnding = false;
    this.#spent = 0;
    while (this.#waiting.length > 0 && this.#spent < SHARE) this.#waiting.shift()?.();
    if (this.#waiting.length > 0) this.#planEnd();
  }
}
