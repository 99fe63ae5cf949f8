/**
 * The open connections of a pool, by their use. In: what each is used for from now on. Out: how many there are of each,
 * and which. A change of use changes no table: two sets would be built anew every few messages.
 */
export type Use = 'busy' | 'idle';

export class Uses<T> {
  readonly #uses = new Map<T, Use>();
  readonly #number = { busy: 0, idle: 0 };

  /** `undefined`: it is no longer the pool's. */
  set(connection: T, use: Use | undefined): void {
    const before = this.#uses.get(connection);
    if (before !== undefined) this.#number[before]--;
    if (use === undefined) {
      this.#uses.delete(connection);
      return;
    }
    this.#uses.set(connection, use);
    this.#number[use]++;
  }

  of(connection: T): Use | undefined {
    return this.#uses.get(connection);
  }

  /** In the order in which they were opened. */
  all(use: Use): readonly T[] {
    return [...this.#uses].flatMap(([connection, its]) => (its === use ? [connection] : []));
  }

  get busy(): number {
    return this.#number.busy;
  }

  get idle(): number {
    return this.#number.idle;
  }
}
