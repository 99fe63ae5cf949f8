import type { Account, GraphTarget } from '../../accounts/account.ts';
import type { GraphKey } from './pacing.ts';

/** Where the account may use Graph. */
export const targetOf = ({ transport, graph }: Account): GraphTarget | undefined =>
  transport === 'smtp' ? undefined : graph;

/** Whose limits hold there. */
export const keyOf = ({ id }: Account, { app, mailbox }: GraphTarget): GraphKey => ({
  app,
  mailbox: mailbox === 'me' ? id : mailbox,
});
