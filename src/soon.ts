/** What is mostly known at once: only where it is not does anybody wait, and pay for a promise. */
export type Soon<T> = T | Promise<T>;

/** Goes on with the value: now where it is known. */
export const whenKnown = <T, R>(value: Soon<T>, then: (known: T) => Soon<R>): Soon<R> =>
  value instanceof Promise ? value.then(then) : then(value);
