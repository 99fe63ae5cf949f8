/**
 * The attempts under way in this process. In: attempts as they begin, and what is to be noted after them. Out: whether
 * another of the same message has a recipient in common: what neither has noted yet neither finds in the ledger.
 */
import { type Clock, pause, systemClock } from '../../clock.ts';
import { orMake } from '../../or-make.ts';
import { markOf } from './ledger.ts';
import type { Outgoing } from './outgoing.ts';

/** Tried again after, ms. */
const AGAIN_MS = 500;
/** What cannot be noted for so long is left as it is, ms: Redis stays away, or forgets. */
const GIVE_UP_MS = 60 * 60_000;

type Whose = Pick<Outgoing, 'family' | 'recipients'>;

export interface Attempts {
  /** Undefined where another has one of its recipients; else to be called at its end. */
  enter(whose: Whose): (() => void) | undefined;
  /** The one long wait of an account. Undefined where another has it; else to be called at its end. */
  wait(account: string): (() => void) | undefined;
  /** `note` until it does not reject, or its last rejection; once it has rejected others of the same wait meanwhile. */
  until(whose: Whose, note: () => Promise<void>): Promise<void>;
  /** Nothing is tried again. */
  close(): void;
}

export function createAttempts(clock: Clock = systemClock): Attempts {
  /** Marks of recipients, by family. */
  const families = new Map<string, Set<string>>();
  /** Accounts. */
  const waiting = new Set<string>();
  /** The last note that was begun, by family. */
  const notes = new Map<string, Promise<void>>();
  let isOver = false;

  /** One at a time of a family: most of them note one entry. */
  async function inTurn(family: string, note: () => Promise<void>): Promise<void> {
    const mine = (notes.get(family) ?? Promise.resolve()).catch(() => undefined).then(note);
    notes.set(family, mine);
    try {
      await mine;
    } finally {
      if (notes.get(family) === mine) notes.delete(family);
    }
  }

  function enter({ family, recipients }: Whose): (() => void) | undefined {
    const mine = new Set(recipients.map(markOf));
    const taken = orMake(families, family, () => new Set());
    if ([...mine].some((mark) => taken.has(mark))) return undefined;
    for (const mark of mine) taken.add(mark);
    return () => {
      for (const mark of mine) taken.delete(mark);
      if (taken.size === 0) families.delete(family);
    };
  }

  return {
    enter,
    wait(account) {
      if (waiting.has(account)) return undefined;
      waiting.add(account);
      return () => void waiting.delete(account);
    },
    async until(whose, note) {
      const last = clock.monotonic() + GIVE_UP_MS;
      let leave: (() => void) | undefined;
      try {
        for (;;) {
          try {
            return await inTurn(whose.family, note);
          } catch (error) {
            if (isOver || clock.monotonic() >= last) throw error;
          }
          leave ??= enter(whose);
          await pause(clock, AGAIN_MS);
        }
      } finally {
        leave?.();
      }
    },
    close() {
      isOver = true;
    },
  };
}
