import { type Account, type GraphTarget, mailboxOf } from '../../accounts/account.ts';
import type { GraphKey } from './pacing.ts';

/** Where the account may use Graph. */
export const targetOf = (account: Account | undefined): GraphTarget | undefined =>
  account?.transport === 'smtp' ? undefined : account?.graph;

/** Whose limits hold there. */
export const keyOf = (account: Account, { app }: GraphTarget): GraphKey => ({
  app,
  mailbox: mailboxOf(account),
});
