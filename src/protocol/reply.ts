/**
 * SMTP replies as values. In: text from a peer or facts of our own. Out: `Reply`.
 * Pure; owns nothing. RFC 5321 §4.2 (replies), RFC 2034 and RFC 3463 (enhanced codes).
 */

import { cleanText } from './text.ts';

/** One SMTP reply: what a peer said to one command, or what we say. */
export interface Reply {
  /** Three-digit code, 200 to 599 (RFC 5321 §4.2.1). */
  readonly code: number;
  /** Enhanced status code such as `5.7.1` (RFC 3463); absent where the peer gave none. */
  readonly enhanced?: string;
  /** Human-readable text without code, enhanced code, CR or LF; lines of a multi-line reply are joined by a space. */
  readonly text: string;
}

/** Longest reply line on the wire including CRLF (RFC 5321 §4.5.3.1.5). */
const MAX_REPLY_LINE_OCTETS = 512;

/** Makes a reply; `enhanced` is `''` where none applies (2xx to EHLO, 354, …). */
export function reply(code: number, enhanced: string, text: string): Reply {
  return enhanced === '' ? { code, text } : { code, enhanced, text };
}

export const isPositive = (r: Reply): boolean => r.code >= 200 && r.code < 400;
export const isTemporary = (r: Reply): boolean => r.code >= 400 && r.code < 500;

/**
 * The text after the code as it goes to a client: enhanced code (if any), a space, the text;
 * control characters become spaces and the whole line fits 512 octets with code and CRLF.
 */
export function formatReplyText(r: Reply): string {
  const cleaned = cleanText(r.text, MAX_REPLY_LINE_OCTETS);
  const line = r.enhanced === undefined ? cleaned : `${r.enhanced} ${cleaned}`;
  const room = MAX_REPLY_LINE_OCTETS - '250 '.length - '\r\n'.length;
  if (Buffer.byteLength(line) <= room) return line;
  // Cut on octets; a multi-byte character split by the cut is dropped rather than mangled.
  return Buffer.from(line)
    .subarray(0, room)
    .toString()
    .replace(/\ufffd+$/, '');
}

/** The reply as one wire line without CRLF: `550 5.1.1 no such user`. */
export const formatReply = (r: Reply): string => `${r.code} ${formatReplyText(r)}`;
