/**
 * What happens to tokens without anybody asking: refreshed before they end, tried again after a failure,
 * looked for in the store while refused; of accounts that do not send, once a day. In: slots. Owns their times,
 * monotonic.
 */
import type { Activity } from '../activity.ts';
import { createAgenda } from '../agenda.ts';
import type { Clock } from '../clock.ts';
import { createSemaphore } from '../semaphore.ts';
import type { AccessToken } from './access-token.ts';
import { LOOK_AGAIN_MS } from './disbelief.ts';
import type { FailureBook } from './failure-book.ts';
import { refreshAheadAt, type Slot, type TokenOrigin } from './token-slot.ts';

export interface Background {
  /** Plans the next step of a slot anew. */
  plan(slot: Slot): void;
  cancel(slot: Slot): void;
  /** When the slot is refreshed or tried next, ms since the epoch. */
  plannedAt(slot: Slot): number | undefined;
  /** Nothing begins any more. */
  stop(): void;
}

/** Accounts that were paused together are asked about within this time, not all at once, ms. */
const PAUSE_SPREAD_MS = 5000;
/** A grant that is never used dies (at Microsoft after 90 days, at Google after 6 months), and one that is dead should be known before mail waits for it, ms. */
const ASK_ASLEEP_MS = 24 * 60 * 60_000;
/** Not all in the same hour: by this part earlier. */
const ASLEEP_SPREAD = 0.25;

export function createBackground(
  deps: {
    readonly clock: Clock;
    /** 0 to 1, for jitter. */
    readonly random: () => number;
    readonly book: FailureBook;
    readonly fetch: (slot: Slot, origin: TokenOrigin) => Promise<AccessToken>;
    readonly activity: Pick<Activity, 'isIdle'>;
    readonly lookAgain: (slot: Slot) => Promise<boolean>;
    /** Others may bring what is missing here. */
    readonly isShared: boolean;
  },
  options: { readonly bound: number; readonly refreshAhead: boolean },
): Background {
  const { clock, random, book, fetch } = deps;
  const limited = createSemaphore(options.bound);
  const plans = createAgenda<Slot>(clock, run);
  const looks = new Map<Slot, () => void>();
  let isStopped = false;

  function cancel(slot: Slot): void {
    slot.isAsleep = false;
    plans.delete(slot);
    looks.get(slot)?.();
    looks.delete(slot);
  }

  function dueAt(slot: Slot): number | undefined {
    const { token, trouble, credential } = slot;
    // No mail waits for it: whoever wants it asks.
    if (slot.resource === 'imap') return undefined;
    if (trouble !== undefined) return book.nextTry(slot, trouble);
    if (token === undefined) return undefined;
    return clock.monotonic() + refreshAheadAt(token, credential.safetyBufferMs, random()) - clock.now();
  }

  function plan(slot: Slot): void {
    cancel(slot);
    if (slot.isRetired || slot.flight !== undefined || isStopped || !options.refreshAhead) return;
    const due = dueAt(slot);
    if (due === undefined) return;
    const now = clock.monotonic();
    const paused = book.pausedUntil(slot);
    // After a pause the accounts of a client come one after another.
    const at = Math.max(due, now, paused > now ? paused + PAUSE_SPREAD_MS * random() : 0);
    plans.set(slot, at);
    if (deps.isShared && slot.trouble?.error.code === 'needs_consent') watch(slot);
  }

  /** Nobody sends: the token ends, and the next message fetches one. */
  function sleep(slot: Slot): void {
    const now = clock.monotonic();
    const { state } = slot;
    slot.isAsleep = true;
    if (state.name === 'holding' && state.held.endsMono > now) {
      plans.set(slot, state.held.endsMono);
      return;
    }
    slot.apply({ type: 'forgotten' });
    // Only a refresh token can die of disuse.
    if (slot.credential.grant === 'refresh_token')
      plans.set(slot, now + ASK_ASLEEP_MS * (1 - ASLEEP_SPREAD * random()));
  }

  function run(slot: Slot): void {
    const isOver = slot.isAsleep && slot.token === undefined;
    if (!isOver && slot.trouble === undefined && deps.activity.isIdle(slot.accountId)) {
      sleep(slot);
      return;
    }
    limited
      .run(async () => {
        if (book.pausedUntil(slot) > clock.monotonic()) plan(slot);
        else if (!slot.isRetired && !isStopped) await fetch(slot, 'refresh-ahead');
      })
      .catch(() => undefined);
  }

  /** Another relay, or a command, may have what this one was refused. */
  function watch(slot: Slot): void {
    looks.set(
      slot,
      clock.after(LOOK_AGAIN_MS * (1 + random()), () => {
        looks.delete(slot);
        limited
          .run(async () => {
            if (slot.isRetired || isStopped || slot.flight !== undefined) return;
            const news = await deps.lookAgain(slot);
            if (slot.trouble === undefined) plan(slot);
            else if (news && !slot.isRetired) await fetch(slot, 'refresh-ahead');
            else if (!slot.isRetired && slot.flight === undefined && !isStopped) watch(slot);
          })
          .catch(() => undefined);
      }),
    );
  }

  return {
    plan,
    cancel,
    plannedAt(slot) {
      const at = plans.at(slot);
      return at === undefined ? undefined : clock.now() + at - clock.monotonic();
    },
    stop() {
      isStopped = true;
      plans.clear();
      for (const slot of [...looks.keys()]) cancel(slot);
    },
  };
}
