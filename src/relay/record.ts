/** What is kept of a finished transaction: the one log line, the metrics and the admin list come from it. */
import type { Reply } from '../protocol/reply.ts';
import type { ChosenBy, Outcome } from '../protocol/vocabulary.ts';
import type { Trace } from '../upstream/way.ts';
import type { MailCommand } from './relay.ts';

export type { Outcome };

/** Filled as the transaction goes; all times in ms. */
export interface RecordDraft extends Trace {
  readonly id: string;
  /** Start, ms since the epoch. */
  readonly at: number;
  readonly sessionId: string;
  readonly client: string;
  /** Account id. */
  readonly account: string;
  readonly provider: string;
  readonly sender: string;
  /** Why this account of several that match the sender; absent where there was no choice, or none could take it. */
  chosenBy: ChosenBy | undefined;
  /** Those the client heard 250 for. */
  readonly recipients: string[];
  /** Body octets received from the client. */
  bytes: number;
  outcome: Outcome;
  /** What the client heard last; absent when it left before. */
  reply: Reply | undefined;
  /** Who decided: the provider's own verdict, or ours. */
  decidedBy: 'upstream' | 'relay';
  totalMs: number;
  /** Account gate at MAIL: token, breaker, limits. */
  gateMs: number;
}

export interface TransactionRecord extends Readonly<Omit<RecordDraft, 'recipients'>> {
  readonly recipients: readonly string[];
}

/** Of a message that nobody took. */
export const outcomeOf = (answer: Reply): Outcome => (answer.code >= 500 ? 'rejected' : 'deferred');

/** A record to be filled: nothing has happened yet, and if nothing does, the client left. */
export const startRecord = (id: string, at: number, command: MailCommand): RecordDraft => ({
  id,
  at,
  sessionId: command.session.id,
  client: command.session.remoteAddress,
  account: command.account.id,
  provider: command.account.provider,
  sender: command.sender,
  chosenBy: undefined,
  recipients: [],
  bytes: 0,
  outcome: 'aborted',
  reply: undefined,
  decidedBy: 'relay',
  upstreamReply: undefined,
  flights: 0,
  flightTimes: [],
  reused: false,
  replayed: false,
  connection: undefined,
  way: 'smtp',
  totalMs: 0,
  gateMs: 0,
  acquireMs: 0,
  upstreamMs: 0,
});
