/**
 * The attempts under way in this process. In: attempts as they begin. Out: whether another of the same message has
 * a recipient in common: what neither has noted yet neither finds in the ledger.
 */
import { orMake } from '../../or-make.ts';
import { markOf } from './ledger.ts';
import type { Outgoing } from './outgoing.ts';

export interface Attempts {
  /** Undefined where another has one of its recipients; else to be called at its end. */
  enter(outgoing: Pick<Outgoing, 'family' | 'recipients'>): (() => void) | undefined;
}

export function createAttempts(): Attempts {
  /** Marks of recipients, by family. */
  const families = new Map<string, Set<string>>();
  return {
    enter({ family, recipients }) {
      const mine = new Set(recipients.map(markOf));
      const taken = orMake(families, family, () => new Set());
      if ([...mine].some((mark) => taken.has(mark))) return undefined;
      for (const mark of mine) taken.add(mark);
      return () => {
        for (const mark of mine) taken.delete(mark);
        if (taken.size === 0) families.delete(family);
      };
    },
  };
}
