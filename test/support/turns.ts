/** Counts turns of the event loop until `stop`. */
export function countTurns(): { readonly now: () => number; readonly stop: () => void } {
  let turns = 0;
  let isOver = false;
  const turn = (): void => {
    turns++;
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  return {
    now: () => turns,
    stop: () => {
      isOver = true;
    },
  };
}
