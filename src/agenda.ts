/**
 * What is to be done when, for thousands of things with one timer. In: things with times. Out: each at its time,
 * the earlier first. Times are monotonic ms.
 */
import TinyQueue from 'tinyqueue';
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

const byTime = (a: Entry<unknown>, b: Entry<unknown>): number => a.at - b.at || a.number - b.number;

export function createAgenda<T>(
  clock: Pick<Clock, 'monotonic' | 'after'>,
  due: (item: T) => void,
): Agenda<T> {
  const entries = new Map<T, Entry<T>>();
  let queue = new TinyQueue<Entry<T>>([], byTime);
  let numbers = 0;
  let timer: { readonly at: number; readonly cancel: () => void } | undefined;

  /** The earliest there is still something to do for. */
  function first(): Entry<T> | undefined {
    while (queue.peek()?.item === undefined && queue.length > 0) queue.pop();
    return queue.peek();
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
    // What is done stays in the queue until its time; not more of it than of what is to be done.
    if (queue.length > 2 * entries.size + 64) queue = new TinyQueue([...entries.values()], byTime);
  }

  return {
    set(item, at) {
      forget(item);
      const entry = { at, number: numbers++, item };
      entries.set(item, entry);
      queue.push(entry);
      wind();
    },
    delete(item) {
      forget(item);
      wind();
    },
    at: (item) => entries.get(item)?.at,
    clear() {
      entries.clear();
      queue = new TinyQueue<Entry<T>>([], byTime);
      wind();
    },
  };
}
