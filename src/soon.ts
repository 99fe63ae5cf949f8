/** What is mostly known at once: only where it is not does anybody wait, and pay for a promise. */
export type Soon<T> = T | Promise<T>;
