/** What a listener counts, for metrics. In: events. Out: a snapshot. */

/** Closed set: one label value each. */
const LIMIT_NAMES = [
  'sessions',
  'sessions_per_address',
  'not_allowed',
  'recipients',
  'message_bytes',
  'command_octets',
  'idle',
  'transaction_time',
  'unauthenticated_commands',
  'bad_commands',
  'held_bytes',
  'auth_lockout',
  'auth_time',
  'handshake',
] as const;
export type LimitName = (typeof LIMIT_NAMES)[number];

export interface ListenerCounts {
  /** Sessions open now. */
  readonly sessions: number;
  /** Sessions since start, refused ones included. */
  readonly sessionsTotal: number;
  /** Sessions refused at the door since start. */
  readonly refusedTotal: number;
  /** AUTH answered 535 since start. */
  readonly authFailures: number;
  /** Body octets reserved now. */
  readonly heldBytes: number;
  /** Times each limit was hit since start. */
  readonly limitHits: Readonly<Record<LimitName, number>>;
}

export interface Tally {
  sessionsTotal: number;
  refusedTotal: number;
  authFailures: number;
  readonly limitHits: Record<LimitName, number>;
  hit(limit: LimitName): void;
}

export function createTally(): Tally {
  const limitHits = Object.fromEntries(LIMIT_NAMES.map((n) => [n, 0])) as Record<LimitName, number>;
  return {
    sessionsTotal: 0,
    refusedTotal: 0,
    authFailures: 0,
    limitHits,
    hit(limit) {
      limitHits[limit] += 1;
    },
  };
}
