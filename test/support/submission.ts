/** A message as the simulated provider took it: envelope, body, digest, how it came and what was said. */
import { createHash, randomUUID } from 'node:crypto';

/** A recipient as it came in RCPT TO. */
export interface Recipient {
  readonly address: string;
  readonly parameters: readonly string[];
}

/**
 * `accepted`: 250 was said. `refused`: 4xx or 5xx was said after the body. `unanswered`: the body was
 * complete and nothing was said. `cut`: the body was begun and never completed.
 */
export type SubmissionOutcome = 'accepted' | 'refused' | 'unanswered' | 'cut';

export interface Submission {
  readonly id: string;
  /** XOAUTH2 user of the connection. */
  readonly user: string;
  readonly sender: string;
  readonly mailParameters: readonly string[];
  /** Accepted recipients in order. */
  readonly recipients: readonly Recipient[];
  readonly connectionId: number;
  readonly via: 'DATA' | 'BDAT';
  /** BDAT commands; 0 with DATA. */
  readonly chunks: number;
  readonly outcome: SubmissionOutcome;
  /** Whether the provider would deliver it, told or not. */
  readonly delivered: boolean;
  /** What was said, lines joined with LF. */
  readonly reply: string | undefined;
  /** Round trips from MAIL to the end of the body. */
  readonly flights: number;
  /** Content octets: dot-stuffing removed, the CRLF before the final dot included. Empty when not recorded. */
  readonly body: Buffer;
  readonly bytes: number;
  /** Lower-case hex, over `body`. */
  readonly sha256: string;
  /** ms since the epoch. */
  readonly at: number;
}

export interface SubmissionDraft {
  readonly id: string;
  readonly user: string;
  readonly bytes: number;
  chunks: number;
  overLimit: boolean;
  add(bytes: Buffer): void;
  finish(
    outcome: SubmissionOutcome,
    delivered: boolean,
    reply: readonly string[] | undefined,
    flights: number,
  ): Submission;
}

export function draftSubmission(start: {
  readonly user: string;
  readonly sender: string;
  readonly mailParameters: readonly string[];
  readonly recipients: readonly Recipient[];
  readonly connectionId: number;
  readonly via: 'DATA' | 'BDAT';
  readonly keepBody: boolean;
}): SubmissionDraft {
  const { keepBody, ...facts } = start;
  const id = randomUUID();
  const hash = createHash('sha256');
  const parts: Buffer[] = [];
  let bytes = 0;
  return {
    id,
    user: start.user,
    chunks: 0,
    overLimit: false,
    get bytes() {
      return bytes;
    },
    add(part) {
      bytes += part.length;
      hash.update(part);
      if (keepBody) parts.push(part);
    },
    finish(outcome, delivered, reply, flights) {
      return {
        ...facts,
        id,
        chunks: this.chunks,
        outcome,
        delivered,
        reply: reply?.join('\n'),
        flights,
        body: Buffer.concat(parts),
        bytes,
        sha256: hash.digest('hex'),
        at: Date.now(),
      };
    },
  };
}
