/** What of an account a connection is a product of: one with other facts is of no use any more. Pure. */

import { createHash } from 'node:crypto';
import type { Account } from '../accounts/account.ts';

/** Equal for equal facts; holds no secret. */
export const factsOf = (a: Account): string =>
  JSON.stringify([a.upstream, a.user, a.localAddress, a.heloName, a.smtpProxy ?? null, loginOf(a)]);

/** Another password of the proxy makes another connection; kept is that it is another. */
function loginOf({ smtpProxy }: Account): string {
  if (smtpProxy === undefined || smtpProxy === 'none' || smtpProxy.login === undefined) return '';
  return createHash('sha256').update(smtpProxy.login.password.reveal()).digest('base64');
}
