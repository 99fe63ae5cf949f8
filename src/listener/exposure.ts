/**
 * Whether a listener may start: nobody from elsewhere may send through an account without having shown
 * its password over TLS, unless the operator named the clients; and nobody is believed to speak for
 * others who was not named. Pure.
 */
import type { Account } from '../accounts/account.ts';
import { isLoopbackHost } from '../protocol/cidr.ts';
import { formatPlace, type ListenerOptions } from './options.ts';

/** Only programs on this host reach it. A proxy in front may bring anybody. */
export function isLocalOnly(
  options: Pick<ListenerOptions, 'host' | 'path' | 'fd' | 'proxyProtocol'>,
): boolean {
  return options.proxyProtocol === false && isReachedLocally(options);
}

function isReachedLocally(options: Pick<ListenerOptions, 'host' | 'path' | 'fd'>): boolean {
  if (options.path !== undefined) return true;
  if (options.fd !== undefined) return false;
  return isLoopbackHost(options.host);
}

/** Whether somebody is trusted there: programs of this machine that alone reach it, or whom `allow` names. */
export const trustsSomebody = (
  options: Pick<ListenerOptions, 'host' | 'path' | 'fd' | 'proxyProtocol' | 'allow'>,
): boolean => options.allow.length > 0 || isLocalOnly(options);

/** Why the listener must not start, and what to set; undefined where it may. */
export function checkExposure(
  options: Pick<
    ListenerOptions,
    'host' | 'port' | 'path' | 'fd' | 'proxyProtocol' | 'proxyFrom' | 'allow' | 'tls'
  >,
): string | undefined {
  const place = `listener ${formatPlace(options)}`;
  if (options.proxyProtocol === true && options.proxyFrom.length === 0 && !isReachedLocally(options))
    return (
      `${place} would believe any peer's PROXY header: name the load balancers in \`proxy_from\` ` +
      '(addresses or CIDR ranges), or listen on 127.0.0.1'
    );
  if (trustsSomebody(options) || options.tls !== 'none') return undefined;
  return (
    `${place} can be reached from other hosts and nobody may log in without TLS: set \`tls\` (starttls or ` +
    'implicit) with a certificate and key, or name the clients in `allow`, or listen on 127.0.0.1'
  );
}

/** Accounts that cannot be used on a listener like this for want of a password, in words; undefined where there are none. */
export function describeUnusable(
  options: Pick<
    ListenerOptions,
    'host' | 'port' | 'path' | 'fd' | 'proxyProtocol' | 'allow' | 'authRequired'
  >,
  accounts: readonly Account[],
): string | undefined {
  if (trustsSomebody(options) && !options.authRequired) return undefined;
  const open = accounts.filter((a) => a.clientPassword === undefined).map((a) => a.id);
  if (open.length === 0) return undefined;
  const named = open.slice(0, 3).join(', ');
  const more = open.length > 3 ? ` and ${open.length - 3} more` : '';
  return `listener ${formatPlace(options)} needs a \`password\` in the accounts file: ${named}${more} cannot be used there`;
}
