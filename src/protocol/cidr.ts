/** Address ranges such as `10.0.0.0/8` or `2001:db8::/32`. In: text. Out: a test for addresses. Pure. */
import { BlockList, isIP, SocketAddress } from 'node:net';

/** Whether an address lies in one of `ranges`. Throws a `RangeError` naming the one that is no CIDR and no address. */
export function parseRanges(ranges: readonly string[]): (address: string) => boolean {
  const list = new BlockList();
  for (const range of ranges) {
    const [address = '', bits, ...more] = range.trim().split('/');
    const family = isIP(address);
    const width = family === 4 ? 32 : 128;
    const prefix = bits === undefined ? width : /^\d{1,3}$/.test(bits) ? Number(bits) : Number.NaN;
    if (family === 0 || more.length > 0 || !(prefix <= width)) {
      throw new RangeError(`not an address or CIDR range: ${JSON.stringify(range)}`);
    }
    list.addSubnet(address, prefix, family === 4 ? 'ipv4' : 'ipv6');
  }
  return (address) => {
    const plain = unmapped(address);
    const family = isIP(plain);
    return family !== 0 && list.check(plain, family === 4 ? 'ipv4' : 'ipv6');
  };
}

const isInLoopback = parseRanges(['127.0.0.0/8', '::1']);

/** 127.0.0.0/8, ::1 and their IPv4-mapped forms. */
export const isLoopbackAddress = (address: string): boolean => isInLoopback(address);

/** Whether a host as operators and URLs write it (name, address, `[address]`) can only be this machine: a name below `localhost` is asked of DNS by some resolvers. */
export function isLoopbackHost(host: string): boolean {
  const bare = host.toLowerCase().replace(/^\[|\]$/g, '');
  return bare === 'localhost' || isLoopbackAddress(bare);
}

/** `::ffff:192.0.2.1` is how a dual-stack socket names an IPv4 peer. */
const unmapped = (address: string): string =>
  /^::ffff:[\d.]+$/i.test(address) ? address.slice('::ffff:'.length) : address;

/** An address in the one spelling that is compared and counted: IPv4 unmapped, IPv6 as RFC 5952 has it. */
export function plainAddress(address: string): string {
  const plain = unmapped(address);
  return isIP(plain) === 6 && !plain.includes('%')
    ? unmapped(new SocketAddress({ address: plain, family: 'ipv6' }).address)
    : plain;
}
