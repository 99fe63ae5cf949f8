/**
 * Whether Redis decides about limits. In: signs of life, questions that failed. Out: the mode, and when all that was
 * done without Redis is to be told. Owns the way from one mode to the other: what Redis refused it must do first, it
 * hears what it does not know, and where there are other relays they tell theirs, or have had the time.
 */
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { MISSING_AFTER_MS } from '../protocol/vocabulary.ts';
import { isRefusal, type RedisConnection } from '../redis.ts';
import { type Membership, SETTLE_MS } from './membership.ts';
import { BEFORE_MS } from './share.ts';

/** Whether Redis may decide is looked at again after this, ms. */
const LOOK_AGAIN_MS = 200;

/** What happens to mail while Redis is away: `share` of the limit, or `defer`. */
export type WithoutRedis = 'share' | 'defer';

export interface Contact {
  /** `shared`: Redis decides. `away`: the share decides. `settling`: both must grant. */
  readonly mode: 'shared' | 'away' | 'settling';
  /** When Redis was lost, monotonic ms. */
  readonly lostAt: number;
  /** Of what Redis knows; another one where it has lost that. */
  readonly epoch: string;
  /** Redis does not decide until it is heard again. */
  lose(): void;
  /** A question failed. `again` asks it once more, to see whether Redis does it now; it rejects where not. */
  failed(error: unknown, again: () => Promise<unknown>): void;
  close(): void;
}

export function createContact(deps: {
  readonly redis: RedisConnection;
  readonly membership: Membership;
  readonly log: Log;
  readonly clock: Clock;
  readonly withoutRedis: WithoutRedis;
  /** Tells Redis what it does not know; `isAll`: also what it was told before. Rejects. */
  readonly tell: (isAll: boolean) => Promise<void>;
  readonly onLost: (at: number) => void;
  readonly onShared: () => void;
}): Contact {
  const { membership, log, clock } = deps;
  let mode: Contact['mode'] = 'away';
  membership.hasTold = false;
  let lostAt = clock.monotonic();
  let epoch: string | undefined;
  let mustTellAll = true;
  let refused: (() => Promise<unknown>) | undefined;
  let cancelLook: (() => void) | undefined;
  /** When Redis was found again, and was told, monotonic ms. */
  let backAt = 0;
  let toldAt = 0;
  /** Until then relays may come back that Redis does not name any more, or has forgotten, monotonic ms. */
  let namesAllFrom = 0;
  /** Redis has lost its data: until then the minute may hold what one of so many relays sent, and has not told yet. */
  let forgot = { until: 0, relays: 0 };
  let isFinding = false;
  let isClosed = false;

  function lose(why = 'is away'): void {
    cancelLook?.();
    const isNews = mode === 'shared';
    // From then on the others reckon with what this relay told, and no more.
    if (isNews || (mode === 'settling' && membership.hasTold)) {
      lostAt = clock.monotonic();
      deps.onLost(lostAt);
    }
    if (isNews)
      log.warn(
        { event: 'shared_limits_away', relays: membership.relays, policy: deps.withoutRedis },
        deps.withoutRedis === 'share'
          ? `Redis ${why}: this relay keeps to its share of every limit`
          : `Redis ${why}: mail is deferred until that is over`,
      );
    mode = 'away';
    membership.hasTold = false;
  }

  async function tell(): Promise<void> {
    const isAll = mustTellAll;
    mustTellAll = false;
    try {
      await deps.tell(isAll);
    } catch (error) {
      mustTellAll ||= isAll;
      throw error;
    }
  }

  function mayDecide(): boolean {
    const now = clock.monotonic();
    const told = membership.toldSince(backAt);
    if (now < forgot.until && told < forgot.relays) return false;
    return (now >= namesAllFrom && told >= membership.seen.length) || now >= toldAt + SETTLE_MS;
  }

  function decide(): void {
    cancelLook?.();
    if (mode !== 'settling' || !membership.hasTold) return;
    if (!mayDecide()) {
      cancelLook = clock.after(LOOK_AGAIN_MS, membership.beat);
      return;
    }
    mode = 'shared';
    log.info({ event: 'shared_limits', relays: membership.relays }, 'limits are shared through Redis');
    deps.onShared();
  }

  async function find(of: string, hasForgotten: boolean): Promise<void> {
    const now = clock.monotonic();
    const { gapMs, relays } = membership;
    // A shorter one made nobody miss it, nor any other relay that was there.
    if ((hasForgotten || gapMs >= MISSING_AFTER_MS) && (relays > 1 || gapMs === Number.POSITIVE_INFINITY))
      namesAllFrom = now + SETTLE_MS;
    if (hasForgotten) {
      const before = now < forgot.until ? forgot.relays : 0;
      forgot = { until: now + BEFORE_MS, relays: Math.max(before, relays) };
    }
    mustTellAll ||= hasForgotten || of !== epoch;
    if (isClosed || isFinding || (mode !== 'away' && !mustTellAll)) return;
    isFinding = true;
    try {
      lose('has lost what it knew');
      epoch = of;
      backAt = now;
      await refused?.();
      refused = undefined;
      mode = 'settling';
      await tell();
    } catch {
      // Away again, or it refuses still: the next sign of life tries again.
      lose();
    } finally {
      isFinding = false;
    }
    if (mode !== 'settling' || isClosed) return;
    membership.hasTold = true;
    toldAt = clock.monotonic();
    membership.beat();
  }

  membership.onHeard((of, hasForgotten) => {
    void find(of, hasForgotten);
    decide();
  });
  membership.onRefused(() => lose('refuses'));
  deps.redis.onAway((away) => {
    if (away) lose();
    else membership.beat();
  });

  return {
    get mode() {
      return mode;
    },
    get lostAt() {
      return lostAt;
    },
    get epoch() {
      return epoch ?? '';
    },
    lose: () => lose(),
    failed(error, again) {
      const isRefused = isRefusal(error);
      if (isRefused) refused = again;
      lose(isRefused ? 'refuses' : undefined);
    },
    close() {
      isClosed = true;
      cancelLook?.();
    },
  };
}
