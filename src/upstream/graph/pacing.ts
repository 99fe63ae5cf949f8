/**
 * How many requests Graph may get at once and in a time. In: wishes to ask, throttling answers. Out: a
 * place, or for how long there is none. Owns the counts by application and mailbox; all time is monotonic.
 * Source of the numbers: learn.microsoft.com/graph/throttling-limits (Outlook service limits).
 */

import { type Clock, pause, systemClock } from '../../clock.ts';
import { orMake } from '../../or-make.ts';

/** Requests at once for one application and mailbox. */
export const AT_ONCE = 4;
/** Requests in 10 minutes; one in a hundred is left for other programs. */
const REQUESTS = { most: 9_900, spanMs: 10 * 60_000 };
/** Octets uploaded in 5 minutes; documented 150 MB. */
const UPLOAD = { most: 148_000_000, spanMs: 5 * 60_000 };
/** Whether the 4 count per mailbox or per application is documented both ways; two throttled mailboxes within this decide. */
const NARROW_EVIDENCE_MS = 10_000;
/** So long the 4 then count per application, after the last throttling. */
const NARROW_MS = 10 * 60_000;
/** Where a throttling answer names no time. */
const DEFAULT_PAUSE_MS = 1_000;
/** Slices of a window: what it may lag behind, 1/60. */
const SLICES = 60;

export interface GraphPlace {
  /** The request is answered. Idempotent. */
  leave(): void;
}

export interface GraphPacing {
  /** Waits at most `maxWaitMs` for a place; else how long it would have taken. `octets` are uploaded. */
  enter(key: GraphKey, octets: number, maxWaitMs: number): Promise<GraphPlace | { readonly waitMs: number }>;
  /** Graph asked for nothing for so long. */
  pause(key: GraphKey, ms: number): void;
  /** Graph throttled a request; `retryAfterMs` is its wish. `ofApplication`: its requests at once were too many (`ApplicationThrottled`). */
  throttled(key: GraphKey, retryAfterMs: number | undefined, ofApplication: boolean): void;
  /** Nothing is asked before this long, ms; 0: ask. */
  pausedFor(key: GraphKey): number;
  /** The 4 count per application. */
  isNarrowed(app: string): boolean;
}

/** Whose limit: one application at one mailbox. */
export interface GraphKey {
  readonly app: string;
  readonly mailbox: string;
}

interface Waiting {
  readonly start: (place: GraphPlace) => void;
}

interface Room {
  busy: number;
  readonly waiting: Waiting[];
  pausedUntil: number;
  /** For the requests at once of its application. */
  throttledAt: number;
  readonly requests: Window;
  readonly upload: Window;
}

export function createGraphPacing(clock: Clock = systemClock): GraphPacing {
  const apps = new Map<string, { readonly rooms: Map<string, Room>; busy: number; narrowUntil: number }>();

  const appOf = (name: string) =>
    orMake(apps, name, () => ({ rooms: new Map(), busy: 0, narrowUntil: Number.NEGATIVE_INFINITY }));

  const roomOf = ({ app, mailbox }: GraphKey): Room =>
    orMake(appOf(app).rooms, mailbox, () => ({
      busy: 0,
      waiting: [],
      pausedUntil: Number.NEGATIVE_INFINITY,
      throttledAt: Number.NEGATIVE_INFINITY,
      requests: createWindow(REQUESTS),
      upload: createWindow(UPLOAD),
    }));

  const isNarrowed = (app: string): boolean => clock.monotonic() < appOf(app).narrowUntil;
  const hasPlace = (key: GraphKey, room: Room): boolean =>
    room.busy < AT_ONCE && (!isNarrowed(key.app) || appOf(key.app).busy < AT_ONCE);

  /** Lets those in whom a freed place admits: of the other mailboxes of a narrowed application first, then of this one. */
  function admit(key: GraphKey): void {
    const { rooms } = appOf(key.app);
    // Where few places serve all mailboxes, none may keep them.
    const others = isNarrowed(key.app) ? [...rooms].filter(([name]) => name !== key.mailbox) : [];
    for (const [mailbox, room] of [...others, [key.mailbox, roomOf(key)] as const]) {
      const of = { app: key.app, mailbox };
      while (room.waiting.length > 0 && hasPlace(of, room)) room.waiting.shift()?.start(place(of, room));
    }
  }

  function place(key: GraphKey, room: Room): GraphPlace {
    const app = appOf(key.app);
    room.busy++;
    app.busy++;
    let isLeft = false;
    return {
      leave() {
        if (isLeft) return;
        isLeft = true;
        room.busy--;
        app.busy--;
        admit(key);
      },
    };
  }

  function pausedOrFull(room: Room, octets: number): number {
    const now = clock.monotonic();
    return Math.max(
      room.pausedUntil - now,
      room.requests.waitFor(1, now),
      room.upload.waitFor(octets, now),
      0,
    );
  }

  /** A place when it is our turn; undefined when `ms` have passed. */
  function queue(room: Room, ms: number): Promise<GraphPlace | undefined> {
    if (ms <= 0) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const cancel = clock.after(ms, () => {
        room.waiting.splice(room.waiting.indexOf(mine), 1);
        resolve(undefined);
      });
      const mine: Waiting = {
        start: (given) => {
          cancel();
          resolve(given);
        },
      };
      room.waiting.push(mine);
    });
  }

  function pauseFor(key: GraphKey, ms: number): void {
    const room = roomOf(key);
    room.pausedUntil = Math.max(room.pausedUntil, clock.monotonic() + ms);
  }

  return {
    async enter(key, octets, maxWaitMs) {
      const room = roomOf(key);
      const until = clock.monotonic() + maxWaitMs;
      for (;;) {
        const waitMs = pausedOrFull(room, octets);
        if (clock.monotonic() + waitMs > until) return { waitMs };
        if (waitMs > 0) {
          await pause(clock, waitMs);
          continue;
        }
        const mine = hasPlace(key, room) ? place(key, room) : await queue(room, until - clock.monotonic());
        if (mine === undefined) return { waitMs: DEFAULT_PAUSE_MS };
        if (pausedOrFull(room, octets) === 0) {
          room.requests.add(1, clock.monotonic());
          room.upload.add(octets, clock.monotonic());
          return mine;
        }
        // Graph began to throttle while we stood in line.
        mine.leave();
      }
    },
    pause: pauseFor,
    throttled(key, retryAfterMs, ofApplication) {
      const now = clock.monotonic();
      const app = appOf(key.app);
      pauseFor(key, retryAfterMs ?? DEFAULT_PAUSE_MS);
      if (!ofApplication) return;
      roomOf(key).throttledAt = now;
      let mailboxes = 0;
      for (const other of app.rooms.values()) if (now - other.throttledAt <= NARROW_EVIDENCE_MS) mailboxes++;
      if (mailboxes >= 2 || now < app.narrowUntil) app.narrowUntil = now + NARROW_MS;
    },
    pausedFor: (key) =>
      Math.max(0, (appOf(key.app).rooms.get(key.mailbox)?.pausedUntil ?? 0) - clock.monotonic()),
    isNarrowed,
  };
}

interface Window {
  /** How long until `n` more fit, ms. */
  waitFor(n: number, now: number): number;
  add(n: number, now: number): void;
}

/** Counts the last `spanMs`, in slices. */
function createWindow({ most, spanMs }: { readonly most: number; readonly spanMs: number }): Window {
  const sliceMs = spanMs / SLICES;
  /** By slice, oldest first. */
  let slices: { readonly slice: number; count: number }[] = [];
  let total = 0;
  function forget(now: number): void {
    const first = Math.floor(now / sliceMs) - SLICES;
    while (slices[0] !== undefined && slices[0].slice <= first) {
      total -= slices[0].count;
      slices = slices.slice(1);
    }
  }
  return {
    waitFor(n, now) {
      forget(now);
      let over = total + n - most;
      if (over <= 0 || slices.length === 0) return 0;
      for (const { slice, count } of slices) {
        over -= count;
        if (over <= 0) return Math.max(1, (slice + 1 + SLICES) * sliceMs - now);
      }
      return spanMs;
    },
    add(n, now) {
      forget(now);
      const slice = Math.floor(now / sliceMs);
      const last = slices.at(-1);
      if (last?.slice === slice) last.count += n;
      else slices.push({ slice, count: n });
      total += n;
    },
  };
}
