/**
 * Trace lines. In: facts of a session. Out: one `Received` line (RFC 5321 §4.4), and how many a header
 * already holds. Pure.
 */
import { onceIn } from '../time-text.ts';

export interface TraceFacts {
  /** HELO/EHLO argument. */
  readonly helo: string;
  /** Peer's IP address; empty for a UNIX socket. */
  readonly remoteAddress: string;
  /** Our own name. */
  readonly by: string;
  /** RFC 3848: ESMTP, ESMTPS, ESMTPSA, LMTP, … */
  readonly protocol: string;
  /** `TLSv1.3 TLS_AES_256_GCM_SHA384`, where there was TLS. */
  readonly tls: string | undefined;
  /** Transaction id. */
  readonly id: string;
  /** Ms since the epoch. */
  readonly at: number;
}

/** The keyword of the `with` clause (RFC 3848). */
export function formatProtocol(facts: {
  readonly lmtp: boolean;
  readonly esmtp: boolean;
  readonly tls: boolean;
  readonly auth: boolean;
}): string {
  const base = facts.lmtp ? 'LMTP' : facts.esmtp || facts.tls || facts.auth ? 'ESMTP' : 'SMTP';
  return `${base}${facts.tls ? 'S' : ''}${facts.auth ? 'A' : ''}`;
}

/** One `Received` field with CRLF, folded. What the client said of itself is reduced to harmless characters. */
export function formatReceived(facts: TraceFacts): Buffer {
  const helo = facts.helo.replace(/[^A-Za-z0-9.:[\]_-]/g, '?').slice(0, 255);
  const from = facts.remoteAddress === '' ? helo : `${helo} (${literal(facts.remoteAddress)})`;
  const tls = facts.tls === undefined ? '' : ` (${facts.tls.replace(/[()\\\r\n]/g, ' ')})`;
  return Buffer.from(
    `Received: from ${from}\r\n` +
      `\tby ${facts.by} with ${facts.protocol}${tls} id ${facts.id};\r\n` +
      `\t${formatDate(facts.at)}\r\n`,
  );
}

const literal = (address: string): string => (address.includes(':') ? `[IPv6:${address}]` : `[${address}]`);

/** `Sat, 21 Nov 2026 01:02:03 +0000` (RFC 5322 §3.3) of ms since the epoch. */
export const formatDate = onceIn(1_000, (at) => new Date(at).toUTCString().replace('GMT', '+0000'));

/** `Received` fields in a header section given as text. */
export function countReceived(header: string): number {
  let count = 0;
  for (const _ of header.matchAll(/^received[ \t]*:/gim)) count += 1;
  return count;
}
