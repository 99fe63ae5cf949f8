import type { Account, GraphTarget } from '../../accounts/account.ts';
import type { GraphKey } from './pacing.ts';

/** Where the account may use Graph. */
export const targetOf = (account: Account | undefined): GraphTarget | undefined =>
  account?.transport === 'smtp' ? undefined : account?.graph;

/** Whose limits hold there. */
export const keyOf = ({ id }: Account, { app, mailbox }: GraphTarget): GraphKey => ({
  app,
  mailbox: mailbox === 'me' ? id : mailbox,
});
