/**
 * The PROXY protocol's header, version 1 (text) and 2 (binary), as HAProxy's proxy-protocol.txt has it.
 * In: the octets so far. Out: the client's address, or how many octets more are needed. Pure.
 */
import { isIP } from 'node:net';

/** What begins every version 2 header; the first octets of both versions are as many. */
const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
/** Version 1: 107 octets with CRLF at most. */
const MAX_TEXT_OCTETS = 107;
/** Version 2 may be 64 KiB; addresses and what load balancers add stay far below. */
const MAX_BINARY_OCTETS = 4_096;

export type ProxyHeader =
  /** `needs`: so many octets in all are needed to go on, at least. */
  | { readonly state: 'incomplete'; readonly needs: number }
  | { readonly state: 'invalid' }
  /** `source`: the client's address; undefined where the proxy speaks for itself or knows none. */
  | { readonly state: 'complete'; readonly length: number; readonly source: string | undefined };

const INVALID: ProxyHeader = { state: 'invalid' };

/** Reads a header. Never needs more octets than the header has, so nothing behind it has to be read. */
export function parseProxyHeader(octets: Buffer): ProxyHeader {
  const first = octets.subarray(0, SIGNATURE.length);
  if (first.equals(SIGNATURE.subarray(0, first.length)))
    return first.length < SIGNATURE.length
      ? { state: 'incomplete', needs: SIGNATURE.length }
      : parseBinary(octets);
  return parseText(octets);
}

function parseText(octets: Buffer): ProxyHeader {
  const lf = octets.indexOf(0x0a);
  if (lf < 0) {
    const { length } = octets;
    const isPossible = octets.subarray(0, 6).equals(Buffer.from('PROXY ').subarray(0, length));
    return isPossible && length < MAX_TEXT_OCTETS ? { state: 'incomplete', needs: length + 1 } : INVALID;
  }
  const line = octets.toString('latin1', 0, lf + 1);
  if (line.length > MAX_TEXT_OCTETS || !line.endsWith('\r\n')) return INVALID;
  const [word, family, source = '', destination = '', ...ports] = line.slice(0, -2).split(' ');
  if (word !== 'PROXY') return INVALID;
  if (family === 'UNKNOWN') return { state: 'complete', length: lf + 1, source: undefined };
  const version = family === 'TCP4' ? 4 : family === 'TCP6' ? 6 : -1;
  const isSound =
    isIP(source) === version &&
    isIP(destination) === version &&
    ports.length === 2 &&
    ports.every((port) => /^\d{1,5}$/.test(port) && Number(port) <= 65_535);
  return isSound ? { state: 'complete', length: lf + 1, source } : INVALID;
}

function parseBinary(octets: Buffer): ProxyHeader {
  const fixed = SIGNATURE.length + 4;
  if (octets.length < fixed) return { state: 'incomplete', needs: fixed };
  const [command = 0, family = 0] = octets.subarray(SIGNATURE.length);
  const length = fixed + octets.readUInt16BE(fixed - 2);
  if (command >> 4 !== 2 || (command & 15) > 1 || length > MAX_BINARY_OCTETS) return INVALID;
  if (octets.length < length) return { state: 'incomplete', needs: length };
  const addresses = octets.subarray(fixed, length);
  const known = (source: string | undefined): ProxyHeader => ({ state: 'complete', length, source });
  // LOCAL: the proxy itself, looking whether we are there.
  if ((command & 15) === 0) return known(undefined);
  switch (family) {
    case 0x11:
      return addresses.length < 12 ? INVALID : known(addresses.subarray(0, 4).join('.'));
    case 0x21:
      return addresses.length < 36 ? INVALID : known(formatIpv6(addresses));
    case 0x00:
    case 0x31:
      return known(undefined);
    default:
      return INVALID;
  }
}

function formatIpv6(octets: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, i) => octets.readUInt16BE(2 * i));
  // IPv4-mapped, written as a dual-stack socket names such a peer.
  if (groups.slice(0, 5).every((g) => g === 0) && groups[5] === 0xffff)
    return `::ffff:${octets.subarray(12, 16).join('.')}`;
  return groups.map((g) => g.toString(16)).join(':');
}
