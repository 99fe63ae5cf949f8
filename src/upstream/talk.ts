/** What is said of a message on a connection, what it came to, and what may be done after it. Pure. */
import { isPositive, isTemporary } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import type { Stage, Verdict } from '../protocol/verdict.ts';
import { UpstreamError } from './failure.ts';

/** The reply that decides, and the command it answers. */
export interface Decision {
  readonly stage: Stage;
  readonly reply: ParsedReply;
  /** Refused before the body, and yet what answers the body is a yes: the server may have the message. */
  readonly isContradicted?: boolean;
}

/** A body on its way. */
export interface SubmissionStream {
  /** Takes a chunk; a promise means: wait before the next. Never rejects: a refusal or loss shows in `finish`. */
  push(chunk: Buffer): Promise<void> | undefined;
  /** The body is complete. Rejects with `UpstreamError`. */
  finish(): Promise<Decision>;
}

/** A refusal that decides, or nothing in the way. */
export interface Talk {
  readonly refusal: Decision | undefined;
}

/** Nothing of the message can have been taken: it may be said once more. */
export function isLossBeforeEnd(error: unknown): boolean {
  const event = error instanceof UpstreamError ? error.event : undefined;
  return event?.kind === 'lost' && !event.finalByteSent && event.stage !== 'connect';
}

export const isOver = ({ stage, reply }: Decision): boolean => reply.code === 421 && stage !== 'end';

/** Refused ahead of a yes to the body, and it would be said again, by us or by the client: the server may have the message. */
export const mayBeTaken = (decision: Decision, { retry }: Verdict): boolean =>
  decision.isContradicted === true && (isTemporary(decision.reply) || retry !== 'none');

/** Somebody heard 250 and is refused now: nobody gets the message, and it comes again (never a hidden loss). */
export const comeAgain = (r: ParsedReply): Decision => ({
  stage: 'rcpt',
  reply: { ...r, code: 451, enhanced: '4.5.0' },
});

export const split = (decision: Decision): Talk & { readonly decision: Decision } => ({
  decision,
  refusal: isPositive(decision.reply) ? undefined : decision,
});
