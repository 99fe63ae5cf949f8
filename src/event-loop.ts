/** Turns of the event loop that all share. In: who waits for one, what is to be done in it. Out: each in its turn. */

/** Who rests, in the order in which they go on. */
const resting: (() => void)[] = [];

function wakeNext(): void {
  resting.shift()?.();
  if (resting.length > 0) setImmediate(wakeNext);
}

const tasks: (() => void)[] = [];

function runTasks(): void {
  for (const task of tasks.splice(0)) task();
}

/** That of this process. Another takes its place where one process stands for several, as in a simulation. */
export const eventLoop = {
  /** Resolves in a turn of the loop in which nobody else goes on. */
  turn: (): Promise<void> =>
    new Promise((resume) => {
      if (resting.push(resume) === 1) setImmediate(wakeNext);
    }),
  /**
   * Calls `task` when the turn ends, with those of all others. What all connections write leaves in one go so, and who
   * reads it on the same machine is woken once for it: a third of what a write costs is to wake somebody.
   */
  atTurnEnd(task: () => void): void {
    if (tasks.push(task) === 1) setImmediate(runTasks);
  },
};
