/** Whether a relay could open what it opens, without being one. In: things that open and close. Out: why some would not. */

/** Something of the relay that is opened at its start. */
export interface Openable {
  open(): Promise<unknown>;
  close(): Promise<void> | void;
}

/** Opens each for a moment. Resolves with the errors of those that cannot be had; never rejects. */
export async function tryOpening(things: readonly Openable[]): Promise<readonly unknown[]> {
  const errors: unknown[] = [];
  const opened: Openable[] = [];
  // Each stays open until all are, as in a relay: two of its own may want the same address.
  for (const thing of things)
    try {
      await thing.open();
      opened.push(thing);
    } catch (error) {
      errors.push(error);
    }
  for (const thing of opened.reverse()) await thing.close();
  return errors;
}
