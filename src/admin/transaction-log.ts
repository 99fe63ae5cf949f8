/**
 * The latest transactions, in memory. In: `TransactionRecord`s. Out: rows as the API shows them,
 * newest first. Addresses keep their domain only, unless the operator asked for whole ones.
 */
import type { Writer } from '../log/stringify.ts';
import { maskAddress, maskAddresses } from '../protocol/mask-addresses.ts';
import type { Reply } from '../protocol/reply.ts';
import { cleanText } from '../protocol/text.ts';
import type { Outcome, TransactionRecord } from '../relay/record.ts';
import { isoTime } from '../time-text.ts';
import { membersOf, type ReplyRow, type TransactionRow } from './shapes.ts';

export interface TransactionFilter {
  /** 1 to the size of the log. */
  readonly limit: number;
  readonly account?: string | undefined;
  readonly outcome?: Outcome | undefined;
}

export interface TransactionLog {
  add(record: TransactionRecord): void;
  toRow(record: TransactionRecord): TransactionRow;
  /** Newest first. */
  latest(filter: TransactionFilter): readonly TransactionRow[];
}

/** A row stays small whatever the envelope. */
const MAX_RECIPIENTS_SHOWN = 20;

/** Rounds to µs: a row carries no noise digits. */
const ms = (value: number): number => Math.round(value * 1000) / 1000;

/** The row of one record. */
export function toTransactionRow(record: TransactionRecord, showAddresses: boolean): TransactionRow {
  // What a client sent and what a person reads of a reply: clean, and cut to a readable length.
  const shown = (text: string): string => (showAddresses ? text : maskAddresses(text));
  const address = (text: string): string => cleanText(showAddresses ? text : maskAddress(text));
  const replyRow = (r: Reply | undefined): ReplyRow | null =>
    r === undefined ? null : { code: r.code, enhanced: r.enhanced ?? null, text: cleanText(shown(r.text)) };
  return {
    id: record.id,
    at: isoTime(record.at),
    session_id: record.sessionId,
    client: record.client,
    account: record.account,
    provider: record.provider,
    way: record.way,
    chosen_by: record.chosenBy ?? null,
    sender: address(record.sender),
    recipients: record.recipients.slice(0, MAX_RECIPIENTS_SHOWN).map(address),
    recipient_count: record.recipients.length,
    bytes: record.bytes,
    outcome: record.outcome,
    reply: replyRow(record.reply),
    decided_by: record.decidedBy,
    upstream_reply: replyRow(record.upstreamReply),
    flights: record.flights,
    reused: record.reused,
    replayed: record.replayed,
    connection: record.connection ?? null,
    timings: {
      total_ms: ms(record.totalMs),
      gate_ms: ms(record.gateMs),
      acquire_ms: ms(record.acquireMs),
      upstream_ms: ms(record.upstreamMs),
    },
  };
}

/** The row as JSON members, without braces. */
export const formatTransactionRow: Writer<TransactionRow> = membersOf('Transaction');

/** A record as it stays in memory. */
type Kept = { -readonly [K in keyof TransactionRecord]: TransactionRecord[K] };

/** Of a reply what is shown. */
function shorten({ code, enhanced, text }: Reply): Reply {
  return enhanced === undefined ? { code, text: cleanText(text) } : { code, enhanced, text: cleanText(text) };
}

/** Written over what was kept there before: what lives for a thousand messages is copied by the collector, object by object. */
function keep(into: Kept, record: TransactionRecord): void {
  Object.assign(into, record);
  const { reply, upstreamReply, recipients } = record;
  into.reply = reply && shorten(reply);
  into.upstreamReply = upstreamReply === reply ? into.reply : upstreamReply && shorten(upstreamReply);
  // Of the length that it has, not with room to grow.
  into.recipients = recipients.slice();
  into.flightTimes = undefined;
}

/** A ring of the last `limit` transactions; rows are made when somebody looks. */
export function createTransactionLog(
  limit: number,
  options: { readonly showAddresses?: boolean } = {},
): TransactionLog {
  const ring: Kept[] = [];
  let next = 0;
  const toRow = (record: TransactionRecord): TransactionRow =>
    toTransactionRow(record, options.showAddresses ?? false);
  return {
    toRow,
    add: (record) => {
      const kept = ring[next] ?? { ...record };
      keep(kept, record);
      ring[next] = kept;
      next = (next + 1) % limit;
    },
    latest: (filter) => {
      const found: TransactionRow[] = [];
      for (let back = 1; back <= ring.length && found.length < filter.limit; back++) {
        const record = ring[(next - back + limit) % limit];
        if (record === undefined) break;
        if (filter.account !== undefined && record.account !== filter.account) continue;
        if (filter.outcome !== undefined && record.outcome !== filter.outcome) continue;
        found.push(toRow(record));
      }
      return found;
    },
  };
}
