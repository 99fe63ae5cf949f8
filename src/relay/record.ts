/** What is kept of a finished transaction: the one log line, the metrics and the admin list come from it. */
import type { Reply } from '../protocol/reply.ts';

/**
 * `relayed`: the provider said 250. `deferred`: the client heard 4xx. `rejected`: the client heard 5xx.
 * `aborted`: the client left or sent RSET first. `unknown`: the final byte went out and no reply came (451 4.4.2).
 */
export type Outcome = 'relayed' | 'deferred' | 'rejected' | 'aborted' | 'unknown';

/** All times in ms. */
export interface TransactionRecord {
  readonly id: string;
  /** Start, ms since the epoch. */
  readonly at: number;
  readonly sessionId: string;
  readonly client: string;
  /** Account id. */
  readonly account: string;
  readonly provider: string;
  readonly sender: string;
  readonly recipients: readonly string[];
  /** Body octets received from the client. */
  readonly bytes: number;
  readonly outcome: Outcome;
  /** What the client heard last; absent when it left before. */
  readonly reply: Reply | undefined;
  /** Who decided: the provider's own verdict, or ours. */
  readonly decidedBy: 'upstream' | 'relay';
  /** The upstream's own words where `reply` was derived from them. */
  readonly upstreamReply: Reply | undefined;
  /** Round trips made upstream for this transaction, replays included. */
  readonly flights: number;
  /** Whether a warm connection served it. */
  readonly reused: boolean;
  /** Whether it was replayed on a fresh connection. */
  readonly replayed: boolean;
  /** Upstream connection id, for matching log lines. */
  readonly connection: string | undefined;
  readonly totalMs: number;
  /** Account gate at MAIL: token, breaker, limits. */
  readonly gateMs: number;
  /** Wait for a connection. */
  readonly acquireMs: number;
  /** From the first byte upstream to the final reply. */
  readonly upstreamMs: number;
}
