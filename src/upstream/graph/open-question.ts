/**
 * Whether mail of a sender may have been begun by Graph and is open, asked for accounts that most probably never were
 * concerned. In: what the ledger says, messages that begin. Out: the answer, mostly at once. Owns what was heard last.
 */
import type { Clock } from '../../clock.ts';
import { dropOldest } from '../../drop-oldest.ts';
import type { Soon } from '../../soon.ts';

/** A retry comes no sooner than this after an attempt that is not clear, ms. */
const FRESH_MS = 1_000;
/** Senders of whom is remembered that something was open. */
const MAX_REMEMBERED = 10_000;

/** Whether something of a sender (by its mark) is open by Graph, for accounts that most probably never were concerned. */
export interface OpenQuestion {
  /** While it cannot be known it is what it was last; mail of a sender never asked for and never begun here is not stopped by that. */
  isOpen(mark: () => string): Soon<boolean>;
  /** A message of the sender is begun by Graph here. Called when that is over: `isClear` where its client has heard that it was sent. */
  begin(sender: string): (isClear: boolean) => void;
}

export function createOpenQuestion(
  hasOpen: (sender?: string) => Promise<boolean>,
  clock: Clock,
): OpenQuestion {
  let lastOfAll: { readonly answer: Promise<boolean>; isOpen?: boolean; readonly at: number } | undefined;
  const wereOpen = new Set<string>();
  /** Messages by sender. */
  const underWay = new Map<string, number>();

  /** Asked once in a while, so that nobody is asked for each message where nothing goes by Graph. */
  function ofAnybody(): Soon<boolean> {
    const now = clock.monotonic();
    if (lastOfAll === undefined || now - lastOfAll.at >= FRESH_MS) {
      const asked: typeof lastOfAll = { at: now, answer: hasOpen() };
      asked.answer.then(
        (isOpen) => {
          asked.isOpen = isOpen;
        },
        () => {},
      );
      lastOfAll = asked;
    }
    return lastOfAll.isOpen ?? lastOfAll.answer;
  }

  function remember(sender: string): void {
    wereOpen.delete(sender);
    wereOpen.add(sender);
    dropOldest(wereOpen, MAX_REMEMBERED);
  }

  async function isOpenOf(sender: string): Promise<boolean> {
    const wasOpen = wereOpen.has(sender) || underWay.has(sender);
    try {
      const isOpen = (wasOpen || (await ofAnybody())) && (await hasOpen(sender));
      if (isOpen) remember(sender);
      else wereOpen.delete(sender);
      return isOpen;
    } catch {
      return wasOpen;
    }
  }

  return {
    isOpen(mark) {
      if (wereOpen.size + underWay.size > 0) return isOpenOf(mark());
      // Where nothing goes by Graph no marks are made.
      const isAny = ofAnybody();
      if (isAny === false) return false;
      return isAny === true
        ? isOpenOf(mark())
        : isAny.catch(() => false).then((is) => is && isOpenOf(mark()));
    },
    begin(sender) {
      underWay.set(sender, (underWay.get(sender) ?? 0) + 1);
      return (isClear) => {
        const left = (underWay.get(sender) ?? 1) - 1;
        if (left > 0) underWay.set(sender, left);
        else underWay.delete(sender);
        if (!isClear) remember(sender);
      };
    },
  };
}
