/**
 * What may still bring or save a refresh token. In: such work, and that a stop has begun. Out: its end, or that of the
 * time it has. Owns the list.
 */
import { type Clock, orAfter } from '../clock.ts';

export interface UnderWay {
  /** Awaited at a stop as long as there is time for anything. */
  track<T>(work: Promise<T>): Promise<T>;
  /** An answer to come, or the saving of what came: it may be the only good refresh token, and is awaited as long as an answer may take. */
  trackAsked<T>(work: Promise<T>): Promise<T>;
  /** As `trackAsked`, from now on until the result is called. */
  beginAsked(): () => void;
  stop(): void;
  readonly isStopped: boolean;
  /** Ends when nothing that was asked is under way, or after `boundMs`. */
  answered(boundMs: number): Promise<void>;
  /** Ends when all has ended, or after `boundMs`; what was asked ahead of the stop has its time since then. */
  settled(boundMs: number): Promise<void>;
}

export function createUnderWay(clock: Clock, answerTimeoutMs: number): UnderWay {
  const all = new Set<Promise<unknown>>();
  const asked = new Set<Promise<unknown>>();
  /** Monotonic. */
  let stoppedAt: number | undefined;

  function add<T>(works: Set<Promise<unknown>>, work: Promise<T>): Promise<T> {
    works.add(work);
    const done = (): void => void works.delete(work);
    work.then(done, done);
    return work;
  }

  /** More may begin meanwhile. */
  async function empty(works: ReadonlySet<Promise<unknown>>, endsAt: number): Promise<void> {
    while (works.size > 0 && clock.monotonic() < endsAt)
      await orAfter(clock, Promise.allSettled(works), endsAt - clock.monotonic());
  }

  return {
    track: (work) => add(all, work),
    trackAsked: (work) => add(asked, add(all, work)),
    beginAsked() {
      let end = (): void => undefined;
      const work = new Promise<void>((resolve) => {
        end = resolve;
      });
      void add(asked, work);
      return end;
    },
    stop() {
      stoppedAt ??= clock.monotonic();
    },
    get isStopped() {
      return stoppedAt !== undefined;
    },
    answered: (boundMs) => empty(asked, clock.monotonic() + boundMs),
    async settled(boundMs) {
      const now = clock.monotonic();
      await empty(all, now + boundMs);
      // The others have had their time.
      all.clear();
      await empty(asked, Math.max(now + boundMs, (stoppedAt ?? now) + answerTimeoutMs));
    },
  };
}
