/** A row about a reply of a submission server, from AUTH on, and what it is judged by. Pure. */
import type { Cause, CauseStage } from './cause.ts';

/** What follows from it is done in verdict.ts. */
export type ReplyClass =
  | 'logins_throttled'
  | 'login_policy'
  | 'token_rejected'
  | 'login_not_understood'
  | 'login_fault'
  | 'login_refused'
  | 'session_over'
  | 'not_authenticated'
  | 'submission_rate'
  | 'too_many_at_once'
  | 'quota'
  | 'restricted'
  | 'send_as_denied'
  | 'too_many_recipients'
  | 'out_of_step'
  | 'service_trouble'
  | 'too_large'
  | 'service_refused'
  | 'message';

/** A reply as it is judged. */
export interface Heard {
  readonly stage: CauseStage;
  readonly code: number;
  readonly enhanced: string;
  /** The server's own words, addresses taken out. */
  readonly words: string;
}

export interface ReplyCause extends Cause {
  readonly class: ReplyClass;
  readonly is: (heard: Heard) => boolean;
}
