/** What operators see of accounts, transactions and relays, in code and on the page: closed sets of words, and when a relay is missing. Pure, imports nothing: browsers load it too. */

/** What an operator sees of an account, worst first; a merge of states takes the first that applies. */
export const STATUSES = [
  'misconfigured',
  'needs_consent',
  'unreachable',
  'throttled',
  'refreshing',
  'ready',
] as const;
export type AccountStatus = (typeof STATUSES)[number];

/** By which way mail is to leave. `smtp_then_graph`: by Graph only while SMTP AUTH is known to be switched off. */
export const TRANSPORTS = ['smtp', 'graph', 'smtp_then_graph'] as const;
export type Transport = (typeof TRANSPORTS)[number];

/** What an access token is good for. `smtp` is the default everywhere. */
export const TOKEN_RESOURCES = ['smtp', 'imap', 'graph'] as const;
export type TokenResource = (typeof TOKEN_RESOURCES)[number];

/** Whether only a person can bring the account back. */
export const needsPerson = (status: AccountStatus): boolean =>
  status === 'needs_consent' || status === 'misconfigured';

/** What is shown as the status of an account: a drained one is not ready, whatever it could do. */
export type ShownStatus = AccountStatus | 'drained';
/** What an operator should see first, first; ready accounts last. */
export const SHOWN_ORDER: readonly ShownStatus[] = STATUSES.flatMap((s) =>
  s === 'ready' ? ['drained', s] : [s],
);
/** Trouble that a person must cure is shown even while the account is drained. */
export const shownStatus = ({ status, drained }: { status: AccountStatus; drained: boolean }): ShownStatus =>
  drained && !needsPerson(status) ? 'drained' : status;

/**
 * `relayed`: the provider said 250. `deferred`: the client heard 4xx. `rejected`: the client heard 5xx.
 * `aborted`: the client left or sent RSET first. `unknown`: the final byte went out and no reply came (451 4.4.2).
 */
export const OUTCOMES = ['relayed', 'deferred', 'rejected', 'aborted', 'unknown'] as const;
export type Outcome = (typeof OUTCOMES)[number];
export const noOutcomes = (): Record<Outcome, number> => ({
  relayed: 0,
  deferred: 0,
  rejected: 0,
  aborted: 0,
  unknown: 0,
});

/**
 * Why this of several accounts took the message. `order`: all was equal, the file decides. `passed_over`: those
 * before it could take nothing. `ready_first`: none could, and this one was waited for.
 */
export const CHOSEN_BY = ['exactness', 'preference', 'room', 'order', 'passed_over', 'ready_first'] as const;
export type ChosenBy = (typeof CHOSEN_BY)[number];

/** A relay that has not said anything for this long is missing: the others keep its share free from then on, ms. */
export const MISSING_AFTER_MS = 4_000;
