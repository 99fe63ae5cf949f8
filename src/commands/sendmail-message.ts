/**
 * A message as programs pipe it into sendmail. In: the octets of standard input. Out: the message as it
 * goes over SMTP, and the recipients its header names. What the header lacks is added (From, Date,
 * Message-ID), an address without a domain in From is replaced; nothing else changes. Pure.
 */
import { parseAddressList } from '../protocol/address-list.ts';
import { type HeaderField, parseHeader, unfold, withHeader } from '../protocol/message-header.ts';
import { hasNonAscii } from '../protocol/path.ts';
import { cleanText } from '../protocol/text.ts';
import { EX, SendmailError } from './sysexits.ts';

/** With CRLF line ends, without what ends the input and the `From ` line of a mailbox file. */
export function readMessage(input: Buffer, endsAtDot: boolean): Buffer {
  let text = input.toString('latin1').replace(/\r?\n/g, '\r\n');
  if (text.startsWith('From '))
    text = text.slice(text.indexOf('\r\n') < 0 ? text.length : text.indexOf('\r\n') + 2);
  if (endsAtDot) {
    const dot = text.startsWith('.\r\n') ? 0 : text.indexOf('\r\n.\r\n') + 2;
    if (dot > 1 || text.startsWith('.\r\n')) text = text.slice(0, dot);
  }
  if (text !== '' && !text.endsWith('\r\n')) text += '\r\n';
  // A message without a header section begins with its body.
  if (!/^[!-9;-~]+[ \t]*:/.test(text)) text = `\r\n${text}`;
  return Buffer.from(text, 'latin1');
}

/** Recipients of `-t`: To, Cc and Bcc, or their Resent- forms where there are any (RFC 5322 §3.6.6). Throws a `SendmailError` where they cannot be told for certain. */
export function recipientsOf(message: Buffer): readonly string[] {
  const { fields } = parseHeader(message);
  const named = (prefix: string): readonly HeaderField[] =>
    fields.filter(({ name }) => [`${prefix}to`, `${prefix}cc`, `${prefix}bcc`].includes(name));
  const resent = named('resent-');
  return (resent.length > 0 ? resent : named('')).flatMap(addressesOf);
}

function addressesOf(field: HeaderField): readonly string[] {
  const value = unfold(field);
  if (value === '') return [];
  // Programs write `To: root`; a mailbox without a domain is none to RFC 5322.
  const words = value.split(',').map((word) => word.trim());
  if (words.every((word) => /^[\w.+-]+(@[\w.-]+)?$/.test(word))) return words;
  const { addresses, certain } = parseAddressList(value);
  if (!certain)
    throw new SendmailError(EX.data, `cannot tell who is meant: ${field.name}: ${value.slice(0, 200)}`);
  return addresses;
}

/** The address in From:, where there is exactly one with a domain. */
export function fromOf(message: Buffer): string | undefined {
  const froms = parseHeader(message).fields.filter(({ name }) => name === 'from');
  const [from] = froms;
  if (from === undefined || froms.length > 1) return undefined;
  const { addresses, certain } = parseAddressList(unfold(from));
  return certain && addresses.length === 1 ? addresses[0] : undefined;
}

export interface Completion {
  /** For a From: that is missing or has no domain; `''` leaves it. */
  readonly sender: string;
  readonly name: string | undefined;
  readonly date: string;
  readonly messageId: string;
  readonly removesBcc: boolean;
}

/** The message as it leaves. */
export function completeMessage(message: Buffer, completion: Completion): Buffer {
  const { sender, name, date, messageId, removesBcc } = completion;
  const header = parseHeader(message);
  const lines: string[] = [];
  const seen = new Set(header.fields.map((field) => field.name));
  if (!seen.has('date')) lines.push(`Date: ${date}\r\n`);
  if (!seen.has('message-id')) lines.push(`Message-ID: ${messageId}\r\n`);
  if (!seen.has('from') && sender !== '') lines.push(fromLine(name, sender));
  for (const field of header.fields) {
    if (removesBcc && (field.name === 'bcc' || field.name === 'resent-bcc')) continue;
    const isLocal = field.name === 'from' && sender !== '' && !field.value.includes('@');
    lines.push(isLocal ? fromLine(name ?? displayName(unfold(field)), sender) : field.raw);
  }
  return withHeader(message, header, lines);
}

/** `root (Cron Daemon)` is called Cron Daemon, `Shop <www-data>` Shop. */
const displayName = (value: string): string =>
  /\(([^()]+)\)/.exec(value)?.[1] ??
  value
    .replace(/<[^<>]*>/, '')
    .replace(/^"(.*)"$/, '$1')
    .trim();

function fromLine(name: string | undefined, sender: string): string {
  const plain = name === undefined ? undefined : cleanText(name).trim();
  if (plain === undefined || plain === '') return `From: ${latin1(sender)}\r\n`;
  const phrase = hasNonAscii(plain)
    ? `=?utf-8?b?${Buffer.from(plain).toString('base64')}?=`
    : `"${plain.replace(/["\\]/g, '\\$&')}"`;
  return `From: ${phrase} <${latin1(sender)}>\r\n`;
}

const latin1 = (text: string): string => Buffer.from(text).toString('latin1');

export const hasEightBit = (message: Buffer): boolean => message.some((octet) => octet > 127);
