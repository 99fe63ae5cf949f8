/** The name given with EHLO: a host name with a dot or an address literal, nothing else (RFC 5321 §4.1.4). Pure. */
import { isIPv4, isIPv6 } from 'node:net';

const LABEL = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;
/** RFC 1035 §2.3.4. */
const MAX_NAME_OCTETS = 253;

/** `mail.example.org`: labels of letters, digits and hyphens, at least two, the last no number. */
export function isDottedHostName(text: string): boolean {
  const labels = text.split('.');
  return (
    text.length <= MAX_NAME_OCTETS &&
    labels.length >= 2 &&
    labels.every((label) => LABEL.test(label)) &&
    !/^\d+$/.test(labels.at(-1) ?? '')
  );
}

/** `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3). */
function isAddressLiteral(text: string): boolean {
  const inside = /^\[(IPv6:)?([^\]%]+)\]$/i.exec(text);
  return inside?.[2] !== undefined && (inside[1] === undefined ? isIPv4(inside[2]) : isIPv6(inside[2]));
}

export const isHeloName = (text: string): boolean => isDottedHostName(text) || isAddressLiteral(text);

/** The literal of an address as a socket tells it; a zone is for this host only and goes. */
export function addressLiteral(address: string): string {
  const bare = address.replace(/%.*$/, '').replace(/^::ffff:(?=\d+\.)/i, '');
  return isIPv6(bare) ? `[IPv6:${bare}]` : `[${bare}]`;
}
