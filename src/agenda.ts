/**
 * What is to be done when, for thousands of things with one timer. In: things with times. Out: each at its time,
 * the earlier first. Times are monotonic ms.
 */
import type { Clock } from './clock.ts';

export interface Agenda<T> {
  /** Due at `at`, in place of any time it had. */
  set(item: T, at: number): void;
  delete(item: T): void;
  /** When it is due; undefined: never. */
  at(item: T): number | undefined;
  clear(): void;
}

interface Entry<T> {
  readonly at: number;
  /** Of entries due in one moment the older goes first. */
  readonly number: number;
  /** Undefined: no more to be done. */
  item: T | undefined;
}

/** Done in one turn of the loop; more that is due at once waits for the next. */
const MOST_AT_ONCE = 100;

export function createAgenda<T>(
  clock: Pick<Clock, 'monotonic' | 'after'>,
  due: (item: T) => void,
): Agenda<T> {
  const entries = new Map<T, Entry<T>>();
  /** A binary heap: no entry is earlier than the one at half its place. */
  let heap: Entry<T>[] = [];
  let numbers = 0;
  let timer: { readonly at: number; readonly cancel: () => void } | undefined;

  const isEarlier = (a: Entry<T>, b: Entry<T>): boolean =>
    a.at < b.at || (a.at === b.at && a.number < b.number);

  function push(entry: Entry<T>): void {
    let place = heap.push(entry) - 1;
    while (place > 0) {
      const above = (place - 1) >> 1;
      const other = heap[above] as Entry<T>;
      if (!isEarlier(entry, other)) break;
      heap[place] = other;
      place = above;
    }
    heap[place] = entry;
  }

  function shift(): void {
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let place = 0;
    for (;;) {
      let below = 2 * place + 1;
      let next = heap[below];
      const other = heap[below + 1];
      if (next === undefined) break;
      if (other !== undefined && isEarlier(other, next)) {
        below += 1;
        next = other;
      }
      if (!isEarlier(next, last)) break;
      heap[place] = next;
      place = below;
    }
    heap[place] = last;
  }

  /** The earliest there is still something to do for. */
  function first(): Entry<T> | undefined {
    while (heap[0] !== undefined && heap[0].item === undefined) shift();
    return heap[0];
  }

  function wind(): void {
    const next = first();
    if (timer !== undefined && timer.at === next?.at) return;
    timer?.cancel();
    timer = next && { at: next.at, cancel: clock.after(Math.max(0, next.at - clock.monotonic()), ring) };
  }

  function ring(): void {
    timer = undefined;
    const now = clock.monotonic();
    for (let done = 0; done < MOST_AT_ONCE; done++) {
      const next = first();
      if (next?.item === undefined || next.at > now) break;
      const { item } = next;
      forget(item);
      due(item);
    }
    wind();
  }

  function forget(item: T): void {
    const entry = entries.get(item);
    if (entry === undefined) return;
    entry.item = undefined;
    entries.delete(item);
    // What is done stays in the heap until its time; not more of it than of what is to be done.
    if (heap.length > 2 * entries.size + 64) {
      const left = heap.filter((each) => each.item !== undefined);
      heap = [];
      for (const each of left) push(each);
    }
  }

  return {
    set(item, at) {
      forget(item);
      const entry = { at, number: numbers++, item };
      entries.set(item, entry);
      push(entry);
      wind();
    },
    delete(item) {
      forget(item);
      wind();
    },
    at: (item) => entries.get(item)?.at,
    clear() {
      entries.clear();
      heap = [];
      wind();
    },
  };
}
