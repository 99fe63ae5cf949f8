/**
 * Whether a listener may start: nobody from elsewhere may send through an account without having shown
 * its password over TLS, unless the operator named the clients. Pure.
 */
import type { Account } from '../accounts/account.ts';
import { isLoopbackAddress } from '../protocol/cidr.ts';
import { formatPlace, type ListenerOptions } from './options.ts';

/** Only programs on this host reach it. A proxy in front may bring anybody. */
export function isLocalOnly(
  options: Pick<ListenerOptions, 'host' | 'path' | 'fd' | 'proxyProtocol'>,
): boolean {
  if (options.proxyProtocol !== false) return false;
  if (options.path !== undefined) return true;
  if (options.fd !== undefined) return false;
  return options.host === 'localhost' || isLoopbackAddress(options.host);
}

/** Why the listener must not start, and what to set; undefined where it may. */
export function checkExposure(
  options: Pick<ListenerOptions, 'host' | 'port' | 'path' | 'fd' | 'proxyProtocol' | 'allow' | 'tls'>,
  accounts: readonly Account[],
): string | undefined {
  if (isLocalOnly(options) || options.allow.length > 0) return undefined;
  const open = accounts.filter((a) => a.clientPassword === undefined);
  const missing: string[] = [];
  if (options.tls === 'none') missing.push('`tls` (starttls or implicit) with a certificate and key');
  if (open.length > 0) {
    const named = open.slice(0, 3).map((a) => a.id);
    const more = open.length > named.length ? ` and ${open.length - named.length} more` : '';
    missing.push(`a \`password\` for ${named.join(', ')}${more}`);
  }
  if (missing.length === 0) return undefined;
  return (
    `listener ${formatPlace(options)} can be reached from other hosts: set ${missing.join(' and ')}, ` +
    'or name the clients in `allow`, or listen on 127.0.0.1'
  );
}
