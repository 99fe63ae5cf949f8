/**
 * One row of the book of causes: how a trouble is recognised, what it is called, what happened in words
 * and what cures it. Pure. What follows from a class stands where it is done: verdict.ts for replies,
 * token-failure.ts for token endpoints.
 */

import { commandFor } from '../shell-command.ts';

/** Where an account's way to its provider broke. `sign-in` is a person's, `token` the relay's own request. */
export type CauseStage =
  | 'sign-in'
  | 'token'
  | 'dns'
  | 'tcp'
  | 'tls'
  | 'greeting'
  | 'ehlo'
  | 'auth'
  | 'mail'
  | 'rcpt'
  | 'body'
  | 'end'
  /** A request to Microsoft Graph. */
  | 'graph';

/** What words may name of an account. */
export interface CauseFacts {
  readonly provider: string;
  /** Submission server. */
  readonly host: string;
  readonly port: number;
  /** The mailbox as it logs in. */
  readonly user: string;
  /** The account's address, by which every command takes it. */
  readonly account: string;
  /** Address in MAIL FROM, where that is the trouble. */
  readonly sender?: string;
  readonly grant: string;
}

export type Words = string | ((facts: CauseFacts) => string);

/** What is true for some accounts only, in place of the row's own words. */
export interface SpecialWords {
  /** For the documentation: `with grant client_credentials`. */
  readonly where: string;
  readonly when: (facts: CauseFacts) => boolean;
  readonly what: Words;
  readonly cure: Words;
}

export interface Cause {
  /** Stable; the anchor in docs/troubleshooting.md. */
  readonly id: string;
  readonly stages: readonly CauseStage[];
  /** As a person sees it in a log line or reply. */
  readonly symptom: string;
  readonly what: Words;
  readonly cure: Words;
  readonly special?: readonly SpecialWords[];
}

export interface Explanation {
  /** What it means. */
  readonly what: string;
  /** What to do, by whom. */
  readonly cure: string;
}

export const isGoogle = (f: CauseFacts): boolean => f.provider === 'gmail' || /gmail|google/i.test(f.host);
export const isMicrosoft = (f: CauseFacts): boolean =>
  f.provider.startsWith('outlook') || /outlook|office365|microsoft/i.test(f.host);

/** What only a person can do, by each way there is. */
export const signInAgain = ({ account }: CauseFacts): string =>
  `sign in again: "Sign in" in the dashboard, a link for its owner (${commandFor('account invite', account)}), or ${commandFor('account add', account, '--replace')}`;

/** The row's words for an account. */
export function explainCause(cause: Cause, facts: CauseFacts): Explanation {
  const { what, cure } = cause.special?.find((special) => special.when(facts)) ?? cause;
  return { what: wordsFor(what, facts), cure: wordsFor(cure, facts) };
}

export const wordsFor = (words: Words, facts: CauseFacts): string =>
  typeof words === 'string' ? words : words(facts);
