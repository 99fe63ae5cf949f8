/**
 * Long work that holds nobody up. In: work of many small steps. Out: the same in slices, with the event loop's
 * turn between two of them. A message takes some ten turns of the loop, and each may meet a slice: one, however
 * many such works there are.
 */
import { type Clock, systemClock } from './clock.ts';
import { eventLoop } from './event-loop.ts';

/** Longest slice, ms: ten of them are no delay that anybody notices. */
const SLICE_MS = 0.5;

export interface Slices {
  /** It is time to `await rest()`. */
  readonly isOver: boolean;
  /** Everything else has its turn; a new slice begins. */
  rest(): Promise<void>;
}

/** For one piece of work. With a clock that stands still during it there is one slice only. */
export function createSlices(clock: Pick<Clock, 'monotonic'> = systemClock, sliceMs = SLICE_MS): Slices {
  let endsAt = clock.monotonic() + sliceMs;
  return {
    get isOver() {
      return clock.monotonic() >= endsAt;
    },
    async rest() {
      await eventLoop.turn();
      endsAt = clock.monotonic() + sliceMs;
    },
  };
}

/** What `step` makes of each of `items`, in slices. */
export async function mapInSlices<T, R>(
  items: Iterable<T>,
  step: (item: T, index: number) => R,
  slices: Slices = createSlices(),
): Promise<R[]> {
  const made: R[] = [];
  for (const item of items) {
    made.push(step(item, made.length));
    if (slices.isOver) await slices.rest();
  }
  return made;
}

/** Work whose steps are turns of a generator. */
export type Steps<R> = Generator<undefined, R>;

/** Its result, at once. */
export function runAtOnce<R>(steps: Steps<R>): R {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** Its result, in slices. */
export async function runInSlices<R>(steps: Steps<R>, slices: Slices = createSlices()): Promise<R> {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
    if (slices.isOver) await slices.rest();
  }
}
