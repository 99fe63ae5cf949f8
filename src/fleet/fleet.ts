/**
 * Several relays as one. In: a Redis. Out: a limiter for the relay, states all relays know, who the relays
 * are. Owns the room's parts and the order in which they begin and end.
 */
import type { Clock } from '../clock.ts';
import type { KeptPart } from '../kept-state.ts';
import type { Log } from '../log.ts';
import type { RedisConnection } from '../redis.ts';
import type { WithoutRedis } from './contact.ts';
import { createMembership, type Membership, type RelayRow } from './membership.ts';
import { createSharedLimits, type SharedLimits } from './shared-limits.ts';
import { createSharedStates, type SharedStates } from './shared-states.ts';

export interface Fleet {
  readonly limits: SharedLimits;
  readonly states: SharedStates;
  readonly membership: Pick<Membership, 'seen' | 'relays' | 'aloneSince'>;
  /** Limits are not shared now: Redis is away, or only just back. */
  readonly isApart: boolean;
  /** What is kept over a restart, for the time in which Redis may be away then. `restore` before the start; throws where it is nothing it gave. */
  readonly kept: Readonly<Record<'life' | 'counts' | 'states', KeptPart>>;
  /** Redis has lost something of what it knew, and answers again. */
  onForgotten(listener: () => void): void;
  /** Begins to be seen; the connection is open by then. */
  start(): Promise<void>;
  /** Leaves in order, so that no share is kept for this relay. The connection stays open. */
  close(): Promise<void>;
}

export interface FleetOptions {
  readonly withoutRedis: WithoutRedis;
  /** Relays to reckon with before Redis was ever heard. */
  readonly expected: number;
}

export function createFleet(
  deps: {
    readonly redis: RedisConnection;
    readonly log: Log;
    readonly row: () => RelayRow;
    readonly clock?: Clock;
    readonly random?: () => number;
  },
  options: FleetOptions,
): Fleet {
  const membership = createMembership(deps, { expected: options.expected });
  const limits = createSharedLimits({ ...deps, membership }, { withoutRedis: options.withoutRedis });
  const states = createSharedStates({ ...deps, membership });
  return {
    limits,
    states,
    membership,
    get isApart() {
      return limits.isApart;
    },
    kept: { life: membership.kept, counts: limits.kept, states: states.kept },
    onForgotten: membership.onForgotten,
    start: membership.start,
    async close() {
      await limits.close();
      await membership.leave();
    },
  };
}
