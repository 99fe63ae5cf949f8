/**
 * Time and order. Everything that happens is an event of one actor (a process, a host, a person); the
 * world runs one event at a time, lets all its promises settle, and takes the next: the earliest, and
 * of several that are ready the one the dice choose. Events of one actor at one time keep their order,
 * as the event loop of a process does. Owns virtual time, the events to come and the trace.
 */
import type { Random } from './random.ts';
import { hashText } from './random.ts';

/** Whoever runs code: its timers and promises end with it. */
export interface Actor {
  readonly name: string;
  /** What its wall clock shows beyond true time, ms. */
  skewMs: number;
  readonly isAlive: boolean;
}

export interface Scheduled {
  cancel(): void;
  /** Not run and not cancelled. */
  readonly isPending: boolean;
  /** For the list of what was left behind. */
  kind: string;
}

interface Event extends Scheduled {
  readonly at: number;
  readonly order: number;
  readonly task: () => void;
  state: 'pending' | 'over';
}

interface Process extends Actor {
  isAlive: boolean;
  readonly events: Event[];
}

export interface TraceLine {
  readonly at: number;
  readonly actor: string;
  readonly text: string;
}

/** `spinning`: events follow one another faster than anything that is of use could. */
export type RunEnd = 'over' | 'empty' | 'late' | 'spinning';

export interface World {
  readonly random: Random;
  /** True time since the world began, ms. */
  readonly now: number;
  /** Whose event is running. */
  readonly current: Actor;
  spawn(name: string): Actor;
  /** Its events never happen; nothing of it runs again. */
  kill(actor: Actor): void;
  /** `ms` from now, at the earliest when the current event is over. */
  after(actor: Actor, ms: number, task: () => void, kind?: string): Scheduled;
  /** What is still to come for an actor, by kind. */
  pending(actor: Actor): readonly string[];
  /** Notes what happened; part of the digest. */
  note(text: string, actor?: Actor): void;
  readonly trace: readonly TraceLine[];
  readonly digest: string;
  readonly steps: number;
  /** Runs until `isOver` or nothing is left to happen or `maxMs` have passed. */
  run(isOver: () => boolean, maxMs: number): Promise<RunEnd>;
}

/** The wall clock at the beginning: 2026-11-25T12:00:00Z. */
export const EPOCH = 1_795_608_000_000;

/** Node's own, before the world's take their place. */
const realImmediate = setImmediate;
/** Events in a second of virtual time; a busy one has some hundreds. */
const MOST_IN_A_SECOND = 30_000;
/** Events between two looks at the loop of the real process. */
const BATCH = 64;

export function createWorld(random: Random, options: { readonly keepTrace: boolean }): World {
  const processes: Process[] = [];
  const order = random.branch('order');
  const trace: TraceLine[] = [];
  let now = 0;
  let serial = 0;
  let steps = 0;
  let hash = 0x811c9dc5;
  let running: Process = { name: 'world', skewMs: 0, isAlive: true, events: [] };
  processes.push(running);

  /** The next event: earliest, then whichever actor the dice choose. */
  function next(): { readonly process: Process; readonly event: Event } | undefined {
    let ready: Process[] = [];
    let at = Number.POSITIVE_INFINITY;
    for (const process of processes) {
      const head = peek(process.events);
      if (head === undefined || head.at > at) continue;
      if (head.at < at) ready = [];
      at = head.at;
      ready.push(process);
    }
    const process = ready.length > 1 ? order.pick(ready) : ready[0];
    const event = process === undefined ? undefined : peek(process.events);
    return process === undefined || event === undefined ? undefined : { process, event };
  }

  return {
    random,
    get now() {
      return now;
    },
    get current() {
      return running;
    },
    trace,
    get steps() {
      return steps;
    },
    get digest() {
      return (hash >>> 0).toString(16).padStart(8, '0');
    },
    spawn(name) {
      const process: Process = { name, skewMs: 0, isAlive: true, events: [] };
      processes.push(process);
      return process;
    },
    kill(actor) {
      const process = actor as Process;
      process.isAlive = false;
      process.events.length = 0;
      const at = processes.indexOf(process);
      if (at >= 0) processes.splice(at, 1);
    },
    after(actor, ms, task, kind = 'event') {
      const event: Event = {
        at: now + Math.max(0, ms),
        order: serial++,
        task,
        kind,
        state: 'pending',
        cancel: () => {
          event.state = 'over';
        },
        get isPending() {
          return event.state === 'pending';
        },
      };
      if (actor.isAlive) push((actor as Process).events, event);
      return event;
    },
    pending: (actor) => (actor as Process).events.filter((e) => e.state === 'pending').map((e) => e.kind),
    note(text, actor = running) {
      const at = Math.round(now);
      hash = hashText(`${at} ${actor.name} ${text}\n`, hash);
      if (options.keepTrace) trace.push({ at, actor: actor.name, text });
    },
    run(isOver, maxMs) {
      return new Promise((resolve, reject) => {
        let left = 0;
        let isDone = false;
        let second = now;
        let inSecond = 0;
        const end = (why: RunEnd): void => {
          isDone = true;
          resolve(why);
        };
        const step = (): void => {
          if (isDone) return;
          left -= 1;
          if (left === 0) refill();
          const chosen = isOver() ? 'over' : (next() ?? 'empty');
          if (typeof chosen === 'string' || chosen.event.at > maxMs) {
            end(typeof chosen === 'string' ? chosen : 'late');
            return;
          }
          const { process, event } = chosen;
          pop(process.events);
          now = Math.max(now, event.at);
          if (now - second >= 1_000) {
            second = now;
            inSecond = 0;
          }
          inSecond += 1;
          if (inSecond > MOST_IN_A_SECOND) {
            end('spinning');
            return;
          }
          event.state = 'over';
          running = process;
          steps += 1;
          try {
            event.task();
          } catch (error) {
            isDone = true;
            reject(error);
          }
        };
        // Between two immediates of one round Node settles all promises and ticks; a round costs a system call.
        const refill = (): void => {
          left = BATCH;
          for (let i = 0; i < BATCH; i++) realImmediate(step);
        };
        refill();
      });
    },
  };
}

const isBefore = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

/** The earliest that is still to happen. */
function peek(heap: Event[]): Event | undefined {
  while (heap[0]?.state === 'over') pop(heap);
  return heap[0];
}

function push(heap: Event[], event: Event): void {
  let at = heap.length;
  heap.push(event);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const above = heap[parent];
    if (above === undefined || !isBefore(event, above)) break;
    heap[at] = above;
    at = parent;
  }
  heap[at] = event;
}

function pop(heap: Event[]): void {
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    const left = heap[child];
    if (left === undefined) break;
    const right = heap[child + 1];
    if (right !== undefined && isBefore(right, left)) child += 1;
    const smaller = heap[child];
    if (smaller === undefined || !isBefore(smaller, last)) break;
    heap[at] = smaller;
    at = child;
  }
  heap[at] = last;
}
