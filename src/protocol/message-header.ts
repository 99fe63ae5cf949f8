/**
 * The header section of a message as lines of octets. In: a message. Out: its fields in order, and the
 * octets for another header section. Pure. Text is latin1, one character an octet, so that what is not
 * touched goes out as it came in.
 */

import { reply } from './reply.ts';

export interface HeaderField {
  /** Lower-cased, without the colon; empty for a line that is no field. */
  readonly name: string;
  /** Everything after the colon, folding included, without the last CRLF; latin1. */
  readonly value: string;
  /** The field as it stands, last CRLF included; latin1. */
  readonly raw: string;
}

export interface MessageHeader {
  readonly fields: readonly HeaderField[];
  /** Where the empty line begins that ends the section; the length of the message where there is none. */
  readonly end: number;
  /** A lone CR or LF stands in it, or a line that is neither a field nor its continuation: two readers may see two headers. */
  readonly ambiguous: boolean;
}

/** More octets than any honest header section has; by so many a section is judged. */
export const MAX_HEADER_OCTETS = 256 * 1024;
/** No honest header has more fields; what stands behind them is one without a name, and `ambiguous`. */
const MAX_FIELDS = 10_000;
export const HEADER_TOO_LONG = reply(552, '5.3.4', `Header section exceeds ${MAX_HEADER_OCTETS} octets`);
const FIELD = /^([!-9;-~]+)[ \t]*:/;

/** Reads the header section (RFC 5322 §2.2). Never throws. Linear, and bounded in what it makes. */
export function parseHeader(message: Buffer): MessageHeader {
  const end = headerEnd(message);
  const text = message.toString('latin1', 0, end);
  const fields: HeaderField[] = [];
  let ambiguous = /\r(?!\n)|(?<!\r)\n|\0/.test(text);
  // What follows the last CRLF is no line.
  for (let at = 0, lineEnd = endOfLine(text, at); lineEnd > 0; ) {
    const start = at;
    if (fields.length === MAX_FIELDS) {
      const raw = text.slice(start, text.lastIndexOf('\r\n') + 2);
      fields.push({ name: '', value: raw.slice(0, -2), raw });
      ambiguous = true;
      break;
    }
    do {
      // A line of white space alone ends the header for some readers and continues a field for others.
      if (text.slice(at, lineEnd).trim() === '') ambiguous = true;
      at = lineEnd;
      lineEnd = endOfLine(text, at);
    } while (lineEnd > 0 && (text[at] === ' ' || text[at] === '\t'));
    const raw = text.slice(start, at);
    const name = FIELD.exec(raw)?.[1];
    if (name === undefined) ambiguous = true;
    fields.push({
      name: name?.toLowerCase() ?? '',
      value: name === undefined ? raw.slice(0, -2) : raw.slice(raw.indexOf(':') + 1, -2),
      raw,
    });
  }
  return { fields, end, ambiguous };
}

/** Behind the next CRLF; 0 where there is none. */
function endOfLine(text: string, from: number): number {
  const at = text.indexOf('\r\n', from);
  return at < 0 ? 0 : at + 2;
}

/** Where the empty line begins that ends the header section; the length of the message where there is none. */
export function headerEnd(message: Buffer): number {
  if (message.subarray(0, 2).toString('latin1') === '\r\n') return 0;
  const blank = message.indexOf('\r\n\r\n');
  return blank < 0 ? message.length : blank + 2;
}

/** Value of a field as text: unfolded (RFC 5322 §2.2.3), octets read as UTF-8 (RFC 6532). */
export const unfold = (field: HeaderField): string =>
  trimBlanks(
    Buffer.from(field.value, 'latin1')
      .toString()
      .replace(/\r\n(?=[ \t])/g, ''),
  );

/** Without blanks and tabs at its ends: others are octets like any for mail (RFC 5322 §2.2.2). Linear. */
export function trimBlanks(text: string): string {
  let from = 0;
  let to = text.length;
  const isBlank = (at: number): boolean => text[at] === ' ' || text[at] === '\t';
  while (from < to && isBlank(from)) from++;
  while (to > from && isBlank(to - 1)) to--;
  return text.slice(from, to);
}

/** The message with another header section. */
export const withHeader = (message: Buffer, header: MessageHeader, fields: readonly string[]): Buffer =>
  Buffer.concat([Buffer.from(fields.join(''), 'latin1'), message.subarray(header.end)]);
