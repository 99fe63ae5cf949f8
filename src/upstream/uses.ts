/**
 * The open connections of a pool, by their use. In: what each is used for from now on. Out: how many there are of each,
 * and which. A change of use changes no table: two sets would be built anew every few messages.
 */
export type Use = 'busy' | 'idle';

export interface Uses<T> {
  /** `undefined`: it is no longer the pool's. */
  set(connection: T, use: Use | undefined): void;
  of(connection: T): Use | undefined;
  /** In the order in which they were opened. */
  all(use: Use): readonly T[];
  readonly busy: number;
  readonly idle: number;
}

export function createUses<T>(): Uses<T> {
  const uses = new Map<T, Use>();
  const number = { busy: 0, idle: 0 };
  return {
    set(connection, use) {
      const before = uses.get(connection);
      if (before !== undefined) number[before]--;
      if (use === undefined) {
        uses.delete(connection);
        return;
      }
      uses.set(connection, use);
      number[use]++;
    },
    of: (connection) => uses.get(connection),
    all: (use) => [...uses].flatMap(([connection, its]) => (its === use ? [connection] : [])),
    get busy() {
      return number.busy;
    },
    get idle() {
      return number.idle;
    },
  };
}
